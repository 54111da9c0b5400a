"""The framing of stock messages: signatures as RFC 2104 has them, dates as stock clients parse them."""

from __future__ import annotations

import hmac

import pytest

from clusterd.core.wire import jupyter
from clusterd.errors import WireError

SCHEMES = ("sha256", "sha384", "sha512", "sha1", "md5", "blake2b", "blake2s")


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("length", [1, 64, 65, 128, 129])
def test_a_signature_is_the_hmac_of_the_four_dictionaries(name, length):
    key = bytes(range(length))
    expected = hmac.digest(key, b"abbcccdddd", name).hex().encode()
    signer = jupyter.Signer(key, f"hmac-{name}")
    assert signer.sign(b"a", b"bb", b"ccc", b"dddd") == expected
    assert signer.sign(b"a", b"bb", b"ccc", b"dddd") == expected


def test_nothing_is_signed_without_a_key():
    assert jupyter.Signer(b"").sign(b"a", b"b", b"c", b"d") == b""


def test_a_scheme_that_is_not_known_is_said():
    with pytest.raises(WireError, match="rot13"):
        jupyter.Signer(b"key", "hmac-rot13")


@pytest.mark.parametrize(
    ("wall", "date"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1.5, "1970-01-01T00:00:01.500000Z"),
        (0.9999999, "1970-01-01T00:00:01.000000Z"),
        (1_763_846_400.123456, "2025-11-22T21:20:00.123456Z"),
    ],
)
def test_dates_have_six_digits_and_a_zone(wall, date):
    assert jupyter.date_of(wall) == date
    assert jupyter.seconds_of(date) == pytest.approx(wall, abs=1e-6)

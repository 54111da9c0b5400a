from __future__ import annotations

import base64
import json
import secrets

import pytest

from clusterctl.reports.redaction import REMOVED, Redactor, credentials_of, secrets_in

KEY = "0123456789abcdef" * 4
CURVE = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


def forms(secret):
    contents = [secret.encode()]
    if set(secret) <= set("0123456789abcdef"):
        contents.append(bytes.fromhex(secret))
    yield secret
    for content in contents:
        yield content.hex()
        yield content.hex().upper()
        yield base64.b64encode(content).decode()
        yield base64.urlsafe_b64encode(content).decode()
        yield base64.b64encode(content).decode().rstrip("=")
        yield repr(content)


@pytest.mark.parametrize("secret", [KEY, CURVE, "pa\"ss'wörd", "x" * 8])
def test_a_known_secret_is_removed_however_it_is_written(secret):
    redactor = Redactor([secret])
    for form in forms(secret):
        cleaned = redactor.clean(f"before {form} after")
        assert cleaned.startswith("before ")
        assert cleaned.endswith(" after")
        assert REMOVED in cleaned
    assert secret not in redactor.clean(json.dumps({"a": secret}))


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("mongodb://alice:s3cret@db1:27017/x?tls=true", f"mongodb://{REMOVED}@db1:27017/x?tls=true"),
        ("AWS_SECRET_ACCESS_KEY=abc/def+1", f"AWS_SECRET_ACCESS_KEY={REMOVED}"),
        ('{"api_key": "one two", "n": 3}', f'{{"api_key": "{REMOVED}", "n": 3}}'),
        ("env: {MY_TOKEN: abc, N: 4}", f"env: {{MY_TOKEN: {REMOVED}, N: 4}}"),
        ("password = 'it is \"this\"' # why", f"password = '{REMOVED}' # why"),
        ("Authorization: Bearer eyJhbGciOi.xyz", f"Authorization: Bearer {REMOVED}"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\nx", f"{REMOVED}\nx"),
        (f"digest {KEY} here", f"digest {REMOVED} here"),
    ],
)
def test_what_looks_like_a_secret_is_removed(text, cleaned):
    assert Redactor([]).clean(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "engines/3 (id 3) is gone: killed by SIGKILL",
        "569ef52f0011223344556677889900aa",
        "unix:///run/clusterd/lab/client-data",
        '{"launch": "1f3c9a20-17", "pid": 4711}',
        "the key was changed",
    ],
)
def test_what_is_none_is_left(text):
    assert Redactor([KEY, "", "abc"]).clean(text) == text


def test_the_longest_of_two_goes_first():
    assert Redactor(["secret", "secret-and-more"]).clean("a secret-and-more b") == f"a {REMOVED} b"


def test_what_is_secret_in_the_files_of_a_cluster(tmp_path):
    (tmp_path / "controller-secrets.json").write_text(
        json.dumps(
            {
                "client_key": KEY,
                "curve_secret": CURVE,
                "ports": {"mux": 1},
                "previous": {"stock_key": "older"},
                "places": ["here"],
            }
        )
    )
    (tmp_path / "ipcontroller-client.json").write_text(
        json.dumps({"key": "text", "location": "host", "clusterd": {"key": "other", "cluster": "lab"}})
    )
    assert secrets_in(tmp_path) == {KEY, CURVE, "older", "text", "other"}
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="Expecting"):
        secrets_in(tmp_path)


def test_the_password_of_the_database(tmp_path):
    file = tmp_path / "mongodb.credentials"
    file.write_text("alice:pass:word\n")
    profile = f"controller:\n  mongodb: {{uri: 'mongodb://db1', credentials: {file}}}\n"
    assert credentials_of(profile) == {"alice:pass:word", "pass:word"}
    assert credentials_of("controller: {mongodb: {credentials: /nowhere/at/all}}\n") == set()


def test_random_keys_never_get_through():
    for _ in range(50):
        key = secrets.token_hex(32)
        redactor = Redactor([key])
        text = " ".join(forms(key))
        assert not any(form in redactor.clean(text) for form in forms(key))


@pytest.mark.timeout(20)
def test_a_line_without_end_is_cleaned_in_time():
    # Squared, 300,000 characters would take hours.
    for text in ("z" * 300_000, "token" * 60_000, "x://" * 75_000):
        assert len(Redactor([KEY]).clean(text)) == len(text)

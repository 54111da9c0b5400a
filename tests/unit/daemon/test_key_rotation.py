"""Keys that are changed while nothing runs: in the secrets, in the connection files, in the copy for IPython."""

from __future__ import annotations

import json
import stat

import msgspec
import pytest

from clusterd.controller import credentials
from clusterd.core.model import connection
from clusterd.core.model.secrets import MAX_RETIRED, Keys, Secrets, secrets_name
from clusterd.daemon.connecting import Publisher
from clusterd.daemon.key_rotation import change_in_files
from clusterd.daemon.places import Places
from clusterd.daemon.story import Story
from clusterd.errors import ControlError
from clusterd.publish import place
from clusterd.system import files
from clusterd.system.paths import host_id

KEPT = Secrets("aa" * 32, "bb" * 32, "cc" * 32, "public", "secret", {"client-data": 7}, 5, [], {"e": 1}, "stock")


@pytest.fixture
def places(isolated):
    places = Places.of("lab")
    files.private_directory(places.security)
    return places


def file_of(side, *, stock=True):
    native = connection.NativeEndpoints(
        connection.FORMAT, "unix:///nobody", "unix:///nobody", "aa" * 32, "lab", "00", host=host_id()
    )
    endpoints = connection.StockEndpoints("tcp://127.0.0.1", 1, 2, 3, 4, 5, 6, "stock") if stock else None
    return connection.encode(connection.ConnectionFile(native, "here", "", endpoints)), f"ipcontroller-{side}.json"


def write(places, *, stock=True):
    files.atomic_write(places.security / secrets_name(), msgspec.json.encode(KEPT))
    for side in ("client", "engine"):
        content, name = file_of(side, stock=stock)
        files.atomic_write(places.security / name, content)


def read(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return json.loads(path.read_bytes())


@pytest.mark.parametrize("stock", [True, False])
def test_all_files_have_the_new_keys_and_keep_the_rest(places, stock):
    write(places, stock=stock)
    answer = change_in_files(places, has_curve=False)
    kept = read(places.security / secrets_name())
    old = msgspec.to_builtins(KEPT)
    for name in ("client_key", "engine_key", "stock_key"):
        assert kept[name] != old[name]
    changed = {"client_key", "engine_key", "stock_key", "retired"}
    assert {name: kept[name] for name in kept if name not in changed} == {
        name: old[name] for name in old if name not in changed
    }
    (retired,) = kept["retired"]
    assert (retired["client_key"], retired["until"], retired["stock_engines"]) == (
        "aa" * 32,
        retired["changed_at"],
        ["e"],
    )
    for side in ("client", "engine"):
        before = json.loads(file_of(side, stock=stock)[0])
        after = read(places.security / f"ipcontroller-{side}.json")
        assert after["clusterd"].pop("key") == kept[f"{side}_key"]
        assert after.pop("key", None) == (kept["stock_key"] if stock else None)
        del before["clusterd"]["key"]
        before.pop("key", None)
        assert after == before
    assert (answer["where"], answer["until"], len(answer["files"])) == ("files", None, 3)


def test_the_curve_pair_is_left_to_the_next_controller(places):
    write(places)
    change_in_files(places, has_curve=True)
    path = places.security / secrets_name()
    assert read(path)["curve_secret"] == ""
    loaded = credentials.load_secrets(path)
    assert len(loaded.curve_public) == len(loaded.curve_secret) == 40


def test_files_that_are_not_there_are_not_made(places):
    files.atomic_write(places.security / secrets_name(), msgspec.json.encode(KEPT))
    assert change_in_files(places, has_curve=False)["files"] == [str(places.security / secrets_name())]


def test_without_kept_keys_there_is_nothing_to_change(places):
    with pytest.raises(ControlError, match="no keys to change"):
        change_in_files(places, has_curve=False)


def test_secrets_that_others_can_read_or_that_are_damaged_are_not_used(places):
    write(places)
    path = places.security / secrets_name()
    path.write_bytes(b"{")
    with pytest.raises(ControlError, match="could not be changed"):
        change_in_files(places, has_curve=False)


def test_the_last_keys_alone_are_accepted_and_eight_are_remembered():
    secrets = msgspec.json.decode(msgspec.json.encode(KEPT), type=Secrets)
    for number in range(MAX_RETIRED + 2):
        secrets.change(Keys(f"{number}", "e", "s"), 100.0 * number, 1000.0)
    assert len(secrets.retired) == MAX_RETIRED
    now = 100.0 * (MAX_RETIRED + 1)
    assert secrets.in_grace(now).client_key == f"{MAX_RETIRED}"
    assert [retired.until <= now for retired in secrets.retired] == [True] * (MAX_RETIRED - 1) + [False]
    assert secrets.in_grace(now + 1000.0) is None


def test_the_copy_for_ipython_is_renewed_if_it_is_ours(places):
    publisher, target = Publisher(places, story := Story()), place("lab")
    assert publisher.renew() is None
    write(places)
    files.private_directory(target.parent)
    files.atomic_write(target, (places.security / "ipcontroller-client.json").read_bytes())
    change_in_files(places, has_curve=False)
    assert publisher.renew() == target
    assert read(target) == read(places.security / "ipcontroller-client.json")
    theirs = target.read_bytes().replace(b'"lab"', b'"other"')
    files.atomic_write(target, theirs)
    assert publisher.renew() is None
    assert target.read_bytes() == theirs
    assert story.since(0) == []

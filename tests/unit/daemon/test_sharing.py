"""What is given to whom, where ACLs are missing, directories are closed, and the user directory is away."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat

import pytest

from clusterd.control.authorize import Authorizer
from clusterd.control.directory import Directory
from clusterd.core.model.access import Access, Subjects
from clusterd.daemon import sharing as module
from clusterd.daemon.places import Places
from clusterd.daemon.sharing import Sharing
from clusterd.daemon.story import Story
from clusterd.system import acl, files

LAB = Access(connect=Subjects(users=["carol"], groups=["physics"]), view=Subjects(users=["alice"]))
CAROL, ALICE, PHYSICS = 70_002, 70_003, 70_200


class World:
    """An instance's files, as daemon and controller make them."""

    def __init__(self, access=LAB):
        self.access = access
        self.places = places = Places.of("lab")
        self.users = {"carol": CAROL, "alice": ALICE}
        self.error = None
        for directory in (places.runtime, places.state.parent, places.state, places.security):
            files.private_directory(directory)
        self.listen(places.socket)
        self.controller_starts()
        for name in ("ipcontroller-engine.json", "controller-secrets.json"):
            files.atomic_write(places.security / name, "{}")
        directory = Directory(uid_of=self.uid_of, gid_of={"physics": PHYSICS}.get, patience=5.0)
        authorizer = Authorizer(lambda: self.access, lambda: "lab.yaml", directory)
        self.directory = directory
        self.sharing = Sharing(places, lambda: self.access, authorizer, Story())

    def uid_of(self, name):
        if self.error:
            raise self.error
        return self.users.get(name)

    @staticmethod
    def listen(path):
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
        path.chmod(0o600)

    def controller_starts(self):
        for name in ("client-data", "client-control", "engine-data"):
            self.listen(self.places.runtime / name)
        files.atomic_write(self.places.security / "ipcontroller-client.json", "{}", keeps_access=True)

    def begin(self):
        async def run():
            await self.sharing.begin()
            self.sharing.close()

        asyncio.run(run())

    def modes(self):
        places = self.places
        files = {
            "socket": places.socket,
            **{name: places.runtime / name for name in ("client-data", "engine-data")},
            **{name: places.security / f"{name}.json" for name in ("ipcontroller-client", "controller-secrets")},
            "runtime": places.runtime,
            "security": places.security,
        }
        return {name: (oct(stat.S_IMODE(path.stat().st_mode)), given(path)) for name, path in files.items()}


def given(path):
    """Which ACL a file has, by its meaning here."""
    try:
        found = os.getxattr(path, acl.ATTRIBUTE)
    except OSError:
        return ""
    for right in (1, 4, 6):
        owner = 7 if right == 1 else 6
        if found == acl.encoded(owner, right, {CAROL, ALICE}, {PHYSICS}):
            return f"all:{right}"
        if found == acl.encoded(owner, right, {CAROL}, {PHYSICS}):
            return f"connect:{right}"
    return found.hex()


PRIVATE = {
    **dict.fromkeys(("socket", "client-data", "engine-data"), ("0o600", "")),
    **dict.fromkeys(("ipcontroller-client", "controller-secrets"), ("0o600", "")),
    **dict.fromkeys(("runtime", "security"), ("0o700", "")),
}
SHARED = {
    **PRIVATE,
    "socket": ("0o660", "all:6"),
    "client-data": ("0o660", "connect:6"),
    "ipcontroller-client": ("0o640", "connect:4"),
    "runtime": ("0o710", "all:1"),
    "security": ("0o710", "connect:1"),
}


@pytest.fixture
def world(isolated):
    for place in (isolated.root, isolated.runtime, isolated.state):
        place.chmod(0o755)
    return World()


@pytest.fixture
def with_acls(world):
    try:
        os.setxattr(world.places.socket, acl.ATTRIBUTE, acl.encoded(6, 6, [1], []))
    except OSError as error:
        pytest.skip(f"no ACLs on the file system of /tmp: {error.strerror}")
    acl.keep_private(world.places.socket)
    return world


def test_those_who_may_are_let_in_and_out_again(with_acls):
    world = with_acls
    assert world.modes() == PRIVATE
    world.begin()
    assert world.modes() == SHARED
    assert world.sharing.problems == []
    world.access = Access()
    world.begin()
    assert world.modes() == PRIVATE


def test_what_a_controller_makes_anew_is_given_again(with_acls):
    world = with_acls
    world.begin()
    world.controller_starts()
    assert world.modes()["client-data"] == ("0o600", "")
    # The file never was without: its writer has kept that.
    assert world.modes()["ipcontroller-client"] == SHARED["ipcontroller-client"]
    world.sharing.follow()
    assert world.modes() == SHARED


def test_a_directory_that_is_away_gives_nothing_and_is_asked_again(with_acls, monkeypatch):
    world = with_acls
    world.error = OSError(5, "sssd is away")
    monkeypatch.setattr(module, "RETRY_AFTER", 0.01)

    async def run():
        await world.sharing.begin()
        assert "sssd is away" in world.sharing.problems[0]
        assert world.modes()["ipcontroller-client"][1] in ("", acl.encoded(6, 4, (), ()).hex())
        world.error = None
        async with asyncio.timeout(10):
            while world.sharing.problems:  # noqa: ASYNC110 - the loop that asks again is the subject
                await asyncio.sleep(0.01)
        assert world.modes() == SHARED
        # It came back while the profile was read again: what was given stays.
        world.error = OSError(5, "sssd is away")
        world.directory.forget()
        await world.sharing.begin()
        assert world.modes() == SHARED
        world.sharing.close()

    asyncio.run(run())


def test_names_that_nobody_has_are_told(with_acls):
    with_acls.users.pop("alice")
    with_acls.begin()
    assert with_acls.sharing.problems == ["access: the user directory knows no user alice"]
    assert with_acls.modes()["ipcontroller-client"] == SHARED["ipcontroller-client"]


def test_a_directory_that_is_closed_above_ours_is_told(with_acls, isolated):
    isolated.runtime.chmod(0o700)
    with_acls.begin()
    [problem] = with_acls.sharing.problems
    assert f"others do not reach the daemon, because {isolated.runtime} is closed to them (mode 0700)" in problem


def test_without_acls_sockets_are_open_behind_a_check_and_the_key_to_nobody(world, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    monkeypatch.setattr(os, "removexattr", refuse)
    world.begin()
    modes = {name: mode for name, (mode, _) in world.modes().items()}
    assert modes == {
        **{name: mode for name, (mode, _) in PRIVATE.items()},
        **dict.fromkeys(("socket", "client-data"), "0o666"),
        **dict.fromkeys(("runtime", "security"), "0o711"),
    }
    told = "\n".join(world.sharing.problems)
    assert f"everybody on this host can reach {world.places.socket}, and is refused there" in told
    assert "those who may connect cannot be given" in told
    world.access = Access()
    world.begin()
    assert {name: mode for name, (mode, _) in world.modes().items()} == {
        name: mode for name, (mode, _) in PRIVATE.items()
    }

"""Lets those whom `access` of the profile names reach what they may use, and nobody else: paths, sockets and the client file.

By POSIX ACL: names any number of users and groups, and needs no membership of the daemon's user in them. A mode of 0666 with the check
of SO_PEERCRED behind it would be as safe for the control socket, and is what remains where a file system has no ACLs (the status says
so); but whoever cannot connect cannot try anything, neither what is wrong in an HTTP parser nor a thousand connections, and the sockets
of the controller, where no uid is asked for, must be closed anyway. The file with the key is never given to everybody.

The engines' connection file, secrets, journal, logs and records stay 0600 in directories that can at most be passed through.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from clusterd.core.model import connection as connection_file
from clusterd.core.model.access import Numbers, holders, numbers_of
from clusterd.errors import ControlError
from clusterd.system import acl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from clusterd.control.authorize import Authorizer
    from clusterd.core.model.access import Access
    from clusterd.daemon.places import Places
    from clusterd.daemon.story import Story

__all__ = ["Sharing"]

RETRY_AFTER: Final = 30.0
"""Seconds until names that the user directory did not know, or could not tell, are asked for again."""
_SOCKETS: Final = ("client-data", "client-control")
_PASS, _READ, _CONNECT = 1, 4, 6


class _Given(NamedTuple):
    path: Path
    given: int
    who: Numbers


class Sharing:
    """What is given to whom.

    Args:
        places: the instance's files.
        access: returns what the profile says now.
        authorizer: knows what that is in numbers.
        story: is told of what does not work.

    Attributes:
        problems: what does not work, for `status`.
    """

    def __init__(self, places: Places, access: Callable[[], Access], authorizer: Authorizer, story: Story) -> None:
        self._places, self._access, self._authorizer, self._story = places, access, authorizer, story
        self._view = self._connect = Numbers()
        # The inodes of what the controller makes anew when it starts; as they were when they were last given to anybody.
        self._seen: tuple[int, ...] = ()
        self._unknown: list[str] = []
        self._unreachable: list[str] = []
        # The user directory has not told all names; and who asks it again.
        self._is_incomplete = False
        self._again: asyncio.Task[None] | None = None

    @property
    def problems(self) -> list[str]:
        """What people should know."""
        return [f"access: {text}" for text in (*self._unknown, *self._unreachable)]

    async def begin(self) -> None:
        """Give what is to be given; ask again for a while for names that are not known yet. Called again when the profile has changed.

        Does not wait for the user directory longer than that has patience.
        """
        await self._renew()
        self.close()
        if self._is_incomplete:
            self._again = asyncio.get_running_loop().create_task(self._until_complete())

    def close(self) -> None:
        """Ask no more; what was given stays, since the cluster may live on without this daemon."""
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def follow(self) -> None:
        """Do the same for a controller's new files, if there are any. Cheap when there are none."""
        if not self._access().is_closed and self._inodes() != self._seen:
            self.apply()

    def apply(self) -> None:
        """Give, or take back, everything as it should be."""
        is_closed = self._access().is_closed
        problems = []
        for path, given, who in self._table():
            try:
                problem = self._take_back(path) if is_closed else self._give(path, given, who)
            except FileNotFoundError:
                continue
            except OSError as error:
                problem = f"who may use {path} cannot be changed: {error.strerror}"
            problems += [problem] if problem else []
        self._seen = self._inodes()
        if not is_closed:
            problems += self._barriers()
        self._note(self._unknown, problems)

    # --- inside ---

    def _table(self) -> Iterator[_Given]:
        places, view, connect = self._places, self._view, self._connect
        yield _Given(places.runtime, _PASS, view)
        yield _Given(places.socket, _CONNECT, view)
        for name in _SOCKETS:
            yield _Given(places.runtime / name, _CONNECT, connect)
        # The directory of all hosts' states is root's and can be passed, where root started the daemon; else it is ours.
        for directory in (places.state.parent, places.state, places.security):
            yield _Given(directory, _PASS, connect)
        yield _Given(places.security / connection_file.CLIENT_FILE, _READ, connect)

    def _give(self, path: Path, given: int, who: Numbers) -> str:
        """Give; return what went wrong, or nothing."""
        if path == self._places.state.parent and path.stat().st_mode & stat.S_IXOTH:
            return ""
        try:
            acl.share(path, given, who.uids, who.gids)
        except acl.ReachError as error:
            if given == _READ:
                return (
                    f"those who may connect cannot be given {path}: {error.strerror}"
                    f" (name one group that this daemon's user is in, or move the state: CLUSTERD_STATE_DIR)"
                )
            # Nothing is in these that passing, or knocking, would tell; who knocks is asked for a uid, or for a key.
            path.chmod(0o711 if given == _PASS else 0o666)
            return f"everybody on this host can reach {path}, and is refused there: {error.strerror}"
        return ""

    def _take_back(self, path: Path) -> str:
        # A directory above the instance's own has the mode that its owner likes, unless it was given by us.
        if path != self._places.state.parent or acl.has_acl(path):
            acl.keep_private(path)
        return ""

    def _barriers(self) -> Iterator[str]:
        """Yield what others cannot pass through, and is not ours to open."""
        for what, place in (("daemon", self._places.runtime), ("connection file", self._places.state.parent)):
            for directory in place.parents:
                if not directory.stat().st_mode & stat.S_IXOTH and not acl.has_acl(directory):
                    yield (
                        f"others do not reach the {what}, because {directory} is closed to them (mode"
                        f" {stat.S_IMODE(directory.stat().st_mode):04o})"
                    )

    def _inodes(self) -> tuple[int, ...]:
        found = []
        for path in (
            self._places.security / connection_file.CLIENT_FILE,
            *(self._places.runtime / name for name in _SOCKETS),
        ):
            with contextlib.suppress(OSError):
                found.append(path.stat().st_ino)
        return tuple(found)

    async def _until_complete(self) -> None:
        while self._is_incomplete:
            await asyncio.sleep(RETRY_AFTER)
            await self._renew()

    async def _renew(self) -> None:
        access = self._access()
        try:
            known = await self._authorizer.known()
        except ControlError as error:
            # What was given stays: who could connect before can reach a daemon that asks again who that is.
            missing = [error.message]
        else:
            granted = numbers_of(access, *known)
            self._view, self._connect = holders(granted, "view"), holders(granted, "connect")
            missing = [f"the user directory knows no user {name}" for name in sorted(access.users - known.uids.keys())]
            missing += [
                f"the user directory knows no group {name}" for name in sorted(access.groups - known.gids.keys())
            ]
        self._is_incomplete = bool(missing)
        self._note(missing, self._unreachable)
        self.apply()

    def _note(self, unknown: list[str], unreachable: list[str]) -> None:
        before = set(self.problems)
        self._unknown, self._unreachable = list(unknown), list(unreachable)
        for text in self.problems:
            if text not in before:
                self._story.tell("warning", text, level=logging.WARNING)

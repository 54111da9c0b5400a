"""Decides who may command: root, the daemon's own uid, and whom `access` of the profile names, each what the right allows.

The caller is who the kernel says it was when it connected (SO_PEERCRED, unix(7)): nothing in a request can change it. Groups are
those that the user directory has for that uid, never the caller's word. Whatever cannot be found out grants nothing.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from clusterd.control.directory import Directory
from clusterd.core.model.access import RIGHTS, Access, givers, numbers_of, rights_of, strongest
from clusterd.errors import ControlError, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterd.core.model.access import Need, Right

__all__ = ["ADMITTED", "Authorizer", "Caller", "caller_of"]

_PEER = struct.Struct("3i")


class Caller(NamedTuple):
    """The process at the other end; `pid` may be of another pid namespace (0 then), the uid is always ours to compare.

    Attributes:
        name: the login name, once it is known; else empty.
        rights: what it may do; nothing before it was admitted.
    """

    pid: int
    uid: int
    gid: int
    name: str = ""
    rights: frozenset[Right] = frozenset()

    @property
    def who(self) -> str:
        """`alice`, or `uid 1000` while the name is not known."""
        return self.name or f"uid {self.uid}"

    def __str__(self) -> str:
        return f"uid {self.uid}{f' ({self.name})' if self.name else ''}, process {self.pid}"


class Known(NamedTuple):
    """Names that the user directory knows."""

    uids: dict[str, int]
    gids: dict[str, int]


ADMITTED: ContextVar[Caller] = ContextVar("ADMITTED")
"""Whose request this task is answering."""


def caller_of(connection: socket.socket) -> Caller:
    """Return who connected."""
    return Caller(*_PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)))


class Authorizer:
    """Lets callers pass, or not.

    Args:
        access: returns what the profile says now.
        profile: returns the name of its file, for messages.
        directory: who is who.
    """

    def __init__(
        self,
        access: Callable[[], Access] = Access,
        profile: Callable[[], str] = str,
        directory: Directory | None = None,
    ) -> None:
        self._access, self._profile = access, profile
        self.directory = Directory() if directory is None else directory
        self._own = os.geteuid()
        # Asked once, before there are any callers: these two are never looked up, so they command though NSS hangs.
        self._names = {0: "root", self._own: _own_name(self._own)}

    async def identify(self, caller: Caller) -> Caller:
        """Return a caller with its name and rights.

        Raises:
            PermissionDenied: they cannot be found out.
        """
        if caller.uid in self._names:
            return caller._replace(name=self._names[caller.uid], rights=frozenset(RIGHTS))
        access = self._access()
        try:
            person = await self.directory.person(caller.uid)
            granted = numbers_of(access, *await self.known())
        except ControlError as error:
            raise PermissionDenied(
                f"uid {caller.uid} cannot be told from others: {error.message}",
                hint=f"try again; root and {self._names[self._own]} may do everything meanwhile",
            ) from None
        return caller._replace(name=person.name, rights=rights_of(granted, caller.uid, person.gids))

    async def known(self) -> Known:
        """Return the numbers of the names in the profile, as far as there are any.

        Raises:
            ControlError: the user directory does not answer.
        """
        access = self._access()
        uids = await self.directory.uids(access.users) if access.users else {}
        gids = await self.directory.gids(access.groups) if access.groups else {}
        return Known(uids, gids)

    def check(self, caller: Caller, verb: str, need: Need) -> None:
        """Let an identified caller do `verb`, for which any of the rights in `need` is enough.

        Raises:
            PermissionDenied: it has none of them; the text says which is missing, and who can give it.
        """
        if caller.rights.intersection(need):
            return
        access = self._access()
        own = self._names[self._own]
        if access.is_closed:
            raise PermissionDenied(
                f"uid {caller.uid}{f' ({caller.name})' if caller.name else ''} may not command this daemon, which runs as"
                f" uid {self._own} ({own})",
                hint=f"use `sudo -u {own} clusterctl ...`, start a daemon of your own (clusterctl start), or have"
                f" {own} or root add you to access: in {self._profile()}",
            )
        held = " and ".join(strongest(caller.rights)) or "no right"
        unknown = "" if caller.name else " (the user directory has no name for that uid, so its groups are not known)"
        asked = givers(access)
        whom = f"an admin of this cluster ({', '.join(asked)})" if asked else f"root or {own}"
        raise PermissionDenied(
            f"{caller.who} has {held} here{unknown}; `{verb}` needs {' or '.join(need)}",
            hint=f"ask {whom}, who can have you added to access: in {self._profile()}",
        )


def _own_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

"""Decides who may command: the daemon's own uid and root. Nobody else, whatever the mode of the socket has become.

The caller is who the kernel says it was when it connected (SO_PEERCRED, unix(7)): nothing in a request can change it.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
from typing import NamedTuple

from clusterd.errors import PermissionDenied

__all__ = ["Caller", "authorize", "caller_of"]

_PEER = struct.Struct("3i")


class Caller(NamedTuple):
    """The process at the other end; `pid` may be of another pid namespace (0 then), the uid is always ours to compare."""

    pid: int
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{user(self.uid)}, process {self.pid}"


def caller_of(connection: socket.socket) -> Caller:
    """Return who connected."""
    return Caller(*_PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)))


def authorize(caller: Caller) -> None:
    """Let root and our own user pass.

    Raises:
        PermissionDenied: it is somebody else; the text says who, and who may.
    """
    own = os.geteuid()
    if caller.uid not in (own, 0):
        raise PermissionDenied(
            f"{user(caller.uid)} may not command this daemon, which runs as {user(own)}",
            hint=f"use `sudo -u {user_name(own)} clusterctl ...`, or start a daemon of your own: clusterctl start",
        )


def user(uid: int) -> str:
    """Return `uid 1000 (alice)`."""
    name = user_name(uid)
    return f"uid {uid} ({name})" if name != str(uid) else f"uid {uid}"


def user_name(uid: int) -> str:
    """Return the login name, or the number as text where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

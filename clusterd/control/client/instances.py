"""Finds the daemons of this machine that the caller can see: by their sockets, never by process names.

An instance is running when its socket accepts a connection; a directory with a socket that nobody serves is a daemon
that was killed, and is not listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from clusterd.control.client.http import ControlClient
from clusterd.errors import ControlError
from clusterd.system import paths

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SOCKET_NAME", "Instance", "abandoned", "running", "socket_path"]

SOCKET_NAME = "control.sock"


class Instance(NamedTuple):
    """A daemon that listens.

    Attributes:
        name: the profile it serves.
        socket: its control socket.
        pid: its process.
    """

    name: str
    socket: Path
    pid: int


def socket_path(name: str) -> Path:
    """Return where the daemon of profile `name` listens, or would listen when there is none."""
    forbidden = []
    for directory in paths.runtime_candidates(name):
        try:
            if (directory / SOCKET_NAME).is_socket():
                return directory / SOCKET_NAME
        except PermissionError:
            # It is there, and somebody else's: connecting to it is refused with the reason.
            forbidden.append(directory / SOCKET_NAME)
    return forbidden[0] if forbidden else paths.runtime_dir(name) / SOCKET_NAME


def running() -> list[Instance]:
    """Return the daemons that accept connections from us, by name."""
    found: dict[Path, Instance] = {}
    for root in paths.runtime_roots():
        for directory in _children(root):
            instance = _look(directory / SOCKET_NAME)
            if instance is not None:
                found.setdefault(directory.resolve(), instance)
    return sorted(found.values())


def abandoned() -> list[str]:
    """Return the names of instances whose daemon was killed: a socket is there, and nobody behind it."""
    found = []
    for root in paths.runtime_roots():
        for directory in _children(root):
            try:
                is_left = (directory / SOCKET_NAME).is_socket()
            except OSError:
                continue
            if is_left and _look(directory / SOCKET_NAME) is None:
                found.append(directory.name)
    return sorted(dict.fromkeys(found))


def _children(root: Path) -> list[Path]:
    try:
        return sorted(root.iterdir())
    except OSError:
        return []


def _look(socket: Path) -> Instance | None:
    client = ControlClient(socket)
    try:
        if not socket.is_socket() or not client.is_listening():
            return None
    except OSError:  # a directory of somebody else
        return None
    name = socket.parent.name
    if _is_hashed(name):
        # The name was too long for a socket's path: only the daemon knows it.
        try:
            name = str(client.get("/v1/version", timeout=2.0)["profile"])
        except (ControlError, KeyError):
            return None
    return Instance(name, socket, client.pid or 0)


def _is_hashed(name: str) -> bool:
    return len(name) == 16 and not set(name) - set("0123456789abcdef")

"""Unix stream sockets of this host: listening at a path, and connecting to one. Neither ever blocks."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["connect", "listen"]


def listen(path: Path, backlog: int = 1024) -> socket.socket:
    """A non-blocking listening socket at `path`, mode 0600; the directory must be private, and nobody must listen there.

    Raises:
        OSError: it cannot be bound.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def connect(path: str) -> socket.socket:
    """A non-blocking socket, connected to a listener on this host; never blocks: a Unix socket answers at once.

    Raises:
        OSError: nobody listens there, or (EAGAIN) more wait to be accepted already than the listener allows: try again.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection

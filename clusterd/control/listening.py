"""Makes the control socket, and takes the path over from a daemon that was killed.

Invariants: the socket is 0600 in a directory of 0700; its path appears only once somebody listens behind it, and an old one
gives way only after proof that nobody does. For the holder of daemon.lock only: the lock is what makes it free of races.
Imports nothing slow: a daemon listens before it is able to answer.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

from clusterd.errors import ControlError, LockHeld
from clusterd.system.files import private_directory
from clusterd.system.paths import socket_path_excess

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["listen"]


def listen(path: Path) -> socket.socket:
    """Return a socket that listens on `path`.

    Args:
        path: the socket; its directory is made, with mode 0700.

    Raises:
        LockHeld: somebody else listens there.
        NotPrivate: the directory belongs to somebody else.
        ControlError: the path is too long.
        OSError: it cannot be made.
    """
    private_directory(path.parent)
    if excess := socket_path_excess(path):
        raise ControlError(
            f"{path} is {excess} bytes too long for a Unix socket",
            hint="set CLUSTERD_RUNTIME_DIR to a shorter directory",
        )
    _check_unused(path)
    # Bound under another name and renamed when it listens: whoever finds the path can connect. In a 0700 directory of ours
    # nobody sees the moment between bind and chmod.
    temporary = path.with_name(f".{path.name[:8]}.new")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(temporary))
        temporary.chmod(0o600)
        listener.listen(128)
        listener.setblocking(False)
        temporary.replace(path)
    except BaseException:
        listener.close()
        temporary.unlink(missing_ok=True)
        raise
    return listener


def _check_unused(path: Path) -> None:
    # connect(2) to a file that is no socket is refused just as one that nobody serves; removing it would be theft.
    if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
        raise ControlError(f"{path} is in the way: it is no socket", hint=f"move it away: mv {path} {path}.old")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        result = probe.connect_ex(str(path))
    # Refused: the file of a socket that nobody has open. Anything else is no proof: EAGAIN is a listener with a full queue.
    if result in (errno.ENOENT, errno.ECONNREFUSED):
        return
    raise LockHeld(
        f"{path} cannot be taken over: {'somebody listens there' if result in (0, errno.EAGAIN) else _name(result)}",
        hint=f"find out who: ss -xlp | grep {path.name}",
    )


def _name(number: int) -> str:
    return errno.errorcode.get(number, str(number))

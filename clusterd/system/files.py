"""Files that survive a crash and stay private: atomic replacement, private directories, reading only what is private.

Invariants: a reader of a file written by `atomic_write` sees the old bytes or the new ones, never a mixture; a file
with a secret never exists with a wider mode than asked for, not even for a moment; nothing here follows a symbolic link
that somebody else could have put in place of a directory of ours.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from typing import TYPE_CHECKING

from clusterd.errors import NotPrivate
from clusterd.system import acl, fault

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["atomic_write", "check_private_directory", "claim", "private_directory", "read_private", "sync_directory"]

_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_READ_OR_WRITTEN = _OPEN_TO_OTHERS & ~(stat.S_IXGRP | stat.S_IXOTH)


def atomic_write(
    path: Path, data: bytes | str, *, mode: int = 0o600, durable: bool = True, keeps_access: bool = False
) -> None:
    """Replace the content of `path` at once.

    Args:
        path: the file; its directory must exist.
        data: the new content; text is written as UTF-8.
        mode: permission bits of the new file, whatever the umask is.
        durable: also survive a power loss (fsync of file and directory, milliseconds on a disk). Files that mean
            nothing after a reboot (identities, sockets' neighbours in the runtime directory) do without.
        keeps_access: who was allowed to read the old file may read the new one, from its first moment on.

    Raises:
        OSError: the file could not be written; the old one is untouched and no temporary file is left.
    """
    content = data.encode() if isinstance(data, str) else data
    # The pid tells whose temporary file a crash left behind; the random part keeps two threads apart.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o600)
    try:
        try:
            write_all(descriptor, content)
            if mode != 0o600 and hasattr(os, "fchmod"):
                os.fchmod(descriptor, mode)
            if keeps_access:
                acl.copy(path, descriptor)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fault.point("files.atomic_write.before_rename")
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_directory(path.parent)


def claim(path: Path, data: bytes | str) -> bool:
    """Make `path` with this content (0600), if and only if it does not exist; say whether we did.

    The one who makes it has decided: a process that claims its identity file runs on, and a supervisor that claimed it
    first knows for certain that the process never will. The content is complete from the first moment (link(2)).

    Raises:
        OSError: it cannot be made for another reason than that it exists.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    atomic_write(temporary, data, durable=False)
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte: write(2) may take fewer than it is given, for one when the disk fills up."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_directory(path: Path) -> None:
    """Make renames and removals in `path` survive a power loss (fsync(2), NOTES); does nothing on Windows."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_directory(path: Path) -> Path:
    """Make `path` (and what is missing above it) a directory of ours with mode 0700, and return it.

    A wider mode is narrowed, but for the right to pass through (0711, or an ACL), which lets nobody see or change what is in it:
    the daemon gives that to those who may connect, and whoever else uses the directory must not take it away again. The owner is
    checked because in /tmp anybody may have made the directory first.

    Raises:
        NotPrivate: it is a symbolic link or no directory, or belongs to somebody else.
        OSError: it cannot be made.
    """
    # mkdir(2) applies the umask, so a child made with 0o700 is never wider than that, and parents follow the umask.
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name != "nt":
        status = check_private_directory(path)
        if status.st_mode & _READ_OR_WRITTEN or status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            path.chmod(0o700)
    return path


def check_private_directory(path: Path) -> os.stat_result:
    """Refuse a directory that somebody else controls; its mode is the caller's business.

    Raises:
        NotPrivate: it is a symbolic link or no directory, or belongs to somebody else.
        FileNotFoundError: there is nothing.
    """
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a directory"
        raise NotPrivate(f"{path} is {kind}, where a private directory is needed", hint=f"remove it: rm {path}")
    if status.st_uid != os.geteuid():
        raise NotPrivate(
            f"{path} belongs to uid {status.st_uid}, not to us (uid {os.geteuid()})",
            hint="set CLUSTERD_RUNTIME_DIR or CLUSTERD_STATE_DIR to a directory of your own",
        )
    return status


def read_private(path: Path, *, is_shared: bool = False, owner: int | None = None) -> bytes:
    """Return the content of a file that holds a secret, if nobody but its owner can read or change it.

    Checked on the open descriptor, so that the file cannot be exchanged between check and read. The owner is this user
    or root: root could read and write everything anyway, and a service may hand files to its users.

    Args:
        path: the file.
        is_shared: its owner may have given it to a group, or by ACL, to read.
        owner: who else it may belong to: the user of a daemon that is trusted.

    Raises:
        NotPrivate: the mode has bits for group or others, or the owner is somebody else.
        OSError: it cannot be opened or read.
    """
    with path.open("rb") as file:
        if os.name != "nt":
            status = os.fstat(file.fileno())
            mode = stat.S_IMODE(status.st_mode)
            if mode & _OPEN_TO_OTHERS & ~(stat.S_IRGRP if is_shared else 0):
                raise NotPrivate(
                    f"{path} holds a secret but is open to others (mode {mode:04o})", hint=f"chmod 600 {path}"
                )
            if status.st_uid not in (os.geteuid(), 0, owner):
                raise NotPrivate(f"{path} holds a secret but belongs to uid {status.st_uid}, not to us")
        return file.read()

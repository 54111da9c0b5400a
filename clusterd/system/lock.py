"""A lock file that says who holds it: flock(2) where it works, and a lease {pid, boot_id, start_time, host} in it.

flock alone is not enough: on some NFS mounts it is local to the host or not there at all. The lease alone is not
enough: it outlives its writer. Invariants: whoever holds the lock holds it on the file that the path names now; a
lock is taken over only after proof that its holder is gone; what is held on another host is never proof.
"""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Self

from clusterd.errors import LockHeld
from clusterd.system import process
from clusterd.system.files import write_all
from clusterd.system.paths import host_id

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LockFile", "read_lease"]

_NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class LockFile:
    """An exclusive lock for one process; held from `acquire` to `release` or the process's end.

    The descriptor is not inherited by programs, but a fork without exec shares the lock: fork in the zygote only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # The open and locked file while the lock is held, else None.
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether we hold it."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock or raise at once.

        Raises:
            LockHeld: somebody else has it; the error's `pid` and `host` say who, as far as the file tells.
            OSError: the file cannot be made.
        """
        import fcntl  # noqa: PLC0415 - not on Windows, where no daemon runs

        while self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                is_locked = True
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise _held(self.path, _parse(descriptor)) from None
                except OSError as error:
                    if error.errno not in _NO_FLOCK:
                        raise
                    is_locked = False
                if not _names(self.path, descriptor):
                    continue  # the holder removed the file between our open and our flock: this lock guards nothing
                lease = _parse(descriptor)
                if lease is not None and not _is_abandoned(lease, is_locked=is_locked):
                    raise _held(self.path, lease)
                _write(descriptor, process.current())
                self._descriptor, descriptor = descriptor, -1
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; without effect when it is not held.

        Args:
            remove: take the file away as well. Safe: a competitor notices that it locked a removed file.
        """
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.truncate(descriptor, 0)
            if remove:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()


def read_lease(path: Path) -> process.ProcessIdentity | None:
    """Return who holds or last held the lock (not whether they live); None when nobody does or it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
    try:
        return _parse(descriptor)
    finally:
        os.close(descriptor)


def _is_abandoned(lease: process.ProcessIdentity, *, is_locked: bool) -> bool:
    """Decide whether a lease in the file may be overwritten. With flock on this host its writer has let go."""
    match process.probe(lease):
        case "gone":
            return True
        case "alive":
            # Our own lease from before a failed release, or no flock and a living holder.
            return is_locked
        case "unknown":
            # Another container here shares the kernel, so flock has spoken; another host may not have been asked.
            return is_locked and lease.host == host_id()


def _names(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _parse(descriptor: int) -> process.ProcessIdentity | None:
    try:
        lease = json.loads(os.pread(descriptor, 4096, 0))
        return process.ProcessIdentity(
            host=str(lease["host"]),
            boot_id=str(lease["boot_id"]),
            pid=int(lease["pid"]),
            start_time=int(lease["start_time"]),
            pid_namespace=int(lease.get("pid_namespace", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # empty (released), or torn by a crash while it was written: flock decides


def _write(descriptor: int, identity: process.ProcessIdentity) -> None:
    os.truncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    write_all(descriptor, json.dumps(identity._asdict()).encode() + b"\n")


def _held(path: Path, lease: process.ProcessIdentity | None) -> LockHeld:
    if lease is None:
        return LockHeld(f"{path} is locked by another process", pid=None, host=None)
    where = "" if lease.host == host_id() else f" on host {lease.host}"
    hint = "" if not where else f"if that host is gone for good, remove the file: rm {path}"
    return LockHeld(f"{path} is held by process {lease.pid}{where}", pid=lease.pid, host=lease.host, hint=hint)

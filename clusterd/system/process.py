"""Who a process is, whether it still lives, and how to signal it and nobody else.

A pid alone names nobody: it is reused, repeated on each host and in each container. An identity is (host, boot, pid
namespace, pid, start time), compared exactly. Invariants: no signal is ever sent to a pid whose identity was not
verified after the descriptor was opened; a zombie is dead (PID 1 of a container may reap late); what cannot be
seen from here (another host or namespace) is unknown, never gone.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, Self

from clusterd.system.paths import host_id

__all__ = [
    "Identity",
    "ProcessHandle",
    "ProcessIdentity",
    "after_fork",
    "at_other_end",
    "boot_id",
    "current",
    "is_same",
    "is_same_and_alive",
    "of",
    "pid_namespace",
    "probe",
    "send_signal",
]


class Identity(Protocol):
    """What any identity has; `clusterd.core` has its own struct, so the functions here take the shape."""

    @property
    def host(self) -> str: ...  # noqa: D102 - described in ProcessIdentity
    @property
    def boot_id(self) -> str: ...  # noqa: D102
    @property
    def pid(self) -> int: ...  # noqa: D102
    @property
    def start_time(self) -> int: ...  # noqa: D102
    @property
    def pid_namespace(self) -> int: ...  # noqa: D102


class ProcessIdentity(NamedTuple):
    """One process of one boot of one host.

    Attributes:
        host: `host_id()` of the host.
        boot_id: the kernel's random id of this boot.
        pid: process id, as seen in `pid_namespace`.
        start_time: clock ticks between boot and start, field 22 of /proc/PID/stat: an integer, compared exactly.
        pid_namespace: inode of the pid namespace in which `pid` is valid; 0 where there are none.
    """

    host: str
    boot_id: str
    pid: int
    start_time: int
    pid_namespace: int


@functools.cache
def boot_id() -> str:
    """Return the id of this boot; where the kernel has none (macOS), the time of boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        import psutil  # noqa: PLC0415 - only where there is no /proc

        return str(int(psutil.boot_time()))


def pid_namespace() -> int:
    """Return the inode of our pid namespace: pids that we see, our own among them, are valid in it."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def current() -> ProcessIdentity:
    """Return our own identity; not cached, because a forked child must not get its parent's."""
    identity = of(os.getpid())
    if identity is None:  # pragma: no cover - we are alive
        raise ProcessLookupError(errno.ESRCH, "own process not found; is /proc mounted?")
    return identity


def after_fork(parent: ProcessIdentity) -> ProcessIdentity:
    """Return our own identity, when `parent` is the process that forked us: less is asked, and fewer pages are touched."""
    pid = os.getpid()
    start_time = _start_time(pid)
    if start_time is None:  # pragma: no cover - we are alive
        raise ProcessLookupError(errno.ESRCH, "own process not found; is /proc mounted?")
    return parent._replace(pid=pid, start_time=start_time)


def of(pid: int) -> ProcessIdentity | None:
    """Return the identity of the process that has `pid` now; None when there is none, or only a zombie."""
    start_time = _start_time(pid)
    return None if start_time is None else ProcessIdentity(host_id(), boot_id(), pid, start_time, pid_namespace())


def at_other_end(connection: socket.socket) -> ProcessIdentity | None:
    """Return who connected to a Unix socket of ours (unix(7), SO_PEERCRED); None where that cannot be known from here."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return of(pid) if pid else None  # 0: of a pid namespace that we do not see


def is_same(left: Identity, right: Identity) -> bool:
    """Say whether both name one process."""
    return (left.host, left.boot_id, left.pid_namespace, left.pid, left.start_time) == (
        right.host,
        right.boot_id,
        right.pid_namespace,
        right.pid,
        right.start_time,
    )


def probe(identity: Identity) -> Literal["alive", "gone", "unknown"]:
    """Say what can be known from here: another host's or namespace's processes are unknown, an earlier boot's gone."""
    if identity.host != host_id():
        return "unknown"
    if identity.boot_id != boot_id():
        return "gone"
    if identity.pid_namespace != pid_namespace():
        return "unknown"
    return "alive" if _start_time(identity.pid) == identity.start_time else "gone"


def is_same_and_alive(identity: Identity) -> bool:
    """Say whether that very process is certainly alive."""
    return probe(identity) == "alive"


def is_in_unit(pid: int, unit: str) -> bool:
    """Say whether a process is in the control group of a unit of systemd (by any of its hierarchies)."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(line.endswith(f"/{unit}") or f"/{unit}/" in line for line in lines)


class ProcessHandle:
    """A verified process; holds a pidfd, so that its pid cannot come to mean another process.

    `fileno()` becomes readable when the process ends: register it with a selector or an event loop. Kernels before 5.3
    (RHEL 8) have no pidfd: there `fileno()` is -1, `wait` polls, and a signal is sent after one more check of the
    identity, which leaves a window of microseconds.

    Attributes:
        identity: who it is.
    """

    def __init__(self, identity: Identity, descriptor: int) -> None:
        self.identity = identity
        self._descriptor = descriptor

    @classmethod
    def open(cls, identity: Identity) -> Self | None:
        """Return a handle, or None when that process is gone, a zombie, or not to be seen from here."""
        try:
            descriptor = os.pidfd_open(identity.pid)
        except AttributeError:  # macOS, Python without it
            descriptor = -1
        except OSError as error:
            if error.errno == errno.ESRCH:
                return None
            if error.errno not in (errno.ENOSYS, errno.EPERM):  # EPERM: seccomp filters of old container runtimes
                raise
            descriptor = -1
        # The order matters: first the descriptor, then the check. Whoever the descriptor is for, it is for good.
        handle = cls(identity, descriptor)
        if not is_same_and_alive(identity):
            handle.close()
            return None
        return handle

    def fileno(self) -> int:
        """Return the pidfd, or -1."""
        return self._descriptor

    def is_alive(self) -> bool:
        """Say whether it has not ended yet; an unreaped zombie has."""
        return is_same_and_alive(self.identity)

    def send_signal(self, number: int) -> bool:
        """Send a signal; return False when the process is gone.

        Raises:
            PermissionError: it runs as another user now.
        """
        try:
            if self._descriptor >= 0:
                signal.pidfd_send_signal(self._descriptor, number)
            elif self.is_alive():
                os.kill(self.identity.pid, number)
            else:
                return False
        except ProcessLookupError:
            return False
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; return False on timeout. Does not reap: only its parent can."""
        if self._descriptor >= 0:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            return bool(poll.poll(None if timeout is None else max(0, timeout * 1000)))
        end = None if timeout is None else time.monotonic() + timeout
        while self.is_alive():
            if end is not None and time.monotonic() >= end:
                return False
            time.sleep(0.02)
        return True

    def close(self) -> None:
        """Give the descriptor back; the process is not touched."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def send_signal(identity: Identity, number: int) -> bool:
    """Send a signal to exactly that process; return False when it is gone or not to be seen from here."""
    handle = ProcessHandle.open(identity)
    if handle is None:
        return False
    with handle:
        return handle.send_signal(number)


def _start_time(pid: int) -> int | None:
    """Return field 22 of /proc/PID/stat; None for no process and for zombies."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - Path costs as much as the read itself
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):  # the second: it ended between open and read
        return None if _has_proc() else _start_time_without_proc(pid)
    # The command name, field 2, may contain spaces and parentheses: the fields begin after the last one.
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in b"ZXx" else int(fields[19])


@functools.cache
def _has_proc() -> bool:
    return Path("/proc/self/stat").exists()


def _start_time_without_proc(pid: int) -> int | None:
    import psutil  # noqa: PLC0415 - only where there is no /proc

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return int(process.create_time() * 100)
    return None

"""What a test may leave behind: nothing. Finds the threads, processes, descriptors and files that it did.

Processes are found by a mark that no child can drop by accident: the soft limit RLIMIT_MSGQUEUE (which nothing here uses)
is set to a number of the test's own. It is inherited through fork, exec and setsid, and stands in /proc/PID/limits.
The environment would not do, because setproctitle writes its title over it; the parent would not, because a daemon's
parent is init.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 3.0
"""Seconds that a thread or process which was told to end has to do so. Waited for by join and pidfd, never by sleeping."""

_PROC = Path("/proc")
_marks = iter(range(1, 1 << 30))


@dataclass(frozen=True)
class Before:
    """The state before a test."""

    mark: int | None
    limits: tuple[int, int]
    threads: frozenset[threading.Thread]
    descriptors: frozenset[tuple[str, str]]
    children: frozenset[int]
    fallback: frozenset[Path]
    started: int


def look() -> Before:
    """Note what exists, and mark this process so that what it starts can be told from all other processes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    mark: int | None = None
    # Spread by pid, so that two test runs on one machine do not take each other's processes for their own.
    ceiling = 800_000 if hard == resource.RLIM_INFINITY else hard
    if ceiling >= 4096:
        mark = 1 + (os.getpid() * 7919 + next(_marks)) % (ceiling - 1)
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (mark, hard))
    return Before(
        mark,
        (soft, hard),
        frozenset(threading.enumerate()),
        _descriptors(),
        frozenset(_children()),
        _fallback_directories(),
        _ticks_since_boot(),
    )


def find(before: Before, *, strict: bool, patience: float = PATIENCE) -> list[str]:
    """Return a line for each thing left behind, after waiting at most `patience` seconds for it to go; processes are then killed.

    Args:
        before: what `look` returned.
        strict: also search for processes that left the tree, for open descriptors and for files.
    """
    deadline = time.monotonic() + patience
    found = [f"thread {thread.name}" for thread in _threads_left(before, deadline)]
    found += _processes_left(before, deadline, strict=strict)
    if strict:
        found += _descriptors_left(before)
        found += [f"directory {path}" for path in sorted(_fallback_directories() - before.fallback)]
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, before.limits)
    return found


def _threads_left(before: Before, deadline: float) -> list[threading.Thread]:
    new = [thread for thread in threading.enumerate() if thread not in before.threads]
    for thread in new:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))
    return [thread for thread in new if thread.is_alive()]


def _processes_left(before: Before, deadline: float, *, strict: bool) -> list[str]:
    pids = set(_children()) - before.children
    if strict and before.mark is not None:
        pids |= set(_marked(before.mark, before.started))
    found = []
    for pid in sorted(pids):
        if _gone(pid, deadline):
            # Its parent is this process, and the test never asked how it ended.
            if pid in _children() and _state(pid) == "Z":
                found.append(f"process {pid} ended but was not waited for: {_command(pid)}")
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            continue
        found.append(f"process {pid} still runs: {_command(pid)}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if _gone(pid, time.monotonic() + PATIENCE):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return found


def _gone(pid: int, deadline: float) -> bool:
    """Wait until the process has ended (a zombie has) or the deadline has passed."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
    finally:
        os.close(descriptor)


def _children() -> list[int]:
    pids = []
    for task in (_PROC / "self" / "task").iterdir():
        with contextlib.suppress(OSError):
            pids += [int(word) for word in (task / "children").read_text().split()]
    return pids


def _marked(mark: int, started: int) -> list[int]:
    me = os.getpid()
    pids = []
    for entry in os.scandir(_PROC):
        if not entry.name.isdigit() or int(entry.name) == me:
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            if entry.stat().st_uid != os.getuid():
                continue
            lines = Path(entry.path, "limits").read_text().splitlines()
            soft = next(line for line in lines if line.startswith("Max msgqueue size"))[18:].split()[0]
            if soft == str(mark) and _start_time(int(entry.name)) >= started and _state(int(entry.name)) != "Z":
                pids.append(int(entry.name))
    return pids


def _stat(pid: int) -> list[str]:
    # The command stands in brackets and may hold both blanks and brackets: fields are counted from the last one.
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _start_time(pid: int) -> int:
    return int(_stat(pid)[19])


def _state(pid: int) -> str:
    try:
        return _stat(pid)[0]
    except OSError:
        return ""


def _command(pid: int) -> str:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        # A zombie has no command line any more, only a name.
        return words or f"({(_PROC / str(pid) / 'comm').read_text().strip()})"
    except OSError:
        return "(gone)"


def _ticks_since_boot() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def _descriptors() -> frozenset[tuple[str, str]]:
    found = set()
    for link in (_PROC / "self" / "fd").iterdir():
        # The descriptor of this very listing is gone by the time its link is read.
        with contextlib.suppress(OSError):
            found.add((link.name, str(link.readlink())))
    return frozenset(found)


def _descriptors_left(before: Before) -> list[str]:
    if _descriptors() <= before.descriptors:
        return []
    # Reference cycles hold descriptors until the collector runs; unclosed ones then also warn, which is an error here.
    gc.collect()
    return [f"descriptor {number} -> {target}" for number, target in sorted(_descriptors() - before.descriptors)]


def _fallback_directories() -> frozenset[Path]:
    """The places used when no runtime directory is given: every test gives one, so nothing may appear there."""
    return frozenset(Path("/tmp").glob(f"clusterd-{os.getuid()}/*"))

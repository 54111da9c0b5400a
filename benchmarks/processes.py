"""What a tree of processes costs: CPU time from /proc/PID/stat, memory from smaps_rollup.

The measuring process makes itself the reaper of its descendants (prctl(2), PR_SET_CHILD_SUBREAPER), so that a daemon which
left its parent still belongs to the tree. CPU times are utime + stime of the process and of its children that have
ended and were waited for: those that still live count on their own, so nothing counts twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
TICK = 1.0 / os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process at one moment; `cpu` in seconds."""

    pid: int
    parent: int
    state: str
    cpu: float
    command: str


def become_reaper() -> None:
    """Take in the descendants whose parents end.

    Raises:
        OSError: the kernel refused.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def read(pid: int) -> Process | None:
    """Return the process, or None when there is none."""
    try:
        # proc(5): the command stands in brackets and may hold brackets itself; fields are counted from the last one.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    return Process(pid, int(fields[1]), fields[0], sum(map(int, fields[11:15])) * TICK, command)


def tree(root: int) -> dict[int, Process]:
    """Return the process `root` and all that descend from it, by pid."""
    found = {int(path.name): read(int(path.name)) for path in PROC.iterdir() if path.name.isdigit()}
    children: dict[int, list[Process]] = {}
    for process in found.values():
        if process is not None:
            children.setdefault(process.parent, []).append(process)
    result: dict[int, Process] = {}
    start = found.get(root)
    todo = [start] if start is not None else []
    while todo:
        process = todo.pop()
        result[process.pid] = process
        todo += children.get(process.pid, [])
    return result


def pss(pid: int) -> float:
    """Return the proportional set size in MB (10**6 bytes): shared pages are split among those who share them."""
    return _kib(PROC / str(pid) / "smaps_rollup", "Pss:")


def rss(pid: int) -> float:
    """Return the resident set size in MB."""
    return _kib(PROC / str(pid) / "status", "VmRSS:")


def peak_rss(pid: int) -> float:
    """Return the highest resident set size that the process ever had, in MB."""
    return _kib(PROC / str(pid) / "status", "VmHWM:")


def _kib(path: Path, key: str) -> float:
    for line in path.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"{path} has no {key}")


def end_descendants(root: int) -> list[str]:
    """Kill whatever descends from `root` and wait until it is gone; return the commands of those that still ran."""
    ended: list[str] = []
    # A killed process may have forked just before: until a look finds nothing. Each turn ends some of them.
    while left := {pid: process for pid, process in tree(root).items() if pid != root}:
        for pid, process in left.items():
            if process.state != "Z":
                ended.append(process.command)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                wait_until_gone(pid, 10.0)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return ended


def wait_until_gone(pid: int, timeout: float) -> bool:
    """Wait until the process has ended; say whether it has."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(descriptor)


class CpuMeter:
    """CPU time of a tree between two moments, by role.

    Args:
        root: the process whose tree counts.
        role: gives a process its role, from its pid and command.
    """

    def __init__(self, root: int, role) -> None:
        self.root = root
        self.role = role
        self.before = {pid: process.cpu for pid, process in tree(root).items()}
        self.started = time.perf_counter()

    def stop(self) -> dict[str, float]:
        """Return seconds of CPU by role, and `total`; what ended meanwhile is in its parent's figure."""
        roles: dict[str, float] = {}
        for pid, process in tree(self.root).items():
            spent = process.cpu - self.before.get(pid, 0.0)
            name = self.role(process)
            roles[name] = roles.get(name, 0.0) + spent
        return {**roles, "total": sum(roles.values())}

"""Did the kernel run out of memory? Counters of OOM kills, of our cgroup and of the machine, compared with the last look."""

from __future__ import annotations

from pathlib import Path

_V2 = "memory.events"
_V1 = "memory.oom_control"


class OomWatch:
    """Tells whether processes were killed for want of memory since the last look."""

    def __init__(self) -> None:
        self._file = _counter_file()
        self._in_group = self._read_group()
        self._on_machine = _read(Path("/proc/vmstat"), "oom_kill")

    def look(self) -> str:
        """Words for what was seen: our own limit, the whole machine, or nothing (empty)."""
        in_group, on_machine = self._read_group(), _read(Path("/proc/vmstat"), "oom_kill")
        was_group, was_machine = in_group > self._in_group, on_machine > self._on_machine
        self._in_group, self._on_machine = in_group, on_machine
        if was_group:
            return "the memory limit of its cgroup was reached"
        return "the machine ran out of memory" if was_machine else ""

    def _read_group(self) -> int:
        return 0 if self._file is None else _read(self._file, "oom_kill")


def _counter_file() -> Path | None:
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            candidate = Path(f"/sys/fs/cgroup{path}") / _V2
        elif "memory" in controllers.split(","):
            candidate = Path(f"/sys/fs/cgroup/memory{path}") / _V1
        else:
            continue
        if candidate.exists():
            return candidate
    return None


def _read(path: Path, name: str) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    for line in lines:
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0

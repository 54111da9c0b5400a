"""Did the kernel run out of memory? Counters of OOM kills, of our cgroup and of the machine, compared with the last look."""

from __future__ import annotations

from pathlib import Path

_V2 = "memory.events"
_V1 = "memory.oom_control"


class OomWatch:
    """Tells whether processes were killed for want of memory since the last look."""

    def __init__(self) -> None:
        # Counter of each group -> what it said last: ours, and those that engines of an earlier agent are in.
        self._in_groups: dict[Path, int] = {}
        self.follow("self")
        self._on_machine = _read(Path("/proc/vmstat"), "oom_kill")

    def follow(self, pid: int | str) -> None:
        """Count what happens in the group of a process, too: under systemd each agent's unit has its own."""
        file = _counter_file(pid)
        if file is not None and file not in self._in_groups:
            self._in_groups[file] = _read(file, "oom_kill")

    def look(self) -> str:
        """Words for what was seen: our own limit, the whole machine, or nothing (empty)."""
        in_groups = {file: _read(file, "oom_kill") for file in self._in_groups}
        on_machine = _read(Path("/proc/vmstat"), "oom_kill")
        was_group = any(count > self._in_groups[file] for file, count in in_groups.items())
        was_machine = on_machine > self._on_machine
        self._in_groups, self._on_machine = in_groups, on_machine
        if was_group:
            return "the memory limit of its cgroup was reached"
        return "the machine ran out of memory" if was_machine else ""


def _counter_file(pid: int | str) -> Path | None:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
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

"""The profile's `limits`: held by ourselves where no systemd does it, and whether the kernel really holds them where it should.

Without a unit of its own a process gets RLIMIT_DATA: private memory that it may write to, the closest that rlimits have to memory
in use. RLIMIT_AS would count every mapped file and reservation, RLIMIT_NPROC all processes of the user, RLIMIT_CPU all time ever.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from clusterd.core.model.profile import Limits

__all__ = ["hold", "not_held", "without_units"]

_GROUPS: Final = Path("/sys/fs/cgroup")
# Setting -> (file of cgroup v2, controller and file of v1).
_FILES: Final = {
    "memory": ("memory.max", "memory", "memory.limit_in_bytes"),
    "cpus": ("cpu.max", "cpu", "cpu.cfs_quota_us"),
    "tasks": ("pids.max", "pids", "pids.max"),
}
_UNLIMITED_V1: Final = 2**62
"""memory.limit_in_bytes without a limit is the largest multiple of a page below 2**63."""


def hold(pid: int, limits: Limits) -> None:
    """Bound a process that was just started, and all that it will start, each by itself."""
    if limits.memory is None:
        return
    import resource  # noqa: PLC0415 - not on Windows

    # It may have ended, or have a lower bound already, which only root could raise.
    with contextlib.suppress(OSError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_DATA, (limits.memory, limits.memory))


def without_units(limits: Limits) -> str:
    """Return what of these limits is not held as it is meant, when `hold` is all that there is; nothing when all is."""
    told = []
    if limits.memory is not None:
        told.append("memory is bounded for each process by itself, not for all together")
    ignored = [name for name in ("cpus", "tasks") if getattr(limits, name) is not None]
    if ignored:
        told.append(f"{' and '.join(ignored)} {'are' if len(ignored) > 1 else 'is'} not held")
    return f"limits: {'; '.join(told)}, because systemd has not started it" if told else ""


def not_held(limits: Limits, pid: int) -> str:
    """Return what of these limits the kernel does not hold for the unit of a process; nothing when it holds all."""
    groups = _groups_of(pid)
    missing = [name for name in _FILES if getattr(limits, name) is not None and not _is_held(name, groups)]
    if not missing or not groups:
        return ""
    return f"limits: {', '.join(missing)} not held: this system has no such control group controller for the unit"


def _groups_of(pid: int) -> dict[str, str]:
    """Return controller -> path of a process's groups; the empty name stands for version 2."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    groups = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _is_held(name: str, groups: dict[str, str]) -> bool:
    new, controller, old = _FILES[name]
    unified = groups.get("", "/")
    for root in (_GROUPS, _GROUPS / "unified"):
        words = _read(Path(f"{root}{unified}") / new)
        if words:
            return words[0] != "max"
    path = groups.get(controller, "")
    # Only a group of the unit itself: a bound further up is somebody else's.
    if not path.endswith(".service"):
        return False
    words = _read(Path(f"{_GROUPS}/{controller}{path}") / old)
    return bool(words) and words[0] not in {"max", "-1"} and int(words[0]) < _UNLIMITED_V1


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []

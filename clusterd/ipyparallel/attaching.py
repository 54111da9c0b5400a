"""Whether the process that a cluster file names is still that process: a pid alone may be another's by now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipyparallel.cluster.launcher import NotRunning

from clusterd.system import process

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_running", "start_time"]


def start_time(pid: int) -> int:
    """Return when a process began, in ticks since boot; 0 when it has ended."""
    identity = process.of(pid)
    return 0 if identity is None else identity.start_time


def check_running(state: Mapping[str, Any]) -> None:
    """Refuse to take a stranger for the process of an earlier launcher.

    Args:
        state: what its `to_dict` gave.

    Raises:
        NotRunning: the process has ended.
    """
    pid, began = int(state.get("pid", 0)), int(state.get("start_time", 0))
    if pid <= 0 or not began or start_time(pid) != began:
        raise NotRunning(f"process {pid} has ended")

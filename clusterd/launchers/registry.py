"""Launcher by the name that profiles use. A batch system is added here, in `core.supervisor.settings` and in the profile model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.errors import LaunchError
from clusterd.launchers.local import LocalLauncher

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterd.launchers.base import JobLauncher, ProcessLauncher

__all__ = ["LAUNCHERS", "make"]

LAUNCHERS: dict[str, Callable[[], ProcessLauncher | JobLauncher]] = {"local": LocalLauncher}


def make(name: str) -> ProcessLauncher | JobLauncher:
    """Return a new launcher.

    Raises:
        LaunchError: there is none of that name; the profile was checked, so this is an older daemon.
    """
    if name not in LAUNCHERS:
        raise LaunchError(f"there is no launcher `{name}`", hint=f"there are: {', '.join(LAUNCHERS)}")
    return LAUNCHERS[name]()

"""Watches the processes of launches by pidfd, our children and those of an earlier daemon alike, and says how they ended.

Works before there is an event loop (it only collects), then registers each descriptor with it. Invariants: a pid is reaped only
here and only when it is our child; an end is told once; a process is signalled only after its identity was verified.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from clusterd.launchers.local import why_it_ended
from clusterd.system.process import ProcessHandle, is_same

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clusterd.core.model.launch import ProcessIdentity

__all__ = ["Ended", "Processes"]


class Ended(NamedTuple):
    """The end of a watched process.

    Attributes:
        launch: whose process it was.
        reason: how it ended: `was killed by SIGKILL`.
        status: exit status (negative: signal), None when it was not our child.
    """

    launch: str
    reason: str
    status: int | None


class _Watched(NamedTuple):
    handle: ProcessHandle
    log: Path


class Processes:
    """All processes of launches that run on this host."""

    def __init__(self) -> None:
        # By launch: all and only those whose end was not yet told.
        self._watched: dict[str, _Watched] = {}
        # Set by the loop: called when one is to be waited for, or no more.
        self.on_added: Callable[[str, int], None] = lambda _launch, _descriptor: None
        self.on_removed: Callable[[str, int], None] = lambda _launch, _descriptor: None

    def watch(self, launch: str, identity: ProcessIdentity, log: Path) -> bool:
        """Begin to watch; False when the process is gone already."""
        watched = self._watched.get(launch)
        if watched is not None and is_same(watched.handle.identity, identity):
            return True
        handle = ProcessHandle.open(identity)
        if handle is None:
            return False
        self._watched[launch] = _Watched(handle, log)
        self.on_added(launch, handle.fileno())
        return True

    def all(self) -> list[tuple[str, int]]:
        """Return (launch, descriptor; -1 where the kernel has no pidfd) of all that are watched."""
        return [(launch, watched.handle.fileno()) for launch, watched in self._watched.items()]

    def identity(self, launch: str) -> ProcessIdentity | None:
        """Return who runs as this launch, None when it is not watched."""
        watched = self._watched.get(launch)
        return None if watched is None else watched.handle.identity  # type: ignore[return-value]

    def signal(self, launch: str, number: int) -> bool:
        """Send a signal; False when it is not watched or gone."""
        watched = self._watched.get(launch)
        return watched is not None and watched.handle.send_signal(number)

    def collect(self, launch: str) -> Ended | None:
        """Return how the process ended, and forget it; None while it runs."""
        watched = self._watched.get(launch)
        if watched is None:
            return None
        status: int | None = None
        try:
            status = _reap(watched.handle.identity.pid)
            if status is None:
                return None
        except ChildProcessError:
            # It was started by an earlier daemon, init reaps it.
            if watched.handle.is_alive():
                return None
        del self._watched[launch]
        self.on_removed(launch, watched.handle.fileno())
        watched.handle.close()
        return Ended(launch, why_it_ended(status, watched.log), status)

    @staticmethod
    def why_gone(identity: ProcessIdentity, log: Path) -> str:
        """Return how a process ended that was gone before it could be watched, and reap it."""
        try:
            status = _reap(identity.pid)
        except ChildProcessError:
            status = None
        return why_it_ended(status, log)

    def close(self) -> None:
        """Forget all; what runs goes on."""
        for launch, watched in self._watched.items():
            self.on_removed(launch, watched.handle.fileno())
            watched.handle.close()
        self._watched.clear()


def _reap(pid: int) -> int | None:
    """Return the exit status of a child (negative: the signal that killed it), None while it runs.

    Raises:
        ChildProcessError: it is no child of ours.
    """
    # WEXITED without WNOWAIT reaps.
    result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

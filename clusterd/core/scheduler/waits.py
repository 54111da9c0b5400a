"""HOLDS the ends of waits: when a task with a `max_wait` has waited for long enough, for its dependencies and for an engine.

An entry is live while its task waits and means that moment by `wait_until`. Dispatching a task costs nothing here: its entry is dead then,
and is dropped when it is found at the top, or when most may be.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from clusterd.core.model.task import Place
from clusterd.core.timers import NEVER

if TYPE_CHECKING:
    from clusterd.core.scheduler.state import State
    from clusterd.core.scheduler.tasks import Task

LEAST: Final = 1024
"""Entries that are not worth a look for the dead."""

_UNBEGUN: Final = (Place.QUEUED, Place.WAITING)


class Waits:
    """The heap: (when, number, task).

    Attributes:
        most: entries at which the dead are dropped: at least twice as many as were alive the last time.
        watch_at: see `timers`; when the first entry is due.
    """

    __slots__ = ("heap", "most", "number", "watch_at")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Task]] = []
        self.most = LEAST
        self.number = 0
        self.watch_at = NEVER

    def add(self, task: Task, until: float) -> None:
        """Let a task wait until then, from now on."""
        task.wait_until = until
        if len(self.heap) >= self.most:
            self.heap = [entry for entry in self.heap if is_live(entry)]
            heapify(self.heap)
            self.most = max(LEAST, 2 * len(self.heap))
        self.number += 1
        heappush(self.heap, (until, self.number, task))

    def due(self, now: float) -> Task | None:
        """Return the task that has waited for long enough the longest ago, None when there is none (any more)."""
        heap = self.heap
        while heap:
            if is_live(heap[0]):
                return heap[0][2] if heap[0][0] <= now else None
            heappop(heap)
        return None


def is_live(entry: tuple[float, int, Task]) -> bool:
    """Say whether an entry still means something."""
    until, _, task = entry
    return task.wait_until == until and task.place in _UNBEGUN


def start_wait(state: State, task: Task, now: float) -> None:
    """Begin the count of a task's `max_wait`, if it has one: it is accepted, or comes back from an engine."""
    max_wait = task.spec.max_wait
    if max_wait is not None:
        state.waits.add(task, now + max_wait)
        state.timers.arm(state.waits, now + max_wait)

"""KNOWS what to look at when: one heap of moments, with at most one live entry for each thing that is watched.

A watched thing says in `watch_at` which of its entries is the live one; an earlier moment replaces it, a later one is found out when
the entry fires and the watcher arms again. So work that begins and ends a thousand times before a deadline costs no heap operation.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

NEVER: Final = float("inf")


class Watched(Protocol):
    """A thing with timers."""

    watch_at: float


W = TypeVar("W", bound=Watched)


class Timers(Generic[W]):
    """The heap: (when, number, whose). Entries whose `when` is not their owner's `watch_at` are stale."""

    __slots__ = ("heap", "number")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, W]] = []
        self.number = 0  # ties are broken by it: owners are not ordered

    def arm(self, whose: W, when: float) -> None:
        """Look at `whose` at `when`, unless that is to happen earlier anyway."""
        if when < whose.watch_at:
            whose.watch_at = when
            self.number += 1
            heappush(self.heap, (when, self.number, whose))

    def due(self, now: float) -> Iterator[W]:
        """Yield what is to be looked at, each disarmed before it is yielded."""
        heap = self.heap
        while heap and heap[0][0] <= now:
            when, _, whose = heappop(heap)
            if whose.watch_at == when:
                whose.watch_at = NEVER
                yield whose

    def next(self) -> float | None:
        """Return the earliest moment at which something is to be looked at."""
        heap = self.heap
        while heap and heap[0][2].watch_at != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

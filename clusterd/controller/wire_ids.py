"""Gives wire ids: each once in the life of a cluster, and the number of its slot to an engine that comes first into it.

`client[3]` must never silently become another engine with an empty namespace, also when the controller was killed in between: ids are
reserved on disk in blocks before they are given. Invariant: no id at or above `_reserved` has been given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Container

BLOCK = 1024
"""So many ids are reserved at once, so that the file is not written for each engine."""


class WireIds:
    """The ids of one controller.

    Args:
        first: lowest that no earlier controller of this cluster's life can have given.
        reserve: called with the end of a new block, which must be on disk when it returns; None where nothing is kept.
    """

    def __init__(self, first: int, reserve: Callable[[int], None] | None) -> None:
        self._first = first
        self._reserve = reserve
        self._reserved = first
        self._given: set[int] = set()
        # Above all that were given.
        self.next = first

    def take(self, slot: int, taken: Container[int]) -> int:
        """An id for a new engine.

        Args:
            slot: its place; its number is preferred where nobody has had it, and it is no leap.
            taken: ids that are in use, whoever gave them (engines of an earlier controller, MPI ranks).
        """
        if self._first <= slot < self.next + BLOCK and slot not in self._given and slot not in taken:
            return self._give(slot)
        while self.next in taken or self.next in self._given:
            self.next += 1
        return self._give(self.next)

    def claim(self, wanted: int, taken: Container[int]) -> bool:
        """Say whether an engine may have the id that it wants (it had it under an earlier controller, or is an MPI rank)."""
        if wanted < 0 or wanted in taken:
            return False
        if wanted < self.next + BLOCK:
            self._give(wanted)
        else:
            self._given.add(wanted)  # a leap: those between are still to be given
        return True

    def _give(self, wire_id: int) -> int:
        self._given.add(wire_id)
        self.next = max(self.next, wire_id + 1)
        if self.next > self._reserved:
            self._reserved = (self.next // BLOCK + 1) * BLOCK
            if self._reserve is not None:
                self._reserve(self._reserved)
        return wire_id

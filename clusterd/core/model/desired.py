"""What an operator wishes an engine set to be: a number, and which slots make it up.

The slots are the first `n` numbers that are not excluded. Invariant: each excluded number lies below the highest
wanted one, so that a set never carries holes for slots that it has not got, and equal wishes are equal structs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DesiredSet"]


class DesiredSet(Struct, frozen=True):
    """The wish for one engine set.

    Attributes:
        n: how many engines.
        generation: one more with each change of wish or assignment; whoever sees an older one ignores it.
        excluded: holes below the highest wanted slot, ascending; they come from engines that were scaled away.
    """

    n: int
    generation: int = 0
    excluded: tuple[int, ...] = ()

    @property
    def slots(self) -> tuple[int, ...]:
        """The wanted slots, ascending."""
        holes = set(self.excluded)
        return tuple(slot for slot in range(self.n + len(holes)) if slot not in holes)

    def grown(self, n: int) -> DesiredSet:
        """Return the wish for `n` engines, n at least as many as now: the lowest free slots are filled first."""
        filled = n - self.n
        return DesiredSet(n, self.generation + 1, self.excluded[max(0, filled) :])

    def without(self, victims: Iterable[int]) -> DesiredSet:
        """Return the wish less these slots; those that were not wanted anyway make no difference."""
        left = sorted(set(self.slots) - set(victims))
        holes = set(range(left[-1])) - set(left) if left else set[int]()
        return DesiredSet(len(left), self.generation + 1, tuple(sorted(holes)))

    def at(self, generation: int) -> DesiredSet:
        """Return the same wish under another generation."""
        return DesiredSet(self.n, generation, self.excluded)

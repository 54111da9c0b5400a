"""Takes chunks of items from what a map runs over: lazily, never more than asked for, and never long on a slow iterator."""

from __future__ import annotations

import time
from collections.abc import Sized
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

# Iterating over these runs no code of users and cannot block.
_QUICK: Final = frozenset({list, tuple, range, str, bytes, dict, set, frozenset})
# What a slow iterator has given after this many seconds goes out as a chunk, though it is smaller than wished.
_PATIENCE: Final = 0.02


class Items:
    """The items of one map.

    Args:
        iterables: one for each parameter of the function.

    Raises:
        TypeError: there is none, or one is not iterable.
    """

    def __init__(self, iterables: tuple[Iterable[Any], ...]) -> None:
        if not iterables:
            raise TypeError("a map needs at least one iterable")
        sizes = [len(iterable) for iterable in iterables if isinstance(iterable, Sized)]
        # Items in all, None where an iterable does not say.
        self.total = min(sizes) if len(sizes) == len(iterables) else None
        self.is_quick = all(type(iterable) in _QUICK or _is_array(iterable) for iterable in iterables)
        self._columns = len(iterables)
        self._iterator = iter(iterables[0]) if len(iterables) == 1 else zip(*iterables, strict=False)
        # Items taken so far.
        self.taken = 0

    @property
    def left(self) -> int | None:
        """Items not yet taken, None where that is not known."""
        return None if self.total is None else max(0, self.total - self.taken)

    def take(self, count: int) -> tuple[list[Any], ...] | None:
        """The next at most `count` items, as a list for each parameter; None when there are no more."""
        rows = list(islice(self._iterator, count)) if self.is_quick else self._take_patiently(count)
        self.taken += len(rows)
        if not rows:
            return None
        return (rows,) if self._columns == 1 else tuple(map(list, zip(*rows, strict=True)))

    def _take_patiently(self, count: int) -> list[Any]:
        # Pieces that double, with a look at the clock between: what it takes is at most about twice the patience, or one item.
        deadline = time.monotonic() + _PATIENCE
        rows: list[Any] = []
        piece = 1
        while len(rows) < count:
            wanted = min(piece, count - len(rows))
            more = list(islice(self._iterator, wanted))
            rows += more
            if len(more) < wanted or time.monotonic() >= deadline:
                break
            piece = len(rows)
        return rows


def _is_array(value: Any) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "shape")

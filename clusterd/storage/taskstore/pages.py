"""The nouns of walking through many records in bounded steps: a span of them, and one page of it.

A span is told by `order`, the rank that a store gives to each row: it never changes and is never used twice, so a walk meets each row
once, whatever is put and purged meanwhile.
"""

from __future__ import annotations

import fnmatch
import re
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterd.storage.taskstore.row import TaskRow

LOOK: Final = 1000
"""Rows that are looked at for one page: 8 ms of a controller that does nothing else meanwhile, where each has to be decoded."""

_MOST: Final = 2**63 - 1


class Span(NamedTuple):
    """Rows with an order above `after` and below `before`; 0 is no bound."""

    after: int = 0
    before: int = 0

    def beyond(self, order: int, *, newest_first: bool) -> Span:
        """What is left when it has been looked at up to and with this order."""
        return Span(self.after, order) if newest_first else Span(order, self.before)

    def until(self, order: int, *, newest_first: bool) -> Span:
        """What of it is looked at, up to and with this order: the part that `beyond` leaves out."""
        return Span(order - 1, self.before) if newest_first else Span(self.after, order + 1)

    @property
    def end(self) -> int:
        """`before`, as a number to compare with."""
        return self.before or _MOST

    def has(self, order: int) -> bool:
        """Say whether a row is in it."""
        return self.after < order < self.end


class Page(NamedTuple):
    """Rows that were found, in the order of the walk, and what is left of the span: None when that is nothing."""

    rows: list[TaskRow]
    rest: Span | None


def matching_names(names: Iterable[str], pattern: str, limit: int) -> list[str]:
    """The first names that match."""
    match = re.compile(fnmatch.translate(pattern)).match
    return list(islice((name for name in names if match(name)), limit))

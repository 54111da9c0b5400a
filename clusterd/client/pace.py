"""How many items the next chunk of a map gets: enough that a task is worth its way, few enough that all engines end together.

Begins with single items, because nothing is known and an item may take an hour; then aims at a run time, growing by a bounded
factor, from the times that engines report. Pure.
"""

from __future__ import annotations

import math
from typing import Final

CHUNK_SECONDS: Final = 0.02
"""A task costs some 0.3 ms of everything on its way: 1.5 % of this. The last chunk makes engines idle for at most as long."""
MAX_ITEMS: Final = 16_384
MAX_BYTES: Final = 1024 * 1024
"""Arguments, and results, of a chunk."""
LEAST_AHEAD: Final = 4
MOST_AHEAD: Final = 256
"""Chunks for each engine that are under way: at least so many that one always waits, at most so many that little is taken in vain."""
AHEAD_SECONDS: Final = 0.05
"""Work for so long is under way; it covers the round trip and a client that is busy with something else."""
_GROWTH: Final = 16
# A chunk that took no measurable time is taken to have cost this much an item.
_LEAST_SECONDS: Final = 1e-7


class Pace:
    """The chunk sizes of one map.

    Args:
        chunksize: what the user wants; None measures.

    Raises:
        TypeError, ValueError: it is no positive number of items.
    """

    def __init__(self, chunksize: int | None) -> None:
        if chunksize is not None:
            if isinstance(chunksize, bool) or not hasattr(chunksize, "__index__"):
                raise TypeError(f"chunksize is a number of items, not {chunksize!r}")
            if chunksize < 1:
                raise ValueError(f"chunksize is at least 1, not {chunksize}")
        self._fixed = None if chunksize is None else int(chunksize)
        self._size = 1
        # Seconds an item, smoothed; None before the first chunk is back.
        self._seconds: float | None = None
        # Seconds a chunk, likewise.
        self._chunk_seconds: float | None = None
        # Bytes an item, of arguments or of results, whichever is more.
        self._bytes = 0.0

    def next_size(self, left: int | None, engines: int) -> int:
        """Items for the next chunk, when `left` are left (None: unknown) for so many engines."""
        if self._fixed is not None:
            return self._fixed
        size = self._size
        if self._bytes:
            size = min(size, int(MAX_BYTES / self._bytes))
        if left is not None:
            # Guided: chunks shrink towards the end, so that no engine has a long one left when the others are done.
            size = min(size, math.ceil(left / (2 * engines)))
        return max(1, size)

    def ahead(self, engines: int) -> int:
        """Chunks that may be under way for so many engines."""
        if self._chunk_seconds is None:
            return LEAST_AHEAD * engines
        return max(LEAST_AHEAD, min(MOST_AHEAD, int(AHEAD_SECONDS / max(self._chunk_seconds, 1e-6)))) * engines

    def sent(self, count: int, size: int) -> None:
        """A chunk of `count` items has `size` bytes."""
        self._bytes = max(self._bytes, size / count)

    def ended(self, count: int, seconds: float, size: int) -> None:
        """A chunk of `count` items took so long; its results have `size` bytes."""
        each = max(seconds / count, _LEAST_SECONDS)
        # Slowness counts at once, speed with caution: a chunk that is too long harms more than one that is too short.
        self._seconds = each if self._seconds is None else max(each, 0.5 * (self._seconds + each))
        self._chunk_seconds = (
            seconds if self._chunk_seconds is None else max(seconds, 0.5 * (self._chunk_seconds + seconds))
        )
        self._bytes = max(self._bytes, size / count)
        wanted = int(CHUNK_SECONDS / self._seconds)
        self._size = max(1, min(wanted, count * _GROWTH if wanted > self._size else wanted, MAX_ITEMS))

"""ESTIMATES how long a function runs, from its last runs: a median over a small ring, per function digest, in a bounded cache.

The estimate serves two ends. `weight` is what a task adds to the load of an engine: small only where the function is known to
be short, otherwise so large that the engine is closed to further work. `share` is what a task costs its client in the fair
share: the expected run time, capped so that no client waits for ever to pay for one long task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from clusterd.core.scheduler.settings import Settings

RING: Final = 16
"""Samples kept. The median of 16 ignores up to 7 outliers and follows a changed function after 8 runs."""

KNOWN: Final = 3
"""Samples before a function counts as known: the first run often pays for imports."""

FLOOR: Final = 50e-6
"""No task weighs less: receiving, unpickling and answering cost an engine about this much beside the run itself."""

CLOSED: Final = 1.0
"""Weight of an unknown or long task: above any window, so that nothing is put behind it."""

QUANTUM: Final = 0.005
"""Seconds of run time that a client takes in one turn of the ring."""

UNKNOWN_SHARE: Final = QUANTUM
LARGEST_SHARE: Final = 0.1
"""Fair share is paid in expected seconds between FLOOR and this: the bound keeps a turn of the ring O(1) amortised."""


class Function:
    """The runs of one function.

    Attributes:
        samples: the last durations, a ring indexed by `count`.
        count: runs measured in all.
        weight: what a task of it adds to an engine's load, in seconds.
        share: what a task of it costs its client, in seconds.
    """

    __slots__ = ("count", "limit", "samples", "share", "weight")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.samples: list[float] = []
        self.count = 0
        self.weight = CLOSED
        self.share = UNKNOWN_SHARE

    def add(self, duration: float) -> None:
        """Take the duration of one more run, in seconds."""
        count = self.count
        self.count = count + 1
        samples = self.samples
        if count < RING:
            samples.append(duration)
        else:
            samples[count & (RING - 1)] = duration
            # Sorting costs 0.5 us: every eighth time is enough for a function that behaves, at once where a run was long.
            if count & 7 and duration < self.limit:
                return
        if count + 1 >= KNOWN:
            self.measure()

    def measure(self) -> None:
        """Take weight and share from the median."""
        ordered = sorted(self.samples)
        median = ordered[len(ordered) >> 1]
        self.weight = max(median, FLOOR) if median < self.limit else CLOSED
        self.share = min(max(median, FLOOR), LARGEST_SHARE)


class FunctionCache:
    """The functions seen lately, by digest. Tasks keep their Function alive, so eviction only forgets what is measured."""

    __slots__ = ("by_digest", "limit", "size")

    def __init__(self, settings: Settings) -> None:
        self.by_digest: dict[bytes, Function] = {}
        self.limit = settings.prefetch_below
        self.size = settings.max_functions

    def make(self, digest: bytes) -> Function:
        """Return a new Function for a digest that is not in the cache."""
        known = self.by_digest
        if len(known) >= self.size:
            # The older half at once: one by one would cost O(n) each, because a dict skips its deleted front on each look.
            for old in list(known)[: max(1, self.size // 2)]:
                del known[old]
        function = known[digest] = Function(self.limit)
        return function

"""PICKS engines by the schemes that ipyparallel has names for. Engines that take no work now do not take part in any of them.

leastload    the least loaded one, by expected run time: `engine.Levels`, the default, and the only one that is tuned
lru          the one that was last given work the longest ago
twobin       two at random, of which the one that was given work the longest ago
weighted     two at random, the likelier the less they hold, of which the one that holds less
plainrandom  one at random
pure         in turns, whatever they hold, up to all that they may (`Engine.window` has no end then)
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from clusterd.core.model.task import Scheme
from clusterd.core.scheduler.engine import Engine, Levels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clusterd.core.scheduler.settings import Settings

_MASK: Final = 2**64 - 1

LEAST: Final = 64
"""Entries of the heap of `LeastRecent` that are not worth a look for stale ones."""

TRIES: Final = 64
"""Draws of `Weighted` before any will do: with up to 64 tasks in each engine, one in 64 draws counts on the average."""


class Dice:
    """A small random generator (SplitMix64): the same seed gives the same placements."""

    __slots__ = ("state",)

    def __init__(self, seed: int) -> None:
        self.state = seed & _MASK

    def below(self, count: int) -> int:
        """Return one of 0 .. count-1."""
        self.state = mixed = (self.state + 0x9E3779B97F4A7C15) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((mixed ^ (mixed >> 31)) * count) >> 64


class Seats(Levels):
    """Engines that take shared work, in no order: one at random; and the base of all schemes but leastload.

    Attributes:
        open: all and only engines with a level; an engine's place in it is its `seat`, so that leaving is a swap with the last one.
        uses: dispatches so far; an engine's `used` is the number of its last one, found by its `order` being another than `last_order`.
    """

    __slots__ = ("dice", "open", "uses")

    def __init__(self, dice: Dice) -> None:
        super().__init__()
        self.open: list[Engine] = []
        self.dice = dice
        self.uses = 0

    def update(self, engine: Engine) -> None:
        """See `Levels`; this is called after each dispatch too."""
        if engine.order != engine.last_order:
            engine.last_order = engine.order
            self.uses += 1
            engine.used = self.uses
        super().update(engine)
        seats = self.open
        if engine.level >= 0:
            if engine.seat < 0:
                engine.seat = len(seats)
                seats.append(engine)
        elif engine.seat >= 0:
            last = seats.pop()
            if last is not engine:
                seats[engine.seat] = last
                last.seat = engine.seat
            engine.seat = -1

    def pick(self) -> Engine | None:
        """Return the engine that is to have the next task; None when none takes work."""
        return self.among(self.open) if self.open else None

    def rested(self, engine: Engine) -> Engine:
        """The scheme has decided."""
        return engine

    def among(self, engines: Sequence[Engine]) -> Engine:
        """Return one of some engines that take work."""
        return engines[self.dice.below(len(engines))]

    def _two(self, engines: Sequence[Engine]) -> tuple[Engine, Engine]:
        """Return two engines at random, different ones where there are any."""
        first = self.dice.below(len(engines))
        second = (first + 1 + self.dice.below(len(engines) - 1)) % len(engines) if len(engines) > 1 else first
        return engines[first], engines[second]


class TwoBin(Seats):
    """Of two at random, the one used the longest ago."""

    __slots__ = ()

    def among(self, engines: Sequence[Engine]) -> Engine:
        """Return one of some engines that take work."""
        first, second = self._two(engines)
        return second if second.used < first.used else first


class Weighted(Seats):
    """Of two at random, weighted by 1 / tasks held, the one that holds fewer: an idle one where there is any."""

    __slots__ = ()

    def pick(self) -> Engine | None:
        """Return the engine that is to have the next task; None when none takes work."""
        engines = self.buckets[0] or self.open
        return self._lighter(engines) if engines else None

    def among(self, engines: Sequence[Engine]) -> Engine:
        """Return one of some engines that take work."""
        return self._lighter([engine for engine in engines if not engine.held] or engines)

    def _lighter(self, engines: Sequence[Engine]) -> Engine:
        first, second = self._draw(engines), self._draw(engines)
        return second if len(second.held) < len(first.held) else first

    def _draw(self, engines: Sequence[Engine]) -> Engine:
        """Draw until one is accepted, with a chance of 1 / tasks held: a sum of weights would cost a look at all engines."""
        below = self.dice.below
        engine = engines[below(len(engines))]
        for _ in range(TRIES):
            if not (engine.held and below(len(engine.held))):
                break
            engine = engines[below(len(engines))]
        return engine


class LeastRecent(Seats):
    """The one used the longest ago; with windows that have no end this is a round robin.

    Attributes:
        heap: (used, id, engine); an entry is stale when the engine takes no work or was used since.
    """

    __slots__ = ("heap",)

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self.heap: list[tuple[int, int, Engine]] = []

    def update(self, engine: Engine) -> None:
        """See `Levels`."""
        was_open, used = engine.seat >= 0, engine.used
        super().update(engine)
        if engine.seat >= 0 and not (was_open and engine.used == used):
            if len(self.heap) > LEAST + 2 * len(self.open):
                self.heap = [(other.used, other.id, other) for other in self.open if other is not engine]
                heapify(self.heap)
            heappush(self.heap, (engine.used, engine.id, engine))

    def pick(self) -> Engine | None:
        """Return the engine that is to have the next task; None when none takes work."""
        heap = self.heap
        while heap:
            used, _, engine = heap[0]
            if engine.seat >= 0 and engine.used == used:
                return engine
            heappop(heap)
        return None

    def among(self, engines: Sequence[Engine]) -> Engine:
        """Return one of some engines that take work."""
        return min(engines, key=lambda engine: (engine.used, engine.id))


_SEATS: Final[Mapping[Scheme, type[Seats]]] = {
    Scheme.LRU: LeastRecent,
    Scheme.TWOBIN: TwoBin,
    Scheme.WEIGHTED: Weighted,
    Scheme.PLAINRANDOM: Seats,
    Scheme.PURE: LeastRecent,
}
"""All schemes but leastload, which is `Levels` itself."""


def levels_of(settings: Settings) -> Levels:
    """Return what picks engines, for the scheme in the settings."""
    seats = _SEATS.get(Scheme(settings.scheme))
    return Levels() if seats is None else seats(Dice(settings.seed))

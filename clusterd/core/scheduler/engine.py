"""HOLDS engines, the pools that name several of them, and the levels that order them by load.

The load of an engine is the expected run time of what it holds. Only engines that take more stand in `Levels`, so that the
least loaded one is found without looking at the others: a scan of 4,096 engines cost 106 us a pick.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

from clusterd.core.model.task import Scheme
from clusterd.core.scheduler.tasks import FairQueue
from clusterd.core.timers import NEVER

if TYPE_CHECKING:
    from clusterd.core.model.task import TaskId
    from clusterd.core.scheduler.events import EngineAttached
    from clusterd.core.scheduler.settings import Settings
    from clusterd.core.scheduler.tasks import Task

# Flags of an engine. It takes shared (balanced, pooled) work only when none is set.
SUSPECT: Final = 1  # nobody knows whether it lives
DRAINING: Final = 2  # no new work; direct tasks accepted before still run
STALLED: Final = 4  # its head runs far longer than expected
CONDEMNED: Final = 8  # a kill was ordered
OCCUPIED: Final = 16  # it runs what nobody has submitted here (yet)
CLOSED_TO_ALL: Final = SUSPECT | STALLED | CONDEMNED | OCCUPIED

STEPS: Final = 64
"""Steps of load between idle and full. One step of a 5 ms window is 78 us: finer than the lightest task is pointless."""

LOOKS: Final = 8
"""Engines that are looked at where any will do: the best of a few is nearly as good as of all."""

_HEAD_SINCE: Final = attrgetter("head_since")

TOP: Final = STEPS + 2
"""Number of levels: 0 for idle engines, one for each step, and one for a load that rounding lifts to the window itself."""


class Engine:
    """One incarnation of an engine.

    Attributes:
        held: what it was given and has not answered, in dispatch order; the first is what it runs.
        load: sum of the weights of `held`, in seconds; `bytes`: sum of their sizes; `timed`: those with a timeout.
        order: number of the last dispatch.
        head_since: the first of `held` did not begin before this.
        level, position: where it stands in `Levels`; level -1 while it takes no shared work.
        direct: tasks for it alone.
        debt: seconds that targeted work has had here more than balanced work; who has had more waits while both are queued.
        pools: all and only pools with an active flow that it is a member of.
        is_ready: it stands in `State.ready_engines`.
        watch_at: see `timers`.
        recall_first, recall_last: orders that the last recall names.
        seat, used, last_order: see `schemes`.
        orphans: how many tasks it holds that nobody has submitted here.
    """

    __slots__ = (
        "bytes",
        "completed",
        "debt",
        "direct",
        "flags",
        "head_since",
        "held",
        "id",
        "is_ready",
        "last_order",
        "level",
        "load",
        "max_bytes",
        "max_held",
        "name",
        "order",
        "orphans",
        "pools",
        "position",
        "recall_first",
        "recall_last",
        "scale",
        "seat",
        "timed",
        "used",
        "watch_at",
        "window",
    )

    def __init__(self, event: EngineAttached, settings: Settings) -> None:
        self.id = event.engine
        self.name = f"engine {event.engine} ({event.engine_set}/{event.slot})"
        self.max_held = event.max_held
        self.max_bytes = event.max_bytes
        # Round robin regardless of load: an engine is full only when it holds all that it may.
        self.window = NEVER if settings.scheme == Scheme.PURE else settings.window + event.hop
        self.scale = STEPS / self.window
        self.held: dict[TaskId, Task] = {}
        self.load = 0.0
        self.bytes = 0
        self.timed = 0
        self.order = 0
        self.completed = 0
        self.flags = 0
        self.head_since = 0.0
        self.level = -1
        self.position = 0
        self.direct = FairQueue(self)
        self.debt = 0.0
        self.pools: list[Pool] = []
        self.is_ready = False
        self.watch_at = NEVER
        self.recall_first = 0
        self.recall_last = 0
        self.orphans = 0
        self.seat = -1
        self.used = 0
        self.last_order = 0

    def has_window(self) -> bool:
        """Say whether it may hold one more task, flags aside. The last one may go beyond the bytes: else a big one would starve."""
        held = self.held
        return not held or (self.load < self.window and len(held) < self.max_held and self.bytes < self.max_bytes)


class Pool:
    """Queued tasks for the same set of engines: `ids` alone, or (`is_avoiding`) all but them.

    Attributes:
        members: the living engines that may run them.
        cursor: where the next search for an engine begins.
        is_ready: it stands in `State.ready_pools`.
        is_waiting: it stands in the `pools` of its members.
        watch_at: see `timers`; when an avoiding pool gives up avoiding.
    """

    __slots__ = ("cursor", "fair", "ids", "is_avoiding", "is_ready", "is_waiting", "members", "watch_at")

    def __init__(self, ids: frozenset[int], members: list[Engine], *, is_avoiding: bool) -> None:
        self.ids = ids
        self.is_avoiding = is_avoiding
        self.members = members
        self.fair = FairQueue(self)
        self.cursor = 0
        self.is_ready = False
        self.is_waiting = False
        self.watch_at = NEVER


class Levels:
    """Engines that take shared work, bucketed by load: the scheme `leastload`, and what the others build on.

    Attributes:
        buckets: by level; an engine's place in its bucket is its `position`, so that leaving is a swap with the last one.
        lowest: no bucket below this has an engine.
    """

    __slots__ = ("buckets", "lowest")

    def __init__(self) -> None:
        self.buckets: list[list[Engine]] = [[] for _ in range(TOP)]
        self.lowest = TOP

    def update(self, engine: Engine) -> None:
        """Put an engine where its load says, or nowhere when it takes no shared work."""
        if engine.flags:
            level = -1
        else:
            held = engine.held
            if not held:
                level = 0
            elif (
                engine.load < engine.window and len(held) < engine.max_held and engine.bytes < engine.max_bytes
            ):  # has_window() in place: this runs twice a task
                level = 1 + int(engine.load * engine.scale)
            else:
                level = -1
        old = engine.level
        if level == old:
            return
        buckets = self.buckets
        if old >= 0:
            bucket = buckets[old]
            last = bucket.pop()
            if last is not engine:
                bucket[engine.position] = last
                last.position = engine.position
        if level >= 0:
            bucket = buckets[level]
            engine.position = len(bucket)
            bucket.append(engine)
            if level < self.lowest:  # noqa: PLR1730  (min() costs three times as much)
                self.lowest = level
        engine.level = level

    def pick(self) -> Engine | None:
        """Return an engine of the lowest load, the one that came there last (its caches are warm); None when none takes work."""
        buckets = self.buckets
        level = self.lowest
        while level < TOP:
            bucket = buckets[level]
            if bucket:
                self.lowest = level
                return bucket[-1]
            level += 1
        self.lowest = TOP
        return None

    def rested(self, engine: Engine) -> Engine:
        """Return, for the engine that was picked, the idle one that was used the longest ago: of a few, those that came first."""
        if engine.held:
            return engine
        return min(self.buckets[0][:LOOKS], key=_HEAD_SINCE)

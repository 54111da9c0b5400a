"""HOLDS all that the scheduler knows. Nothing here decides; `invariants` says what must hold between the parts."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from clusterd.core.model.task import Scheme
from clusterd.core.scheduler.orphans import Orphanage
from clusterd.core.scheduler.records import Records
from clusterd.core.scheduler.runtimes import FunctionCache
from clusterd.core.scheduler.schemes import levels_of
from clusterd.core.scheduler.tasks import FairQueue
from clusterd.core.scheduler.waits import Waits
from clusterd.core.timers import NEVER, Timers

if TYPE_CHECKING:
    from clusterd.core.model.task import TaskId
    from clusterd.core.scheduler.actions import AnyAction
    from clusterd.core.scheduler.engine import Engine, Pool
    from clusterd.core.scheduler.settings import Settings
    from clusterd.core.scheduler.tasks import Client, Task

Out: TypeAlias = "list[AnyAction]"
"""Where actions are appended: no list is made per event."""


class State:
    """Everything.

    Attributes:
        tasks: all that have not ended, and those that have and are still in the records.
        waiting: all and only tasks that are WAITING.
        balanced: tasks for any engine.
        pools: by (ids, is_avoiding); those without tasks are kept for a while.
        ready_engines, ready_pools: whose queues are to be looked at in the next `settle`.
        is_pools_turn: pools go first in it: they and direct work take turns.
        resolving: ended tasks whose dependents have not been told.
        completed: runs that engines which are lost had completed.
        draining: all and only engines that drain and have not been reported as drained.
        overrun: how long after `head_since` a head is too late, whatever it was expected to take: only heads expected to take less
            than prefetch_below have others behind them. Longer where dispatches are held. In the scheme `pure` no head is: what an engine
            was given stays there.
        targets: what a submission's tuple of targets means: an engine, or a set of them. Made once for each of the last few.
    """

    __slots__ = (
        "balanced",
        "clients",
        "completed",
        "draining",
        "engines",
        "functions",
        "is_pools_turn",
        "levels",
        "orphanage",
        "overrun",
        "pools",
        "ready_engines",
        "ready_pools",
        "records",
        "resolving",
        "settings",
        "targets",
        "tasks",
        "timers",
        "waiting",
        "waits",
    )

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.overrun = NEVER if settings.scheme == Scheme.PURE else settings.overrun + settings.prefetch_below
        self.tasks: dict[TaskId, Task] = {}
        self.waiting: dict[TaskId, Task] = {}
        self.clients: dict[int, Client] = {}
        self.engines: dict[int, Engine] = {}
        self.functions = FunctionCache(settings)
        self.balanced = FairQueue(None)
        self.levels = levels_of(settings)
        self.pools: dict[tuple[frozenset[int], bool], Pool] = {}
        self.targets: dict[tuple[int, ...], int | frozenset[int]] = {}
        self.ready_engines: list[Engine] = []
        self.ready_pools: list[Pool] = []
        self.is_pools_turn = False
        self.resolving: deque[Task] = deque()
        self.completed = 0
        self.draining: dict[int, Engine] = {}
        self.timers: Timers[Engine | Pool | Orphanage | Waits] = Timers()
        self.waits = Waits()
        self.records = Records(settings)
        self.orphanage = Orphanage()

"""DECIDES where tasks run: the one entrance to the scheduler. See the package's docstring for how to drive it.

Handlers are functions by event type; they change the state and append actions, and never place a task themselves: that is left to
`settle`, once after a batch, because a batch that is known in full is spread better and costs less. Nothing here waits, reads a clock or
raises for late news.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from clusterd.core.model.task import Place
from clusterd.core.scheduler import clients, completion, engines, events, submission
from clusterd.core.scheduler.engine import Engine, Pool
from clusterd.core.scheduler.holdings import Holding, holdings
from clusterd.core.scheduler.outcomes import give_up_avoiding
from clusterd.core.scheduler.placement import settle
from clusterd.core.scheduler.records import record_of
from clusterd.core.scheduler.recovery import expire
from clusterd.core.scheduler.settings import Settings
from clusterd.core.scheduler.state import State
from clusterd.core.scheduler.status import engine_load, queue_status, unassigned
from clusterd.core.scheduler.unbegun import end_waits
from clusterd.core.scheduler.waits import Waits
from clusterd.core.scheduler.watch import dispatches_held, watch
from clusterd.core.scheduler.whereabouts import Whereabouts, whereabouts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterd.core.model.task import EngineLoad, QueueStatus, TaskId, TaskRecord
    from clusterd.core.scheduler.actions import AnyAction
    from clusterd.core.scheduler.events import AnyEvent, Tick
    from clusterd.core.scheduler.state import Out


def _tick(state: State, _event: Tick, now: float, out: Out) -> None:
    for whose in state.timers.due(now):
        if isinstance(whose, Engine):
            watch(state, whose, now, out)
        elif isinstance(whose, Pool):
            give_up_avoiding(state, whose, now)
        elif isinstance(whose, Waits):
            end_waits(state, now, out)
        else:
            expire(state, now, out)


HANDLERS: Final[Mapping[type, Callable[[State, Any, float, Out], None]]] = {
    events.ClientAttached: clients.client_attached,
    events.ClientDetached: clients.client_detached,
    events.ClientReturned: clients.client_returned,
    events.ClientForgotten: clients.client_forgotten,
    events.ResultsBlocked: clients.results_blocked,
    events.ResultsUnblocked: clients.results_unblocked,
    events.EngineAttached: engines.engine_attached,
    events.EngineSuspected: engines.engine_suspected,
    events.EngineReturned: engines.engine_returned,
    events.EngineLost: engines.engine_lost,
    events.EngineDraining: engines.engine_draining,
    events.EngineUndrained: engines.engine_undrained,
    events.EngineInventory: engines.engine_inventory,
    events.EngineRecalled: completion.engine_recalled,
    events.TaskSubmitted: submission.task_submitted,
    events.TaskStarted: completion.task_started,
    events.TaskFinished: completion.task_finished,
    events.TaskNotRun: completion.task_not_run,
    events.AbortRequested: clients.abort_requested,
    events.DispatchesHeld: dispatches_held,
    events.Tick: _tick,
}
"""All events, each with its handler; a test holds this to the union `AnyEvent`."""


class Scheduler:
    """The scheduler of one cluster.

    Attributes:
        state: what it knows; for `invariants` and tests to read.
        story: the last events, and before each batch of them a float: the time they were told at.
    """

    __slots__ = ("_told_at", "state", "story")

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        self.state = State(settings)
        self.story: deque[AnyEvent | float] = deque(maxlen=settings.story)
        self._told_at = float("-inf")

    def handle(self, event: AnyEvent, now: float) -> list[AnyAction]:
        """Take one event and place what can be placed; return what is to be done."""
        out: list[AnyAction] = []
        self.handle_into(event, now, out)
        settle(self.state, now, out)
        return out

    def handle_into(self, event: AnyEvent, now: float, out: list[AnyAction]) -> None:
        """Take one event of a batch and append what is to be done; `settle` must follow the last one."""
        if now != self._told_at:
            self._told_at = now
            self.story.append(now)
        self.story.append(event)
        HANDLERS[type(event)](self.state, event, now, out)

    def settle(self, now: float, out: list[AnyAction]) -> None:
        """After a batch: tell dependents, give out what engines take."""
        settle(self.state, now, out)

    def next_deadline(self) -> float | None:
        """Return when `Tick` is due at the latest; None: nothing is timed."""
        return self.state.timers.next()

    def queue_status(self) -> QueueStatus:
        """Return what is where: O(engines + clients)."""
        return queue_status(self.state)

    def engine_load(self, engine: int) -> EngineLoad | None:
        """Return one engine's tasks, None when it is not known."""
        known = self.state.engines.get(engine)
        return None if known is None else engine_load(known)

    def holdings(self, engine: int, limit: int) -> tuple[list[Holding], int]:
        """Return the first `limit` tasks that an engine holds, and how many it holds or has queued for it alone."""
        return holdings(self.state, engine, limit)

    def unassigned(self) -> int:
        """Return how many queued tasks any (or one of several) engines may run."""
        return unassigned(self.state)

    def has_tasks(self, client: int) -> bool:
        """Say whether a client has tasks that have not ended."""
        known = self.state.clients.get(client)
        return known is not None and known.live_tasks > 0

    def has_ended(self, task: TaskId) -> bool:
        """Say whether a task is known, and has ended."""
        known = self.state.tasks.get(task)
        return known is not None and known.place is Place.ENDED

    def whereabouts(self, task: TaskId) -> Whereabouts | None:
        """Return where an unfinished task is and why it is not further; None when it is not known, or has ended."""
        return whereabouts(self.state, task)

    def record(self, task: TaskId) -> TaskRecord | None:
        """Return what is known of a task; None when it was never accepted, or is forgotten."""
        known = self.state.tasks.get(task)
        return None if known is None else record_of(known)

    def records(self, client: int | None = None) -> list[TaskRecord]:
        """Return all records, oldest submission first; only those of `client` when given."""
        tasks = self.state.tasks.values()
        return [record_of(task) for task in tasks if client is None or task.client.handle == client]

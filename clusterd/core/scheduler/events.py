"""What happens to the scheduler: facts in the past participle, each told once, in the order in which it became known.

Facts about engines, clients and tasks that are not known (any more) are legal and change nothing: news travel late.
On the task path (`TaskSubmitted`, `TaskFinished`) an event costs about 60 ns to make.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from clusterd.core.model.task import Dependency, Status, TaskId


class Event(Struct, frozen=True, gc=False):
    """Base of all; `gc=False`: events hold no cycle and come by the hundred thousand."""


# --- clients ---------------------------------------------------------------------------------------------------------


class ClientAttached(Event, frozen=True):
    """A new client session. What it has unfinished is limited to `max_tasks` and `max_bytes`.

    Attributes:
        goes_round: of idle engines its balanced tasks get the one that was used the longest ago, as users of ipyparallel expect, and
            not the one whose caches are warm.
    """

    client: int
    max_tasks: int = 20_000
    max_bytes: int = 64 * 1024**2
    goes_round: bool = False


class ClientDetached(Event, frozen=True):
    """Its connection is gone. Its tasks go on; results are delivered to the controller's outbox for it."""

    client: int


class ClientReturned(Event, frozen=True):
    """It is back, under the same handle."""

    client: int


class ClientForgotten(Event, frozen=True):
    """It will not come back (liveness decides): what has not begun is ended, the results of the rest go nowhere."""

    client: int


class ResultsBlocked(Event, frozen=True):
    """The client reads its results too slowly: none of its tasks is to be dispatched."""

    client: int


class ResultsUnblocked(Event, frozen=True):
    """The client has caught up."""

    client: int


# --- engines ---------------------------------------------------------------------------------------------------------


class EngineAttached(Event, frozen=True):
    """A new incarnation of an engine. `slot` and `engine_set` are for people.

    `max_held` bounds what it may hold, the running task included (1: no prefetch); `max_bytes` likewise in bytes (one task
    may go beyond); `hop` is the one-way delay to it in seconds, which prefetched work has to cover.
    """

    engine: int
    uuid: bytes
    engine_set: str
    slot: int
    max_held: int = 64
    max_bytes: int = 16 * 1024**2
    hop: float = 0.001


class EngineSuspected(Event, frozen=True):
    """Its link is lost or it is frozen, but nobody has proof of its death: it gets nothing new."""

    engine: int


class EngineReturned(Event, frozen=True):
    """It is well again."""

    engine: int


class EngineLost(Event, frozen=True):
    """It is dead; `cause` and `last_output` are for people.

    `running` is the task that its status page shows, None where no page was read: then all it held may have begun. `is_wanted`: it was
    stopped on purpose, which is held against no task.
    """

    engine: int
    cause: str
    last_output: str = ""
    running: TaskId | None = None
    is_wanted: bool = False


class EngineDraining(Event, frozen=True):
    """It is to get no new work. Direct tasks accepted before still run on it; later ones are refused."""

    engine: int


class EngineUndrained(Event, frozen=True):
    """It is to get work again."""

    engine: int


class EngineInventory(Event, frozen=True):
    """What an engine that attached (again) has in its hands: `held` lists (task, attempt) running, waiting, or in its outbox."""

    engine: int
    held: tuple[tuple[TaskId, int], ...]


class EngineRecalled(Event, frozen=True):
    """The agent's answer to a Recall: orders in first..last above `running` will certainly not run."""

    engine: int
    first: int
    last: int
    running: int


# --- tasks -----------------------------------------------------------------------------------------------------------


class TaskSubmitted(Event, frozen=True):
    """A client asks for a run. The core never sees the payload: `size` is its bytes, `function` the digest that run times are kept by.

    `target`: None (any engine), one wire id, or several (any one of them). `timeout` counts from the start of the run.
    `attempt` is the number of its next execution: above 0 where a recovered controller offers a task again. `max_wait`: seconds
    that it may wait for its dependencies and an engine, counted anew each time an engine or its failure puts it back.
    """

    task: TaskId
    client: int
    function: bytes
    size: int
    target: int | tuple[int, ...] | None = None
    retries: int = 0
    timeout: float | None = None
    label: str = ""
    after: Dependency | None = None
    follow: Dependency | None = None
    attempt: int = 0
    max_wait: float | None = None


class TaskStarted(Event, frozen=True):
    """An engine reports that it begins a task (optional: where it does not, the head of what it holds counts as begun)."""

    task: TaskId
    engine: int
    attempt: int


class TaskFinished(Event, frozen=True):
    """An engine's result. `duration` is the run alone, in seconds; `result_size` in bytes."""

    task: TaskId
    engine: int
    attempt: int
    status: Status
    duration: float
    result_size: int = 0


class TaskNotRun(Event, frozen=True):
    """An engine gives a task back: recalled, or it is stopping."""

    task: TaskId
    engine: int
    attempt: int


class AbortRequested(Event, frozen=True):
    """End what has not begun: the tasks named, the direct tasks for `targets`, or (both None) all.

    `client` limits it to that client's tasks; None is the operator, who may abort anything.
    """

    client: int | None
    tasks: tuple[TaskId, ...] | None = None
    targets: tuple[int, ...] | None = None


class DispatchesHeld(Event, frozen=True):
    """What engines are given leaves later than it is decided, by about so much (its commit is waited for): until then no head has begun."""

    seconds: float


class Tick(Event, frozen=True):
    """Time has passed. Give what has been received first, so that a late loop does not suspect others of its own delay."""


AnyEvent: TypeAlias = (
    ClientAttached
    | ClientDetached
    | ClientReturned
    | ClientForgotten
    | ResultsBlocked
    | ResultsUnblocked
    | EngineAttached
    | EngineSuspected
    | EngineReturned
    | EngineLost
    | EngineDraining
    | EngineUndrained
    | EngineInventory
    | EngineRecalled
    | TaskSubmitted
    | TaskStarted
    | TaskFinished
    | TaskNotRun
    | AbortRequested
    | DispatchesHeld
    | Tick
)

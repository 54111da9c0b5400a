"""The nouns of a task: what it waits for, where it is, how it ended, and the record that is kept of it.

Numbers and codes are those of the wire: `Status` as in `core.wire.messages`, `Reason` as the codes of `clusterd.errors`
(and `overloaded`), so that nothing is translated on the way to the client.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TypeAlias

from msgspec import Struct

TaskId: TypeAlias = bytes
"""Opaque: 16 bytes natively, up to 64 from stock clients."""


class Status(IntEnum):
    """How an engine says that a task went; UNMET: it refuses the task, because what that requires is not there."""

    OK = 0
    ERROR = 1
    UNMET = 2


class Place(IntEnum):
    """Where a task is: in exactly one of these at any moment, and once ENDED for ever so."""

    WAITING = 0
    QUEUED = 1
    HELD = 2
    ENDED = 3


class Reason(StrEnum):
    """Why a task has no result; the values are codes of `clusterd.errors`, plus `overloaded`."""

    ABORTED = "aborted"
    ENGINE_LOST = "engine_lost"
    TIMEOUT = "timeout"
    UNSCHEDULABLE = "unschedulable"
    OVERLOADED = "overloaded"


class Unmet(StrEnum):
    """What is wrong with what an unschedulable task depends on or requires; the words are those of ipyparallel's errors.

    INVALID: it names a task that is not known, or itself. IMPOSSIBLE: it was possible once, and can not be met any more.
    """

    INVALID = "invalid_dependency"
    IMPOSSIBLE = "impossible_dependency"


class Scheme(StrEnum):
    """Which of the engines that take work gets a balanced task; see `core.scheduler.schemes`."""

    LEASTLOAD = "leastload"
    LRU = "lru"
    TWOBIN = "twobin"
    WEIGHTED = "weighted"
    PLAINRANDOM = "plainrandom"
    PURE = "pure"


class Dependency(Struct, frozen=True):
    """A condition on other tasks: all of them or any; met by success, by failure, or (both) by any end.

    As in ipyparallel, a dependency on nothing is met, and one that can no longer be met fails the task that waits.
    """

    tasks: tuple[TaskId, ...]
    is_all: bool = True
    on_success: bool = True
    on_failure: bool = False


class TaskRecord(Struct, frozen=True):
    """What is known of one task, pending or ended. Times are the controller's clock; `engine` is -1 where none was involved.

    `reason` is empty unless the task ended without a result; `duration` is the engine's own measure of the run.
    """

    task: TaskId
    client: int
    place: Place
    engine: int
    attempt: int
    label: str
    submitted: float
    dispatched: float
    ended: float
    duration: float
    status: Status | None
    reason: str
    size: int
    result_size: int


class EngineLoad(Struct, frozen=True):
    """One engine's tasks: `queued` are direct ones that wait at the controller, `prefetched` wait inside the engine.

    `completed` counts what it ran: a task that is run again counts each time, one that the engine refused does not.
    """

    queued: int
    running: int
    prefetched: int
    completed: int


class ClientLoad(Struct, frozen=True):
    """One client's tasks: `held` are with engines, `bytes` is the size of all that has not ended."""

    queued: int
    waiting: int
    held: int
    ended: int
    bytes: int


class QueueStatus(Struct, frozen=True):
    """All queues at one moment. `unassigned` counts queued tasks that no single engine was named for."""

    engines: dict[int, EngineLoad]
    clients: dict[int, ClientLoad]
    unassigned: int
    waiting: int
    running: int
    prefetched: int
    completed: int

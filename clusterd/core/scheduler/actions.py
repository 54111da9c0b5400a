"""What the scheduler asks the controller to do: imperatives, to be performed in the order given.

Each accepted task gets exactly one of Deliver, Fail or (its client is gone) Forget as its end. After Deliver and Fail its request payload
may be dropped; what else is kept under its id may be dropped at Forget.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from clusterd.core.model.task import Place, Reason, TaskId, Unmet


class Action(Struct, frozen=True, gc=False):
    """Base of all; `gc=False`: actions hold no cycle."""


class Dispatch(Action, frozen=True):
    """Send a task to an engine. `order` numbers the dispatches of one engine: recalls name ranges of it."""

    task: TaskId
    engine: int
    attempt: int
    order: int


class Deliver(Action, frozen=True):
    """Give the result just reported to the client (the outbox of a detached one)."""

    task: TaskId
    client: int
    engine: int
    attempt: int


class Fail(Action, frozen=True):
    """Tell the client that the task has no result. `engine` is -1 where none was involved.

    `unmet` goes with Reason.UNSCHEDULABLE alone: whether its dependencies, or what it requires of an engine, are to blame, and how.
    """

    task: TaskId
    client: int
    reason: Reason
    text: str
    engine: int = -1
    attempt: int = -1
    unmet: Unmet | None = None


class Forget(Action, frozen=True):
    """Drop what is kept under these ids: culled from the records, or nobody waits for them any more."""

    tasks: tuple[TaskId, ...]


class WhyDiscarded(StrEnum):
    """Why a result is not for anybody."""

    STALE = "stale"
    REPEATED = "repeated"
    UNKNOWN = "unknown"
    RETRIED = "retried"
    REFUSED = "refused"
    TIMED_OUT = "timed out"
    CLIENT_GONE = "client gone"
    EXPIRED = "expired"


class Discard(Action, frozen=True):
    """Acknowledge a result and drop its payload: it is delivered to nobody."""

    task: TaskId
    engine: int
    attempt: int
    why: WhyDiscarded


class Keep(Action, frozen=True):
    """Keep the result just reported: its task is adopted, but no client has offered it again yet. Deliver or Discard follows."""

    task: TaskId
    engine: int
    attempt: int


class AnswerKnown(Action, frozen=True):
    """A submission repeats a task that is known: acknowledge it, and when it has ENDED send its outcome again if still kept.

    `owner` is the client that the task belongs to; where that is not `client`, refuse.
    """

    task: TaskId
    client: int
    owner: int
    place: Place


class Recall(Action, frozen=True):
    """Have the agent revoke the dispatches first..last of an engine. Answered by EngineRecalled, TaskNotRun or TaskFinished."""

    engine: int
    first: int
    last: int


class Interrupt(Action, frozen=True):
    """Have the agent interrupt the engine if it still runs this attempt."""

    engine: int
    task: TaskId
    attempt: int


class KillEngine(Action, frozen=True):
    """Have the agent kill the engine: it ignored an interrupt. EngineLost follows."""

    engine: int
    text: str


class Drained(Action, frozen=True):
    """A draining engine holds nothing and has nothing queued."""

    engine: int


class AdoptUnknown(Action, frozen=True):
    """An engine holds this attempt of a task that nobody has submitted here: before a restart, it was. A submission adopts it."""

    task: TaskId
    engine: int
    attempt: int


AnyAction: TypeAlias = (
    Dispatch
    | Deliver
    | Fail
    | Forget
    | Discard
    | Keep
    | AnswerKnown
    | Recall
    | Interrupt
    | KillEngine
    | Drained
    | AdoptUnknown
)

"""What the supervisor can learn. Past participles; each says only what is certain.

Commands carry `request`, which the answer repeats. Facts about the world carry when they were asked, where that matters:
`asked_at` is the moment of the question on the same clock as `now`.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from clusterd.core.model.engine import EngineView
from clusterd.core.model.job import Job
from clusterd.core.model.launch import ProcessIdentity
from clusterd.core.supervisor.settings import Settings

__all__ = [
    "AdoptionResult",
    "AgentReported",
    "AgentUnreachable",
    "CommandEvent",
    "ControllerReady",
    "ControllerUnreachable",
    "DrainRequested",
    "EnginesDrained",
    "EnginesObserved",
    "Event",
    "FactEvent",
    "JobsObserved",
    "JournalReplayed",
    "LaunchExited",
    "LaunchRefused",
    "ProfileChanged",
    "QueryFailed",
    "ReapFinished",
    "RestartRequested",
    "ResumeRequested",
    "ScaleRequested",
    "SlotView",
    "StartRequested",
    "Started",
    "StopRequested",
    "SubmitUnknown",
    "Submitted",
    "TimePassed",
]


class _Event(Struct, frozen=True, tag=True):
    """Base of all."""


# --- commands --------------------------------------------------------------------------------------------------------


class StartRequested(_Event, frozen=True):
    """Run the cluster. `n` overrides the profile's number per engine set; while it runs only what `n` names changes."""

    request: int
    n: dict[str, int] = {}


class StopRequested(_Event, frozen=True):
    """Stop engines, then the controller.

    Attributes:
        is_pause: until the next daemon starts.
    """

    request: int
    is_pause: bool = False


class ScaleRequested(_Event, frozen=True):
    """An engine set is to have `n` engines.

    `drain_timeout` is what engines that go have for their tasks, this time, in seconds; None: what the profile says.
    """

    request: int
    engine_set: str
    n: int
    drain_timeout: float | None = None


class DrainRequested(_Event, frozen=True):
    """The engines in these slots are to get no new tasks, and to end when they have none left, or after `drain_timeout`.

    The set's number goes down by as many, or (`is_replaced`) each gets a successor in its slot.
    """

    request: int
    slots: dict[str, tuple[int, ...]]
    is_replaced: bool = False
    drain_timeout: float | None = None


class RestartRequested(_Event, frozen=True):
    """Restart a unit (the controller: engines stay), or all with an empty name."""

    request: int
    unit: str = ""


class ResumeRequested(_Event, frozen=True):
    """End the crash loop of a unit and of its slots, or of all with an empty name."""

    request: int
    unit: str = ""


class ProfileChanged(_Event, frozen=True):
    """The profile was read again. A changed `n` is a wish like any other; a set that is gone is stopped."""

    settings: Settings


# --- facts -----------------------------------------------------------------------------------------------------------


class JournalReplayed(_Event, frozen=True):
    """All records were applied: look for what they say should run. Always the first event."""


class TimePassed(_Event, frozen=True):
    """`next_deadline()` has come."""


class Started(_Event, frozen=True):
    """Start succeeded: the process exists. Its end will be reported by LaunchExited."""

    launch: str
    identity: ProcessIdentity


class Submitted(_Event, frozen=True):
    """Submit succeeded."""

    launch: str
    job: str


class LaunchRefused(_Event, frozen=True):
    """Start or Submit failed, and nothing was or will be started: no such program, queue does not exist."""

    launch: str
    reason: str


class SubmitUnknown(_Event, frozen=True):
    """Submit gave no certain answer: a time-out, a lost connection, output that nobody understands."""

    launch: str
    evidence: str


class LaunchExited(_Event, frozen=True):
    """The process is certainly gone.

    Attributes:
        reason: exit status, signal, out of memory: a sentence.
        is_clean: it ended by itself with status 0 and, being an agent, had ended its engines.
    """

    launch: str
    reason: str
    is_clean: bool = False


class AdoptionResult(_Event, frozen=True):
    """The answer to Adopt: `found` (its end will be reported), `absent` (it does not run, and never will), `unknown`.

    Attributes:
        identity: who it is, or was: an absent agent that lived may have left engines behind. None where nobody ever was.
        evidence: how that is known.
    """

    launch: str
    verdict: Literal["found", "absent", "unknown"]
    identity: ProcessIdentity | None = None
    evidence: str = ""


class JobsObserved(_Event, frozen=True):
    """The answer to Query: all our jobs that the batch system knows of, whatever their state."""

    unit: str
    asked_at: float
    jobs: tuple[Job, ...]
    evidence: str = ""


class QueryFailed(_Event, frozen=True):
    """Query gave no answer. Nothing follows from it, but people want to know."""

    unit: str
    asked_at: float
    evidence: str


class ControllerReady(_Event, frozen=True):
    """This launch of the controller serves us; repeated whenever the link comes back."""

    launch: str


class ControllerUnreachable(_Event, frozen=True):
    """The link to the controller is down. Whether it lives, others say."""

    launch: str
    evidence: str


class SlotView(Struct, frozen=True):
    """One slot in an agent's report: starting, running, backoff, crash-loop, stopping; `reason` when it is not running."""

    slot: int
    state: str
    reason: str = ""


class AgentReported(_Event, frozen=True):
    """An agent says what it holds, under which generation of its orders."""

    launch: str
    generation: int
    slots: tuple[SlotView, ...]
    asked_at: float


class AgentUnreachable(_Event, frozen=True):
    """The controller has lost the agent's link. Whether it lives, others say."""

    launch: str
    evidence: str


class EnginesObserved(_Event, frozen=True):
    """All registered engines of a set."""

    engine_set: str
    engines: tuple[EngineView, ...]
    asked_at: float


class EnginesDrained(_Event, frozen=True):
    """The engines in these slots were to be drained and hold nothing any more."""

    engine_set: str
    slots: tuple[int, ...]


class ReapFinished(_Event, frozen=True):
    """The answer to Reap; `error` is empty when no engine of the set is left."""

    unit: str
    error: str = ""


CommandEvent: TypeAlias = (
    StartRequested
    | StopRequested
    | ScaleRequested
    | DrainRequested
    | RestartRequested
    | ResumeRequested
    | ProfileChanged
)
FactEvent: TypeAlias = (
    JournalReplayed
    | TimePassed
    | Started
    | Submitted
    | LaunchRefused
    | SubmitUnknown
    | LaunchExited
    | AdoptionResult
    | JobsObserved
    | QueryFailed
    | ControllerReady
    | ControllerUnreachable
    | AgentReported
    | AgentUnreachable
    | EnginesObserved
    | EnginesDrained
    | ReapFinished
)
Event: TypeAlias = CommandEvent | FactEvent

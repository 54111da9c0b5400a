"""What the supervisor wants done. Imperatives; all `Append`s of one `handle` come first and are one batch of the journal.

The performer makes that batch durable, then does the rest in order. Every action may be repeated after a crash, so each
must be idempotent or guarded by the launch id.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import Struct

from clusterd.core.model.launch import ProcessIdentity
from clusterd.core.supervisor.records import Record

__all__ = [
    "Action",
    "Adopt",
    "Answer",
    "Append",
    "Cancel",
    "Dismiss",
    "Drain",
    "Query",
    "Reap",
    "Refuse",
    "ResumeSlots",
    "SetDesired",
    "Start",
    "Stop",
    "Submit",
]


class _Action(Struct, frozen=True, tag=True):
    """Base of all."""


class Append(_Action, frozen=True):
    """Make this record durable before anything that follows."""

    record: Record


class Answer(_Action, frozen=True):
    """The command was accepted, and is durable."""

    request: int
    value: dict[str, Any]


class Refuse(_Action, frozen=True):
    """The command was refused: nothing was changed."""

    request: int
    message: str
    hint: str = ""


class Start(_Action, frozen=True):
    """Start a process on this host. Answer: Started or LaunchRefused; later LaunchExited."""

    launch: str
    unit: str
    slots: tuple[int, ...]
    generation: int


class Submit(_Action, frozen=True):
    """Submit a job that carries the launch id as its tag. Answer: Submitted, LaunchRefused or SubmitUnknown."""

    launch: str
    unit: str
    slots: tuple[int, ...]
    generation: int


class Adopt(_Action, frozen=True):
    """Find out whether this launch of an earlier daemon runs. Answer: AdoptionResult.

    With an identity: look at that process. Without: look for the identity file that it would have claimed, and claim it
    if there is none; then it is absent for certain, because a process that finds its file claimed ends at once.
    """

    launch: str
    unit: str
    identity: ProcessIdentity | None


class Query(_Action, frozen=True):
    """Ask the batch system for all our jobs. Answer: JobsObserved or QueryFailed, always."""

    unit: str


class Stop(_Action, frozen=True):
    """End a launch: `term` asks (SIGTERM, cancel the job), `kill` does not. Its end is reported as always."""

    launch: str
    unit: str
    how: Literal["term", "kill"]
    identity: ProcessIdentity | None = None
    job: str = ""


class Cancel(_Action, frozen=True):
    """Cancel a job that carries a tag of ours, but that we know no launch for."""

    unit: str
    job: str


class Dismiss(_Action, frozen=True):
    """An agent speaks under a launch that is over, or that has no identity yet: tell it to end itself and its engines."""

    launch: str


class SetDesired(_Action, frozen=True):
    """Tell an agent which slots to hold. A lost one is noticed by the generation of the next report."""

    launch: str
    engine_set: str
    generation: int
    slots: tuple[int, ...]


class Drain(_Action, frozen=True):
    """Give the engines in these slots no new work (or again). Answer: EnginesDrained, as they become idle.

    Where no engine is registered there is nothing to wait for: those slots are in the first answer.
    """

    engine_set: str
    slots: tuple[int, ...]
    is_draining: bool = True


class ResumeSlots(_Action, frozen=True):
    """Tell an agent to end the crash loops of its slots."""

    launch: str


class Reap(_Action, frozen=True):
    """End all engines of the set that go on without an agent, by their identity files. Answer: ReapFinished."""

    unit: str


Action: TypeAlias = (
    Append
    | Answer
    | Refuse
    | Start
    | Submit
    | Adopt
    | Query
    | Stop
    | Cancel
    | Dismiss
    | SetDesired
    | Drain
    | ResumeSlots
    | Reap
)

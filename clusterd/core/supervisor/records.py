"""What the supervisor's journal says: durable facts and intents, in the past participle. JSON, so that people can read it.

Every record names its cluster. Fields are only ever added, with defaults; an unknown field is ignored, an unknown kind of
record is an error: a release that does not know it cannot know what else it would forget.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Struct

from clusterd.core.model.cluster import Cluster
from clusterd.core.model.desired import DesiredSet
from clusterd.core.model.launch import ProcessIdentity
from clusterd.errors import StorageError

__all__ = [
    "ClusterCreated",
    "DesiredChanged",
    "DrainEnded",
    "DrainIntended",
    "EnginesReaped",
    "LaunchConfirmed",
    "LaunchEnded",
    "LaunchIntended",
    "LaunchStarted",
    "Record",
    "RunChanged",
    "SlotsAssigned",
    "SlotsReleased",
    "StopIntended",
    "UnitFailed",
    "UnitHalted",
    "UnitOrphaned",
    "UnitResumed",
    "decode",
    "encode",
]


class _Record(Struct, frozen=True, tag_field="record", omit_defaults=True):
    """Base of all.

    Attributes:
        cluster: name of the cluster it is about.
    """

    cluster: str


class ClusterCreated(_Record, frozen=True, tag=True):
    """The journal was begun. In a snapshot `next_number` is that of the next launch."""

    identity: Cluster
    next_number: int = 0


class RunChanged(_Record, frozen=True, tag=True):
    """Somebody wants the cluster to run, or not to run any more.

    Attributes:
        is_pause: it is to run again when the next daemon starts.
    """

    is_wanted: bool
    is_pause: bool = False


class DesiredChanged(_Record, frozen=True, tag=True):
    """The wish for an engine set."""

    engine_set: str
    desired: DesiredSet


class DrainIntended(_Record, frozen=True, tag=True):
    """The engines in these slots get no new tasks, and end when they have none left or their time is over.

    Attributes:
        began: when, on the clock of the supervisor's events (on Linux: since boot). One of an earlier boot counts as just begun.
        patience: seconds that their tasks have; None: as long as they take.
        is_replaced: the slots stay wanted: each gets a new engine afterwards.
        is_given_up: (of a replaced one) its agent was told to end it, and has not said yet that it has.
    """

    engine_set: str
    slots: tuple[int, ...]
    began: float
    patience: float | None = None
    is_replaced: bool = False
    is_given_up: bool = False


class DrainEnded(_Record, frozen=True, tag=True):
    """These slots are not drained any more: given up, replaced, or wanted after all."""

    engine_set: str
    slots: tuple[int, ...]


class LaunchIntended(_Record, frozen=True, tag=True):
    """A launch is about to be made. Written before anything is done: after a crash it is looked for.

    Attributes:
        unit: engine set or `controller`.
        is_job: it is submitted; otherwise started as a process of this host.
        slots: what the agent is told at first; empty for a controller.
        generation: of these slots.
    """

    launch: str
    unit: str
    is_job: bool = False
    slots: tuple[int, ...] = ()
    generation: int = 0


class LaunchStarted(_Record, frozen=True, tag=True):
    """A launch came to be, as this process or that job."""

    launch: str
    identity: ProcessIdentity | None = None
    job: str = ""


class LaunchConfirmed(_Record, frozen=True, tag=True):
    """A launch became ready for the first time, so that its start deadline is over for good."""

    launch: str


class SlotsAssigned(_Record, frozen=True, tag=True):
    """A launch is to hold these slots from now on.

    Attributes:
        lingering: slots that it is to give up and has not said that it has: no other launch may have them yet.
    """

    launch: str
    slots: tuple[int, ...]
    generation: int
    lingering: tuple[int, ...] = ()


class SlotsReleased(_Record, frozen=True, tag=True):
    """A launch has said that it has given up these slots."""

    launch: str
    slots: tuple[int, ...]


class StopIntended(_Record, frozen=True, tag=True):
    """A launch is about to be stopped.

    Attributes:
        is_failure: it is stopped because it failed (did not become ready), which counts as a failure of the unit.
    """

    launch: str
    reason: str
    is_failure: bool = False


class LaunchEnded(_Record, frozen=True, tag=True):
    """A launch certainly does not run and never will.

    Attributes:
        is_clean: its agent ended all its engines first.
    """

    launch: str
    reason: str
    is_clean: bool = False


class UnitOrphaned(_Record, frozen=True, tag=True):
    """Engines of the set may go on without an agent: the next agent adopts them, or they are reaped."""

    unit: str


class EnginesReaped(_Record, frozen=True, tag=True):
    """No engine of the set is left without an agent."""

    unit: str


class UnitFailed(_Record, frozen=True, tag=True):
    """A launch of the unit ended unasked: what decides when the next one is made, and when none is.

    Attributes:
        failures: length of the present series.
        times: of its last failures, on the clock of the supervisor's events.
        reason: of the last end.
        retry_at: no launch before this; None: at once, or not before somebody resumes it.
    """

    unit: str
    failures: int
    times: tuple[float, ...]
    reason: str
    retry_at: float | None = None


class UnitHalted(_Record, frozen=True, tag=True):
    """The unit is not started any more (crash loop, or its policy), until somebody resumes it."""

    unit: str
    reason: str


class UnitResumed(_Record, frozen=True, tag=True):
    """Somebody resumed the unit."""

    unit: str


Record: TypeAlias = (
    ClusterCreated
    | RunChanged
    | DesiredChanged
    | DrainIntended
    | DrainEnded
    | LaunchIntended
    | LaunchStarted
    | LaunchConfirmed
    | SlotsAssigned
    | SlotsReleased
    | StopIntended
    | LaunchEnded
    | UnitOrphaned
    | EnginesReaped
    | UnitFailed
    | UnitHalted
    | UnitResumed
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """Return the bytes of a record for the journal."""
    return _encoder.encode(record)


def decode(data: bytes) -> Record:
    """Return the record that `encode` wrote.

    Raises:
        StorageError: it is none of ours, or of a newer release.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StorageError(
            f"the journal holds a record that this release does not understand: {data[:200]!r} ({error})",
            hint="It was written by a newer release: start that one.",
        ) from error

"""What survives the daemon: the fold of all records. Changed by `apply` and nothing else; no decision is made here.

`snapshot` returns records whose fold is this very state, so that the journal can be compacted at any moment.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, assert_never

from msgspec import Struct, structs

from clusterd.core.model.launch import ProcessIdentity
from clusterd.core.supervisor import records

if TYPE_CHECKING:
    from clusterd.core.model.cluster import Cluster
    from clusterd.core.model.desired import DesiredSet

__all__ = ["Drain", "Failures", "Launch", "State"]


class Drain(Struct, frozen=True):
    """One slot that is drained; see `records.DrainIntended`."""

    began: float
    patience: float | None = None
    is_replaced: bool = False
    is_given_up: bool = False

    def deadline(self, now: float) -> float:
        """Return when patience ends. What began later than now began in an earlier boot, whose clock says nothing here."""
        return inf if self.patience is None else min(self.began, now) + self.patience


class Failures(Struct, frozen=True):
    """How a unit's launches have ended lately; see `records.UnitFailed`."""

    failures: int
    times: tuple[float, ...]
    reason: str
    retry_at: float | None = None


class Launch(Struct, frozen=True):
    """One launch that has not certainly ended.

    Attributes:
        id: `1f3c9a20-17`.
        unit: engine set or `controller`.
        is_job: it was submitted to a batch system; else it is a process of this host.
        slots: what it holds or is to hold, ascending; empty for a controller, and for what is about to be stopped.
        generation: of these slots.
        lingering: slots that it was told to give up and has not said that it has: nobody else may have them yet.
        identity: the process, None as long as it is not known or when it is a job.
        job: the batch system's id, empty likewise.
        is_confirmed: it was ready at some time.
        stop_reason: why it is being stopped, empty while it is not.
        is_failed: it is being stopped because it failed.
    """

    id: str
    unit: str
    is_job: bool = False
    slots: tuple[int, ...] = ()
    generation: int = 0
    lingering: tuple[int, ...] = ()
    identity: ProcessIdentity | None = None
    job: str = ""
    is_confirmed: bool = False
    stop_reason: str = ""
    is_failed: bool = False

    @property
    def is_stopping(self) -> bool:
        """Whether its end is intended."""
        return bool(self.stop_reason)


class State:
    """The durable state of one cluster.

    Attributes:
        cluster: who it is; None before the journal was begun.
        next_number: number of the next launch; no number is used twice.
        is_wanted: the cluster is to run.
        is_paused: it is not, but the next daemon is to start it again.
        desired: the wish for every engine set that there ever was one for.
        launches: all and only launches whose process or job may still run, by id, oldest first.
        halted: all and only units that are not started until they are resumed, and why.
        orphaned: all and only engine sets of which engines may go on without an agent.
        draining: by engine set, all and only slots that are drained. Nothing is while the cluster is not wanted.
        failures: of units whose launches have ended unasked since they were last resumed.
    """

    def __init__(self) -> None:
        self.cluster: Cluster | None = None
        self.next_number = 0
        self.is_wanted = False
        self.is_paused = False
        self.desired: dict[str, DesiredSet] = {}
        self.launches: dict[str, Launch] = {}
        self.halted: dict[str, str] = {}
        self.orphaned: set[str] = set()
        self.draining: dict[str, dict[int, Drain]] = {}
        self.failures: dict[str, Failures] = {}

    def of_unit(self, unit: str) -> list[Launch]:
        """Return the launches of a unit, oldest first."""
        return [launch for launch in self.launches.values() if launch.unit == unit]

    def apply(self, record: records.Record) -> None:  # noqa: C901, PLR0912 - one case per kind of record
        """Change the state by one record. Records about launches that have ended change nothing."""
        match record:
            case records.ClusterCreated():
                self.cluster = record.identity
                self.next_number = max(self.next_number, record.next_number)
            case records.RunChanged():
                self.is_wanted, self.is_paused = record.is_wanted, record.is_pause
                self.draining.clear()
            case records.DesiredChanged():
                self.desired[record.engine_set] = record.desired
            case records.DrainIntended():
                drain = Drain(record.began, record.patience, record.is_replaced, record.is_given_up)
                self.draining.setdefault(record.engine_set, {}).update(dict.fromkeys(record.slots, drain))
            case records.DrainEnded():
                self._drain_ended(record)
            case records.LaunchIntended():
                self.launches[record.launch] = Launch(
                    record.launch, record.unit, record.is_job, record.slots, record.generation
                )
                self.next_number = max(self.next_number, int(record.launch.rpartition("-")[2]) + 1)
                self._saw_generation(record.unit, record.generation)
            case records.LaunchStarted():
                self._change(record.launch, identity=record.identity, job=record.job)
            case records.LaunchConfirmed():
                self._change(record.launch, is_confirmed=True)
            case records.SlotsAssigned():
                if launch := self.launches.get(record.launch):
                    self._change(
                        record.launch, slots=record.slots, generation=record.generation, lingering=record.lingering
                    )
                    self._saw_generation(launch.unit, record.generation)
            case records.SlotsReleased():
                if launch := self.launches.get(record.launch):
                    left = tuple(slot for slot in launch.lingering if slot not in record.slots)
                    self._change(record.launch, lingering=left)
            case records.StopIntended():
                self._change(record.launch, stop_reason=record.reason, is_failed=record.is_failure)
            case records.LaunchEnded():
                self.launches.pop(record.launch, None)
            case records.UnitOrphaned():
                self.orphaned.add(record.unit)
            case records.EnginesReaped():
                self.orphaned.discard(record.unit)
            case records.UnitHalted():
                self.halted[record.unit] = record.reason
            case records.UnitResumed():
                self.halted.pop(record.unit, None)
                self.failures.pop(record.unit, None)
            case records.UnitFailed():
                self.failures[record.unit] = Failures(record.failures, record.times, record.reason, record.retry_at)
            case _ as unreachable:
                assert_never(unreachable)

    def snapshot(self) -> list[records.Record]:
        """Return records that make this state out of a new one."""
        if self.cluster is None:
            return []
        name = self.cluster.name
        made: list[records.Record] = [
            records.ClusterCreated(name, self.cluster, self.next_number),
            records.RunChanged(name, self.is_wanted, self.is_paused),
        ]
        made += [records.DesiredChanged(name, unit, desired) for unit, desired in self.desired.items()]
        made += self._drains(name)
        for launch in self.launches.values():
            made.append(
                records.LaunchIntended(name, launch.id, launch.unit, launch.is_job, launch.slots, launch.generation)
            )
            if launch.identity is not None or launch.job:
                made.append(records.LaunchStarted(name, launch.id, launch.identity, launch.job))
            if launch.lingering:
                made.append(records.SlotsAssigned(name, launch.id, launch.slots, launch.generation, launch.lingering))
            if launch.is_confirmed:
                made.append(records.LaunchConfirmed(name, launch.id))
            if launch.is_stopping:
                made.append(records.StopIntended(name, launch.id, launch.stop_reason, launch.is_failed))
        made += [records.UnitOrphaned(name, unit) for unit in sorted(self.orphaned)]
        made += [
            records.UnitFailed(name, unit, of.failures, of.times, of.reason, of.retry_at)
            for unit, of in self.failures.items()
        ]
        made += [records.UnitHalted(name, unit, reason) for unit, reason in self.halted.items()]
        return made

    def _drain_ended(self, record: records.DrainEnded) -> None:
        drains = self.draining.get(record.engine_set, {})
        for slot in record.slots:
            drains.pop(slot, None)
        if not drains:
            self.draining.pop(record.engine_set, None)

    def _drains(self, name: str) -> list[records.Record]:
        alike: dict[tuple[str, Drain], list[int]] = {}
        for unit, drains in self.draining.items():
            for slot, drain in drains.items():
                alike.setdefault((unit, drain), []).append(slot)
        return [
            records.DrainIntended(
                name, unit, tuple(slots), drain.began, drain.patience, drain.is_replaced, drain.is_given_up
            )
            for (unit, drain), slots in alike.items()
        ]

    def _change(self, launch_id: str, **fields: object) -> None:
        if launch := self.launches.get(launch_id):
            self.launches[launch_id] = structs.replace(launch, **fields)

    def _saw_generation(self, unit: str, generation: int) -> None:
        """Assignments count as generations of the set, so that an agent can tell the later of two orders."""
        desired = self.desired.get(unit)
        if desired is not None and generation > desired.generation:
            self.desired[unit] = desired.at(generation)

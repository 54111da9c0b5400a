"""What each fact about the world means for what is known. Decides no deed: that is `reconcile`'s.

Nothing is concluded from silence, from an error, or from the answer to a question that was put too early: such events
leave a trace for people (evidence, unknown since), and change no phase.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from clusterd.core.model import ids
from clusterd.core.model.observed import Observation
from clusterd.core.supervisor import actions, events, records
from clusterd.core.supervisor.phases import TRANSITIONS, Fact, Phase
from clusterd.core.supervisor.restart import RestartAt, StayDown
from clusterd.core.supervisor.watches import LaunchWatch

if TYPE_CHECKING:
    from clusterd.core.model.job import Job
    from clusterd.core.model.launch import ProcessIdentity
    from clusterd.core.supervisor.machine import Supervisor
    from clusterd.core.supervisor.state import Launch
    from clusterd.core.supervisor.watches import UnitWatch

__all__ = ["take"]

ADOPT_AGAIN: Final = 5.0
"""Seconds until an adoption that could not be decided, or a reaping that failed, is tried again."""


def take(supervisor: Supervisor, event: events.FactEvent) -> None:  # noqa: C901, PLR0912 - one case per kind of event
    """Take note of one fact."""
    match event:
        case events.JournalReplayed():
            _journal_replayed(supervisor)
        case events.TimePassed():
            pass  # reconcile looks at all deadlines, whatever the event
        case events.Started():
            _started(supervisor, event.launch, event.identity)
        case events.Submitted():
            _submitted(supervisor, event)
        case events.LaunchRefused():
            _learn(supervisor, event.launch, Fact.REFUSED, event.reason)
        case events.SubmitUnknown():
            _submit_unknown(supervisor, event)
        case events.LaunchExited():
            _learn(supervisor, event.launch, Fact.EXITED, event.reason, is_clean=event.is_clean)
        case events.AdoptionResult():
            _adoption_result(supervisor, event)
        case events.JobsObserved():
            _jobs_observed(supervisor, event)
        case events.QueryFailed():
            _query_failed(supervisor, event)
        case events.ControllerReady():
            _controller_ready(supervisor, event)
        case events.ControllerUnreachable() | events.AgentUnreachable():
            if watch := supervisor.launches.get(event.launch):
                watch.reachable_since = None
                watch.evidence = event.evidence
        case events.AgentReported():
            _agent_reported(supervisor, event)
        case events.EnginesObserved():
            seen = Observation({engine.slot: engine for engine in event.engines}, event.asked_at)
            last = supervisor.unit(event.engine_set).engines
            if last is None or not last.is_newer_than(seen.asked_at):
                supervisor.unit(event.engine_set).engines = seen
        case events.EnginesDrained():
            drains = supervisor.state.draining.get(event.engine_set, {})
            supervisor.unit(event.engine_set).drained |= drains.keys() & set(event.slots)
        case events.ReapFinished():
            _reap_finished(supervisor, event)
        case _ as unreachable:
            assert_never(unreachable)


def _learn(
    supervisor: Supervisor, launch_id: str, fact: Fact, reason: str, *, is_clean: bool = False
) -> LaunchWatch | None:
    """Move a launch through the table; return its watch while it goes on."""
    watch = supervisor.launches.get(launch_id)
    if watch is None:
        return None  # it ended before: late news of it change nothing
    before, watch.phase = watch.phase, TRANSITIONS[watch.phase][fact]
    if watch.phase is not Phase.ENDED:
        return watch
    launch = supervisor.state.launches[launch_id]
    # Engines can only be left by an agent that lived: not by one that was refused, nor by one whose place was claimed.
    has_lived = fact is not Fact.REFUSED and (before is Phase.PRESENT or launch.identity is not None)
    _end(supervisor, launch, reason, has_lived=has_lived, is_clean=is_clean)
    return None


def _end(supervisor: Supervisor, launch: Launch, reason: str, *, has_lived: bool, is_clean: bool) -> None:
    watch = supervisor.launches.pop(launch.id)
    unit = supervisor.unit(launch.unit)
    supervisor.record(records.LaunchEnded(supervisor.name, launch.id, reason, is_clean))
    leaves_engines = launch.unit != ids.CONTROLLER and not launch.is_job and has_lived and not is_clean
    if leaves_engines and launch.unit not in supervisor.state.orphaned:
        supervisor.record(records.UnitOrphaned(supervisor.name, launch.unit))
    _end_drains(supervisor, launch, leaves_engines=leaves_engines)
    if launch.unit == ids.CONTROLLER:
        # Nobody is registered any more; what the engines do now is unknown until the next one has been asked.
        for watched in supervisor.units.values():
            watched.engines = None
    if launch.is_stopping and not launch.is_failed:
        return
    healthy_for = 0.0 if watch.ready_since is None else supervisor.now - watch.ready_since
    if launch.is_failed:
        reason, healthy_for, is_clean = launch.stop_reason, 0.0, False
    unit.last_end = reason
    outcome = unit.restarts.ended(reason, supervisor.now, healthy_for=healthy_for, is_failure=not is_clean)
    if isinstance(outcome, RestartAt):
        unit.retry_at = outcome.at
    if isinstance(outcome, RestartAt) or outcome.is_crash_loop:
        retry_at = outcome.at if isinstance(outcome, RestartAt) else None
        failed = records.UnitFailed(
            supervisor.name, launch.unit, unit.restarts.failures, unit.restarts.times, reason, retry_at
        )
        supervisor.record(failed)
    if isinstance(outcome, StayDown) and launch.unit not in supervisor.state.halted:
        supervisor.record(records.UnitHalted(supervisor.name, launch.unit, outcome.reason))


def _end_drains(supervisor: Supervisor, launch: Launch, *, leaves_engines: bool) -> None:
    """A launch has ended: with its engines, or its successor finds them where they were."""
    drains = supervisor.state.draining.get(launch.unit, {})
    slots = [slot for slot in dict.fromkeys((*launch.slots, *launch.lingering)) if slot in drains]
    if not leaves_engines:
        if slots:
            supervisor.record(records.DrainEnded(supervisor.name, launch.unit, tuple(slots)))
        return
    for slot in slots:
        drain = drains[slot]
        if drain.is_given_up:
            # The agent may have died before it ended the engine: its successor is told once more.
            supervisor.record(
                records.DrainIntended(
                    supervisor.name, launch.unit, (slot,), drain.began, drain.patience, drain.is_replaced
                )
            )


def _journal_replayed(supervisor: Supervisor) -> None:
    for name, failed in supervisor.state.failures.items():
        unit = supervisor.unit(name)
        unit.restarts.restore(failed.failures, failed.times, supervisor.now)
        unit.last_end = failed.reason
        if failed.retry_at is not None and failed.retry_at > supervisor.now and unit.restarts.failures:
            # A pause goes on; it is never longer than the policy allows, whatever the clock of that time was.
            longest = unit.restarts.policy.max_backoff
            unit.retry_at = min(failed.retry_at, supervisor.now + longest)
    for launch in supervisor.state.launches.values():
        watch = supervisor.launches[launch.id] = LaunchWatch(Phase.UNRESOLVED)
        watch.is_uncertain(supervisor.now, "the daemon was restarted")
        if launch.is_job:
            # An earlier daemon's submission may still be under way, if we have no job id to show that it is over.
            settle = 0.0 if launch.job else supervisor.unit_settings(launch.unit).traits.settle
            watch.absent_after = supervisor.now + settle
            supervisor.unit(launch.unit).query_at = supervisor.now
        else:
            supervisor.act(actions.Adopt(launch.id, launch.unit, launch.identity))


def _started(supervisor: Supervisor, launch_id: str, identity: ProcessIdentity) -> None:
    if watch := _learn(supervisor, launch_id, Fact.ACCEPTED, ""):
        watch.absent_after = supervisor.now
        _is_process(supervisor, launch_id, watch, identity)


def _is_process(supervisor: Supervisor, launch_id: str, watch: LaunchWatch, identity: ProcessIdentity) -> None:
    watch.is_certain("process watched")
    if watch.running_since is None:
        watch.running_since = supervisor.now
    if supervisor.state.launches[launch_id].identity != identity:
        supervisor.record(records.LaunchStarted(supervisor.name, launch_id, identity))


def _submitted(supervisor: Supervisor, event: events.Submitted) -> None:
    if watch := _learn(supervisor, event.launch, Fact.ACCEPTED, ""):
        launch = supervisor.state.launches[event.launch]
        watch.absent_after = supervisor.now + supervisor.unit_settings(launch.unit).traits.settle
        watch.is_certain("submitted")
        if launch.job != event.job:
            supervisor.record(records.LaunchStarted(supervisor.name, event.launch, None, event.job))


def _submit_unknown(supervisor: Supervisor, event: events.SubmitUnknown) -> None:
    if watch := _learn(supervisor, event.launch, Fact.UNCERTAIN, ""):
        settle = supervisor.unit_settings(supervisor.state.launches[event.launch].unit).traits.settle
        watch.absent_after = supervisor.now + settle
        if watch.phase is Phase.UNRESOLVED:
            watch.is_uncertain(supervisor.now, event.evidence)


def _adoption_result(supervisor: Supervisor, event: events.AdoptionResult) -> None:
    watch = supervisor.launches.get(event.launch)
    if watch is None:
        return
    watch.adopt_at = None
    match event.verdict:
        case "found":
            _learn(supervisor, event.launch, Fact.SEEN, "")
            if event.identity is not None:
                _is_process(supervisor, event.launch, watch, event.identity)
        case "absent":
            # It lived, then: it may have left engines behind.
            if event.identity is not None and supervisor.state.launches[event.launch].identity is None:
                supervisor.record(records.LaunchStarted(supervisor.name, event.launch, event.identity))
            _learn(supervisor, event.launch, Fact.ABSENT, f"not found after the daemon's restart: {event.evidence}")
        case "unknown":
            watch.is_uncertain(supervisor.now, event.evidence)
            watch.adopt_at = supervisor.now + ADOPT_AGAIN
        case _ as unreachable:
            assert_never(unreachable)


def _jobs_observed(supervisor: Supervisor, event: events.JobsObserved) -> None:
    _query_answered(supervisor, event.unit).failing_since = None
    by_launch: dict[str, list[Job]] = {}
    for job in event.jobs:
        by_launch.setdefault(job.launch, []).append(job)
    for launch in supervisor.state.of_unit(event.unit):
        if launch.is_job:
            _jobs_of_launch(supervisor, launch, by_launch.get(launch.id, []), event)
    for tag, jobs in by_launch.items():
        name = ids.parse_launch(tag)
        is_ours = name is not None and name.instance == supervisor.instance
        # A submission that was given up and arrived after all; or it ended in our books and not yet in theirs.
        if is_ours and tag not in supervisor.state.launches:
            for job in jobs:
                if job.state != "ended":
                    supervisor.act(actions.Cancel(event.unit, job.id))


def _jobs_of_launch(supervisor: Supervisor, launch: Launch, jobs: list[Job], event: events.JobsObserved) -> None:
    watch = supervisor.launches[launch.id]
    alive = sorted((job for job in jobs if job.state != "ended"), key=lambda job: (job.id != launch.job, job.id))
    if alive:
        # A submission that was repeated below us made two jobs of one launch: one is enough.
        for surplus in alive[1:]:
            supervisor.act(actions.Cancel(event.unit, surplus.id))
        job = alive[0]
        _learn(supervisor, launch.id, Fact.SEEN, "")
        watch.is_certain(f"{event.evidence or 'query'}: {job.state}{job.reason and f', {job.reason}'}")
        if launch.job != job.id:
            supervisor.record(records.LaunchStarted(supervisor.name, launch.id, None, job.id))
        if job.state == "queued":
            watch.running_since = None
        elif watch.running_since is None:
            watch.running_since = supervisor.now
    elif jobs:
        _learn(supervisor, launch.id, Fact.EXITED, jobs[0].reason or f"job {jobs[0].id} ended")
    elif event.asked_at > watch.absent_after:
        _learn(
            supervisor,
            launch.id,
            Fact.ABSENT,
            f"the batch system does not know job {launch.job or launch.id} (any more)",
        )


def _query_failed(supervisor: Supervisor, event: events.QueryFailed) -> None:
    unit = _query_answered(supervisor, event.unit)
    unit.failure = event.evidence
    if unit.failing_since is None:
        unit.failing_since = event.asked_at


def _query_answered(supervisor: Supervisor, unit: str) -> UnitWatch:
    watch = supervisor.unit(unit)
    watch.is_querying = False
    watch.query_at = supervisor.now + supervisor.unit_settings(unit).traits.poll_interval
    return watch


def _controller_ready(supervisor: Supervisor, event: events.ControllerReady) -> None:
    _became_ready(supervisor, event.launch)
    # A new controller knows of no draining, and an order that was given while the link was down is lost.
    for name, drains in supervisor.state.draining.items():
        if slots := tuple(sorted(drains.keys() - supervisor.unit(name).drained)):
            supervisor.act(actions.Drain(name, slots))


def _became_ready(supervisor: Supervisor, launch_id: str) -> None:
    watch = _learn(supervisor, launch_id, Fact.SEEN, "")
    if watch is None:
        return
    watch.unknown_since = None
    watch.ready_since = supervisor.now if watch.ready_since is None else watch.ready_since
    watch.reachable_since = supervisor.now if watch.reachable_since is None else watch.reachable_since
    if not supervisor.state.launches[launch_id].is_confirmed:
        supervisor.record(records.LaunchConfirmed(supervisor.name, launch_id))


def _agent_reported(supervisor: Supervisor, event: events.AgentReported) -> None:
    launch = supervisor.state.launches.get(event.launch)
    if launch is None:
        name = ids.parse_launch(event.launch)
        if name is not None and name.instance == supervisor.instance:
            supervisor.act(actions.Dismiss(event.launch))
        return
    _became_ready(supervisor, event.launch)
    watch = supervisor.launches[event.launch]
    watch.reported_generation = max(watch.reported_generation, event.generation)
    watch.report = Observation(event.slots, event.asked_at)
    released = set(launch.lingering) - {slot.slot for slot in event.slots}
    if released and event.generation >= launch.generation:
        supervisor.record(records.SlotsReleased(supervisor.name, launch.id, tuple(sorted(released))))
    if event.generation < launch.generation and not launch.is_stopping:
        supervisor.act(actions.SetDesired(launch.id, launch.unit, launch.generation, launch.slots))


def _reap_finished(supervisor: Supervisor, event: events.ReapFinished) -> None:
    unit = supervisor.unit(event.unit)
    unit.is_reaping = False
    if event.error:
        unit.reap_at = supervisor.now + ADOPT_AGAIN
        unit.last_end = event.error
    elif event.unit in supervisor.state.orphaned:
        supervisor.record(records.EnginesReaped(supervisor.name, event.unit))

"""What is to be done, given what is wanted and what is known. Looks at everything after each event; remembers nothing.

Rules: engines stop before the controller; nothing is started while its unit or the controller is stopping; a slot goes to a
new launch only when no launch that may still run holds it; a slot is given up only when its engine is drained, gone, or out
of time; every wait has a deadline or an answer that must come.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, Literal

from clusterd.core.model.ids import CONTROLLER
from clusterd.core.supervisor import actions, records
from clusterd.core.supervisor.phases import Phase

if TYPE_CHECKING:
    from clusterd.core.supervisor.machine import Supervisor
    from clusterd.core.supervisor.state import Drain, Launch
    from clusterd.core.supervisor.watches import LaunchWatch

__all__ = ["next_deadline", "reconcile", "start_deadline"]

HURRY: Final = 3.0
"""Seconds between queries while somebody waits for the answer: something is stopping, or nobody knows whether it runs."""

KILL_AGAIN: Final = 5.0
"""Seconds between kills of what does not end: a process may hang in the kernel (NFS), a cancellation may get lost."""


def reconcile(supervisor: Supervisor) -> None:
    """Decide everything that follows from the present state."""
    _expire(supervisor)
    _controller(supervisor)
    for unit in supervisor.sets():
        _engine_set(supervisor, unit)
    for launch in list(supervisor.state.launches.values()):
        _drive_stop(supervisor, launch)
    for unit in dict.fromkeys([CONTROLLER, *supervisor.sets(), *supervisor.units]):
        _query(supervisor, unit)


def next_deadline(supervisor: Supervisor) -> float | None:
    """Return the earliest time at which `reconcile` would do something by itself."""
    times: list[float | None] = []
    for launch_id, watch in supervisor.launches.items():
        times += [
            watch.kill_at,
            watch.adopt_at,
            start_deadline(supervisor, supervisor.state.launches[launch_id], watch),
        ]
    for unit in supervisor.units.values():
        times += [unit.retry_at, None if unit.is_querying else unit.query_at, unit.reap_at]
    for name in supervisor.state.draining:
        times += [drain.deadline(supervisor.now) for drain in _drains_that_can_end(supervisor, name).values()]
    return min((time for time in times if time is not None and time < inf), default=None)


def start_deadline(supervisor: Supervisor, launch: Launch, watch: LaunchWatch) -> float | None:
    """Return when a launch must have become ready.

    Counts from running: time in a queue is nobody's fault. An agent can only report through the controller, so it also
    counts from that being reachable, and stands still while it is not.
    """
    if launch.is_confirmed or launch.is_stopping or watch.phase is not Phase.PRESENT or watch.running_since is None:
        return None
    begin = watch.running_since
    if launch.unit != CONTROLLER:
        reachable = [supervisor.launches[c.id].reachable_since for c in supervisor.state.of_unit(CONTROLLER)]
        if not reachable or reachable[-1] is None:
            return None
        begin = max(begin, reachable[-1])
    return begin + supervisor.unit_settings(launch.unit).start_timeout


def _expire(supervisor: Supervisor) -> None:
    now = supervisor.now
    for launch in list(supervisor.state.launches.values()):
        watch = supervisor.launches[launch.id]
        deadline = start_deadline(supervisor, launch, watch)
        if deadline is not None and now >= deadline:
            timeout = supervisor.unit_settings(launch.unit).start_timeout
            supervisor.stop(launch, f"not ready within {timeout:g} s", is_failure=True)
        if watch.adopt_at is not None and now >= watch.adopt_at:
            watch.adopt_at = None
            supervisor.act(actions.Adopt(launch.id, launch.unit, launch.identity))
    for unit in supervisor.units.values():
        if unit.retry_at is not None and now >= unit.retry_at:
            unit.retry_at = None
        if unit.reap_at is not None and now >= unit.reap_at:
            unit.reap_at = None


def _controller(supervisor: Supervisor) -> None:
    state = supervisor.state
    launches = state.of_unit(CONTROLLER)
    if not state.is_wanted:
        if not state.orphaned and all(launch.unit == CONTROLLER for launch in state.launches.values()):
            for launch in launches:
                supervisor.stop(launch, "the cluster is stopped")
    elif not launches and _may_start(supervisor, CONTROLLER):
        supervisor.intend(CONTROLLER, (), 0)


def _may_start(supervisor: Supervisor, unit: str) -> bool:
    return unit not in supervisor.state.halted and supervisor.unit(unit).retry_at is None


def _engine_set(supervisor: Supervisor, unit: str) -> None:
    state = supervisor.state
    if not state.is_wanted:
        for launch in state.of_unit(unit):
            supervisor.stop(launch, "the cluster is stopped")
    else:
        wish = state.desired.get(unit)
        wanted = set(wish.slots) if wish is not None else set()
        given_up = _drain(supervisor, unit, wanted)
        # What is to be replaced has first to go.
        wanted -= {slot for slot, drain in state.draining.get(unit, {}).items() if drain.is_given_up}
        _assign(supervisor, unit, wanted, given_up)
        _launch(supervisor, unit, wanted)
    _reap(supervisor, unit)


def _kept(supervisor: Supervisor, unit: str) -> set[int]:
    """Return the slots of launches that are to go on."""
    return {slot for launch in supervisor.state.of_unit(unit) if not launch.is_stopping for slot in launch.slots}


def _drains_that_can_end(supervisor: Supervisor, unit: str) -> dict[int, Drain]:
    """Return the drained slots whose engines somebody can be told to end."""
    held = _kept(supervisor, unit)
    drains = supervisor.state.draining.get(unit, {})
    return {slot: drain for slot, drain in drains.items() if slot in held and not drain.is_given_up}


def _drain(supervisor: Supervisor, unit: str, wanted: set[int]) -> set[int]:
    """See to the slots that are held and not wanted any more, or are to be replaced; return those that can be given up now."""
    watch = supervisor.unit(unit)
    _end_drains(supervisor, unit, wanted)
    drains = supervisor.state.draining.get(unit, {})
    new = tuple(sorted(_kept(supervisor, unit) - wanted - drains.keys()))
    patience, watch.patience = watch.patience, None
    if new:
        if patience is None:
            patience = supervisor.unit_settings(unit).drain_timeout
        supervisor.record(records.DrainIntended(supervisor.name, unit, new, supervisor.now, patience))
        supervisor.act(actions.Drain(unit, new))
    watch.drained &= supervisor.state.draining.get(unit, {}).keys()
    open_drains = _drains_that_can_end(supervisor, unit)
    over = {slot for slot, drain in open_drains.items() if supervisor.now >= drain.deadline(supervisor.now)}
    given_up = over | {slot for slot in _empty(supervisor, unit) if slot not in wanted} | watch.drained
    given_up &= open_drains.keys()
    for slot in sorted(given_up & wanted):
        drain = open_drains[slot]
        supervisor.record(
            records.DrainIntended(
                supervisor.name, unit, (slot,), drain.began, drain.patience, is_replaced=True, is_given_up=True
            )
        )
    return given_up


def _end_drains(supervisor: Supervisor, unit: str, wanted: set[int]) -> None:
    """Forget the drains that are over, or without an object."""
    drains = supervisor.state.draining.get(unit, {})
    kept, held = _kept(supervisor, unit), _held(supervisor, unit)
    after_all = [s for s, drain in drains.items() if s in wanted and s in kept and not drain.is_replaced]
    # Of one that died by itself its agent has made another already.
    is_new = [s for s in _empty(supervisor, unit) if s in wanted and drains[s].is_replaced]
    gone = [s for s, drain in drains.items() if s not in (held if drain.is_given_up else kept | wanted)]
    if ended := tuple(sorted({*after_all, *is_new, *gone})):
        supervisor.record(records.DrainEnded(supervisor.name, unit, ended))
    if after_all:
        supervisor.act(actions.Drain(unit, tuple(sorted(after_all)), is_draining=False))


def _empty(supervisor: Supervisor, unit: str) -> list[int]:
    """Return the drained slots whose engine died meanwhile; an older look would not have shown one that had just come."""
    seen = supervisor.unit(unit).engines
    return [
        slot
        for slot, drain in supervisor.state.draining.get(unit, {}).items()
        if seen is not None
        and not drain.is_given_up
        and seen.is_newer_than(min(drain.began, supervisor.now))
        and slot not in seen.value
    ]


def _assign(supervisor: Supervisor, unit: str, wanted: set[int], given_up: set[int]) -> None:
    """Change what existing launches hold: take away what is given up, add what is free and fits."""
    state, watch = supervisor.state, supervisor.unit(unit)
    capacity = supervisor.unit_settings(unit).traits.capacity
    for launch in state.of_unit(unit):
        if launch.is_stopping:
            continue
        slots = [slot for slot in launch.slots if slot not in given_up]
        free = sorted(wanted - _held(supervisor, unit, apart_from=launch))
        room = len(free) if capacity is None else max(0, capacity - len(slots))
        slots = sorted(slots + free[:room])
        if not slots:
            supervisor.stop(launch, "none of its engines is wanted any more")
        elif slots != list(launch.slots):
            generation = state.desired[unit].generation + 1
            lingering = tuple(sorted({*launch.slots, *launch.lingering} - set(slots)))
            supervisor.record(records.SlotsAssigned(supervisor.name, launch.id, tuple(slots), generation, lingering))
            # An agent that has not reported yet is told when it does: its report will show an older generation.
            if supervisor.launches[launch.id].reported_generation >= 0:
                supervisor.act(actions.SetDesired(launch.id, unit, generation, tuple(slots)))
    watch.drained -= given_up
    if left := tuple(sorted(given_up - wanted)):
        replaced = {slot for slot, drain in state.draining.get(unit, {}).items() if drain.is_given_up}
        if ended := tuple(slot for slot in left if slot not in replaced):
            supervisor.record(records.DrainEnded(supervisor.name, unit, ended))


def _launch(supervisor: Supervisor, unit: str, wanted: set[int]) -> None:
    """Make launches for the slots that no launch holds."""
    state = supervisor.state
    free = sorted(wanted - _held(supervisor, unit))
    # Engines without a controller could do nothing, and one that is stopping would take them in only to lose them.
    controllers = state.of_unit(CONTROLLER)
    if not free or not controllers or controllers[-1].is_stopping or not _may_start(supervisor, unit):
        return
    capacity = supervisor.unit_settings(unit).traits.capacity
    if capacity is None:
        if state.of_unit(unit):
            return  # one agent for all; the one there is, is stopping
        capacity = len(free)
    for first in range(0, len(free), capacity):
        supervisor.intend(unit, tuple(free[first : first + capacity]), state.desired[unit].generation)


def _held(supervisor: Supervisor, unit: str, *, apart_from: Launch | None = None) -> set[int]:
    """Return the slots of all launches that may still run, stopping ones and what they have not given up yet included.

    Args:
        supervisor: whose.
        unit: an engine set.
        apart_from: a launch that may have back what it has not given up yet.
    """
    held = set[int]()
    for launch in supervisor.state.of_unit(unit):
        held.update(launch.slots)
        if apart_from is None or launch.id != apart_from.id:
            held.update(launch.lingering)
    return held


def _reap(supervisor: Supervisor, unit: str) -> None:
    """End engines that no agent will come for."""
    state, watch = supervisor.state, supervisor.unit(unit)
    wish = state.desired.get(unit)
    is_wanted = state.is_wanted and wish is not None and wish.n > 0
    if unit in state.orphaned and not is_wanted and not state.of_unit(unit):
        if not watch.is_reaping and watch.reap_at is None:
            watch.is_reaping = True
            supervisor.act(actions.Reap(unit))
    elif unit not in state.orphaned:
        watch.reap_at = None


def _drive_stop(supervisor: Supervisor, launch: Launch) -> None:
    """Send the signals to a launch that is to end, as far as it is known to exist."""
    launch = supervisor.state.launches[launch.id]
    watch = supervisor.launches[launch.id]
    if not launch.is_stopping or watch.phase is not Phase.PRESENT:
        return
    how: Literal["term", "kill"] = "term"
    if watch.kill_at is None:
        watch.kill_at = supervisor.now + supervisor.unit_settings(launch.unit).stop_timeout
    elif supervisor.now >= watch.kill_at:
        how = "kill"
        watch.kill_at = supervisor.now + KILL_AGAIN
    else:
        return
    if launch.identity is None and not launch.job:
        # It has spoken, but the answer that gives its identity or job id is still on its way.
        supervisor.act(actions.Dismiss(launch.id))
    else:
        supervisor.act(actions.Stop(launch.id, launch.unit, how, launch.identity, launch.job))


def _query(supervisor: Supervisor, unit: str) -> None:
    """Ask the batch system at intervals, as long as there are jobs or may be strays."""
    state, watch = supervisor.state, supervisor.unit(unit)
    traits = supervisor.unit_settings(unit).traits
    has_jobs = any(launch.is_job for launch in state.of_unit(unit))
    if not has_jobs and not (state.is_wanted and traits.has_queue):
        watch.query_at = None
    elif watch.query_at is None:
        watch.query_at = supervisor.now + traits.poll_interval
    if watch.query_at is not None and any(
        launch.is_stopping or supervisor.launches[launch.id].phase is Phase.UNRESOLVED for launch in state.of_unit(unit)
    ):
        watch.query_at = min(watch.query_at, supervisor.now + HURRY)
    if watch.query_at is not None and supervisor.now >= watch.query_at and not watch.is_querying:
        watch.is_querying = True
        supervisor.act(actions.Query(unit))

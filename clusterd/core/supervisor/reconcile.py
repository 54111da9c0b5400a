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
from clusterd.core.supervisor.watches import Draining

if TYPE_CHECKING:
    from clusterd.core.supervisor.machine import Supervisor
    from clusterd.core.supervisor.state import Launch
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
        times += [draining.deadline for draining in unit.draining.values()]
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
        supervisor.unit(unit).draining.clear()
        for launch in state.of_unit(unit):
            supervisor.stop(launch, "the cluster is stopped")
    else:
        wish = state.desired.get(unit)
        wanted = set(wish.slots) if wish is not None else set()
        given_up = _drain(supervisor, unit, wanted)
        _assign(supervisor, unit, wanted, given_up)
        _launch(supervisor, unit, wanted)
    _reap(supervisor, unit)


def _drain(supervisor: Supervisor, unit: str, wanted: set[int]) -> set[int]:
    """See to the slots that are held but not wanted any more; return those that can be given up now."""
    watch = supervisor.unit(unit)
    surplus = {
        slot for launch in supervisor.state.of_unit(unit) if not launch.is_stopping for slot in launch.slots
    } - wanted
    kept_after_all = sorted((watch.draining.keys() - surplus) & wanted)
    for slot in watch.draining.keys() - surplus:
        del watch.draining[slot]
    watch.drained &= watch.draining.keys()
    if kept_after_all:
        supervisor.act(actions.Drain(unit, tuple(kept_after_all), is_draining=False))
    new = sorted(surplus - watch.draining.keys())
    if new:
        patience = watch.patience
        if patience is None:
            patience = supervisor.unit_settings(unit).drain_timeout
        deadline = inf if patience is None else supervisor.now + patience
        watch.draining.update(dict.fromkeys(new, Draining(supervisor.now, deadline)))
        supervisor.act(actions.Drain(unit, tuple(new)))
    over = {slot for slot, draining in watch.draining.items() if supervisor.now >= draining.deadline}
    # An engine that died while it was drained; an older look would not have shown one that had just come.
    seen = watch.engines
    empty = {
        slot
        for slot, draining in watch.draining.items()
        if seen is not None and seen.is_newer_than(draining.began) and slot not in seen.value
    }
    return over | empty | watch.drained


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
    for slot in given_up:
        watch.draining.pop(slot, None)
        watch.drained.discard(slot)


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

"""What must hold after every event, whatever happened. Tests call `check`; it costs too much for the product."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from clusterd.core.model.ids import CONTROLLER, parse_launch
from clusterd.core.supervisor import actions, records
from clusterd.core.supervisor.phases import Phase
from clusterd.core.supervisor.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.core.supervisor.machine import Supervisor

__all__ = ["InvariantBroken", "check", "check_actions"]


class InvariantBroken(AssertionError):
    """The supervisor contradicts itself."""


def check(supervisor: Supervisor) -> None:
    """Check the state between two events.

    Raises:
        InvariantBroken: naming the invariant.
    """
    state = supervisor.state
    _require(supervisor.launches.keys() == state.launches.keys(), "each launch has exactly one watch")
    for unit in dict.fromkeys(launch.unit for launch in state.launches.values()):
        launches = state.of_unit(unit)
        held = [slot for launch in launches for slot in launch.slots]
        _require(len(held) == len(set(held)), f"{unit}: a slot is assigned to one launch only")
        capacity = supervisor.unit_settings(unit).traits.capacity
        is_single = unit == CONTROLLER or (capacity is None and unit in supervisor.settings.sets)
        _require(not is_single or len(launches) == 1, f"{unit}: there is one launch at a time")
    for launch in state.launches.values():
        watch = supervisor.launches[launch.id]
        name = parse_launch(launch.id)
        _require(name is not None and name.number < state.next_number, f"{launch.id}: numbers are used once")
        _require(watch.phase is not Phase.ENDED, f"{launch.id}: what ended is forgotten")
        _require(launch.unit == CONTROLLER or bool(launch.slots) or launch.is_stopping, f"{launch.id}: holds something")
        _require(not (launch.identity is not None and launch.job), f"{launch.id}: is a process or a job")
        if launch.is_stopping and watch.phase is Phase.PRESENT:
            _require(watch.kill_at is not None, f"{launch.id}: a stop has a deadline")
        if watch.phase is Phase.REQUESTED:
            _require(watch.absent_after == inf, f"{launch.id}: nothing proves the absence of what is on its way")
        is_waiting_job = launch.is_job and watch.phase in (Phase.UNRESOLVED, Phase.PRESENT)
        unit_watch = supervisor.units.get(launch.unit)
        if is_waiting_job:
            is_asked = unit_watch is not None and (unit_watch.is_querying or unit_watch.query_at is not None)
            _require(is_asked, f"{launch.id}: somebody will ask for the job")
    if not state.is_wanted:
        _require(all(launch.is_stopping for launch in state.launches.values() if launch.unit != CONTROLLER), "all stop")
    _require(state.is_wanted or not state.draining, "nothing is drained that is to be stopped")
    for unit, drains in state.draining.items():
        kept = {slot for launch in state.of_unit(unit) if not launch.is_stopping for slot in launch.slots}
        given_up = {slot for slot, drain in drains.items() if drain.is_given_up}
        _require(bool(drains), f"{unit}: no empty entry")
        _require(not (given_up & kept), f"{unit}: what is given up is nobody's until it is gone")
    copy = State()
    for record in state.snapshot():
        copy.apply(record)
    _require(vars(copy) == vars(state), "a snapshot is the state")


def check_actions(supervisor: Supervisor, done: Sequence[actions.Action]) -> None:
    """Check what one `handle` returned.

    Raises:
        InvariantBroken: naming the invariant.
    """
    is_act_seen = False
    intended = set()
    for action in done:
        if isinstance(action, actions.Append):
            _require(not is_act_seen, "records come before acts")
            if isinstance(action.record, records.LaunchIntended):
                intended.add(action.record.launch)
        else:
            is_act_seen = True
        if isinstance(action, actions.Start | actions.Submit):
            _require(action.launch in intended, f"{action.launch}: the intent is recorded before the act")
            _require(supervisor.state.is_wanted, f"{action.launch}: nothing is started while the cluster stops")
            if action.unit != CONTROLLER:
                controllers = supervisor.state.of_unit(CONTROLLER)
                is_served = bool(controllers) and not controllers[-1].is_stopping
                _require(is_served, f"{action.launch}: engines are started for a controller that stays")
        if isinstance(action, actions.Stop):
            launch = supervisor.state.launches.get(action.launch)
            _require(launch is not None and launch.is_stopping, f"{action.launch}: only what is to end is signalled")


def _require(condition: bool, invariant: str) -> None:  # noqa: FBT001 - reads like a sentence
    if not condition:
        raise InvariantBroken(invariant)

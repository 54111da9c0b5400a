"""What people ask of the supervisor: checked, recorded as a wish, answered. Whatever then has to happen is reconcile's.

A command is refused before anything is recorded, or it is recorded as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from clusterd.core.model import ids
from clusterd.core.model.desired import DesiredSet
from clusterd.core.model.slots import format_slots
from clusterd.core.supervisor import actions, events, records
from clusterd.core.supervisor.victims import choose_victims

if TYPE_CHECKING:
    from clusterd.core.supervisor.machine import Supervisor

__all__ = ["take"]


def take(supervisor: Supervisor, command: events.CommandEvent) -> None:
    """Carry out one command, as far as wishes go."""
    match command:
        case events.StartRequested():
            _start(supervisor, command)
        case events.StopRequested():
            # Who stops a cluster that is paused means more than a pause.
            if supervisor.state.is_wanted or (supervisor.state.is_paused and not command.is_pause):
                supervisor.record(records.RunChanged(supervisor.name, is_wanted=False, is_pause=command.is_pause))
            _answer(supervisor, command.request)
        case events.ScaleRequested():
            _scale(supervisor, command)
        case events.DrainRequested():
            _drain(supervisor, command)
        case events.RestartRequested():
            _restart(supervisor, command)
        case events.ResumeRequested():
            _resume(supervisor, command)
        case events.ProfileChanged():
            _change_profile(supervisor, command)
        case _ as unreachable:
            assert_never(unreachable)


def _start(supervisor: Supervisor, command: events.StartRequested) -> None:
    for unit, n in command.n.items():
        if refusal := _refusal(supervisor, unit, n):
            supervisor.act(actions.Refuse(command.request, *refusal))
            return
    if not supervisor.state.is_wanted:
        supervisor.record(records.RunChanged(supervisor.name, is_wanted=True))
        for unit in [ids.CONTROLLER, *supervisor.sets()]:
            supervisor.resume(unit)
        for unit, settings in supervisor.settings.sets.items():
            n, last = command.n.get(unit, settings.n), supervisor.state.desired.get(unit)
            # Nothing of the last run is wanted any more, its holes included.
            wish = DesiredSet(n, 1 if last is None else last.generation + 1)
            supervisor.record(records.DesiredChanged(supervisor.name, unit, wish))
    else:
        for unit, settings in supervisor.settings.sets.items():
            if unit in command.n or unit not in supervisor.state.desired:
                _wish(supervisor, unit, command.n.get(unit, settings.n))
    _answer(supervisor, command.request)


def _scale(supervisor: Supervisor, command: events.ScaleRequested) -> None:
    if refusal := _refusal(supervisor, command.engine_set, command.n):
        supervisor.act(actions.Refuse(command.request, *refusal))
        return
    if not supervisor.state.is_wanted:
        message = f"cluster {supervisor.name} is stopped"
        supervisor.act(actions.Refuse(command.request, message, f"start it with so many: start -n {command.n}"))
        return
    supervisor.unit(command.engine_set).patience = command.drain_timeout
    _wish(supervisor, command.engine_set, command.n)
    _answer(supervisor, command.request)


def _drain(supervisor: Supervisor, command: events.DrainRequested) -> None:
    state = supervisor.state
    for unit, slots in command.slots.items():
        if refusal := _drain_refusal(supervisor, unit, slots, is_replaced=command.is_replaced):
            supervisor.act(actions.Refuse(command.request, *refusal))
            return
    told: list[actions.Drain] = []
    for unit, slots in command.slots.items():
        watch = supervisor.unit(unit)
        watch.patience = command.drain_timeout
        if not command.is_replaced:
            if wanted := sorted(set(slots).intersection(state.desired[unit].slots)):
                supervisor.record(records.DesiredChanged(supervisor.name, unit, state.desired[unit].without(wanted)))
            continue
        held = {slot for launch in state.of_unit(unit) if not launch.is_stopping for slot in launch.slots}
        # Where no engine can be, the next one is a new one anyway.
        if occupied := tuple(sorted(held.intersection(slots))):
            patience = supervisor.unit_settings(unit).drain_timeout if watch.patience is None else watch.patience
            supervisor.record(
                records.DrainIntended(supervisor.name, unit, occupied, supervisor.now, patience, is_replaced=True)
            )
            told.append(actions.Drain(unit, occupied))
    _answer(supervisor, command.request)
    for action in told:
        supervisor.act(action)


def _drain_refusal(
    supervisor: Supervisor, unit: str, slots: tuple[int, ...], *, is_replaced: bool
) -> tuple[str, str] | None:
    state = supervisor.state
    if not state.is_wanted:
        return f"cluster {supervisor.name} is stopped: it has no engines", ""
    wish = state.desired.get(unit)
    if wish is None or unit not in supervisor.settings.sets:
        return f"there is no engine set {unit!r} in profile {supervisor.name}", ""
    strangers = sorted(set(slots) - set(wish.slots))
    going = state.draining.get(unit, {}).keys()
    if not is_replaced:
        # Asked for once more, because the answer was lost or somebody was impatient: it is being done.
        strangers = [slot for slot in strangers if slot not in going]
    if not strangers:
        return None
    names = format_slots(unit, strangers)
    if set(strangers) <= going:
        return f"{names}: is on its way out already", "to have more engines again: clusterctl scale"
    return f"{names}: not wanted, so there is nothing to drain", "clusterctl engines lists those that are"


def _restart(supervisor: Supervisor, command: events.RestartRequested) -> None:
    units = _named_units(supervisor, command.request, command.unit)
    if units and not supervisor.state.is_wanted:
        message = f"cluster {supervisor.name} is stopped"
        supervisor.act(actions.Refuse(command.request, message, "start it instead: start"))
        return
    for unit in units:
        supervisor.resume(unit)
        for launch in supervisor.state.of_unit(unit):
            supervisor.stop(launch, "a restart was asked for")
    if units:
        _answer(supervisor, command.request)


def _resume(supervisor: Supervisor, command: events.ResumeRequested) -> None:
    units = _named_units(supervisor, command.request, command.unit)
    if units:
        _answer(supervisor, command.request)
    for unit in units:
        supervisor.resume(unit)
        for launch in supervisor.state.of_unit(unit):
            if unit != ids.CONTROLLER and not launch.is_stopping:
                supervisor.act(actions.ResumeSlots(launch.id))


def _change_profile(supervisor: Supervisor, command: events.ProfileChanged) -> None:
    before, supervisor.settings = supervisor.settings, command.settings
    for unit, watch in supervisor.units.items():
        watch.restarts.policy = supervisor.unit_settings(unit).restart
    for unit, desired in list(supervisor.state.desired.items()):
        if unit not in command.settings.sets and desired.n:
            _wish(supervisor, unit, 0)
    if not supervisor.state.is_wanted:
        return
    for unit, settings in command.settings.sets.items():
        old, known = before.sets.get(unit), supervisor.state.desired.get(unit)
        if old is None or known is None or old.n != settings.n:
            _wish(supervisor, unit, settings.n)
        elif known.n > settings.max:
            _wish(supervisor, unit, settings.max)


def _wish(supervisor: Supervisor, unit: str, n: int) -> None:
    """Record that a set is to have `n` engines; the same number as before is no new wish."""
    state = supervisor.state
    desired = state.desired.get(unit)
    if desired is None:
        supervisor.record(records.DesiredChanged(supervisor.name, unit, DesiredSet(n, 1)))
        return
    if n > desired.n:
        supervisor.record(records.DesiredChanged(supervisor.name, unit, desired.grown(n)))
    elif n < desired.n:
        seen = supervisor.unit(unit).engines
        engines = () if seen is None else seen.value.values()
        groups = None
        if supervisor.unit_settings(unit).traits.capacity is not None:
            groups = {slot: launch.id for launch in state.of_unit(unit) for slot in launch.slots}
        victims = choose_victims(desired.slots, engines, desired.n - n, groups)
        supervisor.record(records.DesiredChanged(supervisor.name, unit, desired.without(victims)))


def _refusal(supervisor: Supervisor, unit: str, n: int) -> tuple[str, str] | None:
    settings = supervisor.settings.sets.get(unit)
    if settings is None:
        known = ", ".join(sorted(supervisor.settings.sets))
        return f"there is no engine set {unit!r} in profile {supervisor.name}", f"it has: {known}"
    if n < 0:
        return f"{n} engines cannot be: the least is 0", ""
    if n > settings.max:
        return (
            f"{n} engines are more than the profile allows for {unit} (max: {settings.max})",
            "raise `max` in the profile, then reload",
        )
    return None


def _named_units(supervisor: Supervisor, request: int, unit: str) -> list[str]:
    """Return the units that a command means, engine sets last; refuse it and return none when there is no such unit."""
    known = [ids.CONTROLLER, *supervisor.sets()]
    if not unit:
        return known
    if unit in known:
        return [unit]
    supervisor.act(
        actions.Refuse(request, f"there is no {unit!r} in profile {supervisor.name}", f"it has: {', '.join(known)}")
    )
    return []


def _answer(supervisor: Supervisor, request: int) -> None:
    state = supervisor.state
    sets = {unit: {"n": wish.n, "generation": wish.generation} for unit, wish in state.desired.items()}
    supervisor.act(actions.Answer(request, {"is_wanted": state.is_wanted, "sets": sets}))

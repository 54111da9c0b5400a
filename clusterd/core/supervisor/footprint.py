"""What a command touches: the difference that it makes, read off two supervisors, one before and one after it.

A plan is the footprint of the command on a copy; the deed is the same command on the supervisor itself. Neither knows of the
other: whatever the decision rests on, they can only agree.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

from clusterd.core.model.ids import CONTROLLER
from clusterd.core.supervisor import actions

if TYPE_CHECKING:
    from clusterd.core.supervisor.events import CommandEvent
    from clusterd.core.supervisor.machine import Supervisor

__all__ = ["Footprint", "SetFootprint", "footprint", "plan"]

Fate: TypeAlias = Literal["", "ends", "restarts", "starts"]


class SetFootprint(Struct, frozen=True):
    """What becomes of one engine set; all slots ascending.

    Attributes:
        ends: slots whose engines are ended at once, with what they run.
        drains: slots whose engines get no new tasks, and end when they have none left or their time is over.
        starts: slots that get a new engine; also of `ends` and `drains`, where an engine is replaced.
        patience: seconds that the tasks of drained engines have; None: as long as they take.
    """

    ends: tuple[int, ...] = ()
    drains: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    patience: float | None = None


class Footprint(Struct, frozen=True):
    """What a command touches.

    Attributes:
        controller: what becomes of the controller; empty: it stays, or stays away.
        sets: all and only engine sets that are touched.
    """

    controller: Fate
    sets: dict[str, SetFootprint]


def plan(supervisor: Supervisor, command: CommandEvent, now: float) -> Footprint | actions.Refuse:
    """Return what a command would touch; the supervisor is as before."""
    after = copy.deepcopy(supervisor)
    decided = after.handle(command, now)
    refused = [action for action in decided if isinstance(action, actions.Refuse)]
    return refused[0] if refused else footprint(supervisor, after)


def footprint(before: Supervisor, after: Supervisor) -> Footprint:
    """Return what lies between two moments of one supervisor, of which the second followed from one command."""
    sets = {}
    for unit in dict.fromkeys([*before.sets(), *after.sets()]):
        touched = _of_set(before, after, unit)
        if touched.ends or touched.drains or touched.starts:
            sets[unit] = touched
    return Footprint(_of_controller(before, after), sets)


def _of_controller(before: Supervisor, after: Supervisor) -> Fate:
    running = [launch.id for launch in before.state.of_unit(CONTROLLER) if not launch.is_stopping]
    if not after.state.is_wanted:
        # It ends last: when no engine is left.
        return "ends" if before.state.is_wanted and before.state.of_unit(CONTROLLER) else ""
    if not running:
        return "starts" if not before.state.is_wanted or not before.state.of_unit(CONTROLLER) else ""
    kept = {launch.id for launch in after.state.of_unit(CONTROLLER) if not launch.is_stopping}
    return "" if set(running) <= kept else "restarts"


def _of_set(before: Supervisor, after: Supervisor, unit: str) -> SetFootprint:
    held = _slots(before, unit)
    kept = _slots(after, unit)
    old, new = before.state.draining.get(unit, {}), after.state.draining.get(unit, {})
    drains = {slot for slot, drain in new.items() if slot in kept and drain != old.get(slot)}
    ends = held - kept
    for launch in before.state.of_unit(unit):
        successor = after.state.launches.get(launch.id)
        if not launch.is_stopping and (successor is None or successor.is_stopping):
            ends.update(launch.slots)
    wish = after.state.desired.get(unit)
    wanted = set(wish.slots) if after.state.is_wanted and wish is not None else set[int]()
    replaced = {slot for slot in drains if new[slot].is_replaced and slot in wanted}
    was = before.state.desired.get(unit)
    wanted_before = set(was.slots) if before.state.is_wanted and was is not None else set[int]()
    starts = ((wanted - wanted_before) - held) | (wanted & ends) | replaced
    patience = next((new[slot].patience for slot in sorted(drains)), None)
    return SetFootprint(tuple(sorted(ends)), tuple(sorted(drains)), tuple(sorted(starts)), patience)


def _slots(supervisor: Supervisor, unit: str) -> set[int]:
    return {slot for launch in supervisor.state.of_unit(unit) if not launch.is_stopping for slot in launch.slots}

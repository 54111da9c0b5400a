"""Tells people what the supervisor decided, from its records, once they are durable: the journal in words.

What is told elsewhere with more (a process that was started or ended) is left out here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from clusterd.core.model.ids import CONTROLLER
from clusterd.core.model.slots import format_slots
from clusterd.core.supervisor import records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterd.core.supervisor.state import State
    from clusterd.daemon.story import Story

__all__ = ["RecordStory"]


class RecordStory:
    """Tells of records; knows what was wished before, because a wish is told as a difference."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._wanted: dict[str, tuple[int, ...]] = {}
        self._units: dict[str, str] = {}

    def begin(self, state: State) -> None:
        """Take the state that the journal gave."""
        self._wanted = {unit: wish.slots for unit, wish in state.desired.items()}
        self._units = {launch.id: launch.unit for launch in state.launches.values()}

    def tell(self, batch: Iterable[records.Record]) -> None:  # noqa: C901 - one case per kind of record
        """Tell of the records of one decision."""
        for record in batch:
            match record:
                case records.RunChanged():
                    self._say("run_changed", "the cluster is to run" if record.is_wanted else "the cluster is to stop")
                case records.DesiredChanged():
                    self._wish(record)
                case records.DrainIntended():
                    self._drain(record)
                case records.LaunchIntended():
                    self._units[record.launch] = record.unit
                case records.LaunchConfirmed():
                    unit = self._units.get(record.launch, "")
                    self._say("launch_ready", f"the {_process(unit)} is ready", unit=unit, launch=record.launch)
                case records.StopIntended():
                    self._stop(record)
                case records.LaunchEnded():
                    self._units.pop(record.launch, None)
                case records.UnitOrphaned():
                    text = f"engines of {record.unit} may go on without an agent"
                    self._say("engines_orphaned", text, unit=record.unit)
                case records.EnginesReaped():
                    self._say(
                        "engines_reaped", f"no engine of {record.unit} is left without an agent", unit=record.unit
                    )
                case records.UnitHalted():
                    name = _process(record.unit)
                    text = f"the {name} is not started any more: {record.reason}"
                    self._say("halted", text, level=logging.ERROR, unit=record.unit, cause=record.reason)
                case records.UnitResumed():
                    self._say("resumed", f"the {_process(record.unit)} may be started again", unit=record.unit)

    def _wish(self, record: records.DesiredChanged) -> None:
        unit, slots = record.engine_set, record.desired.slots
        before = self._wanted.get(unit, ())
        self._wanted[unit] = slots
        added, dropped = sorted(set(slots) - set(before)), sorted(set(before) - set(slots))
        if not added and not dropped:
            return
        parts = [f"new: {format_slots(unit, added)}"] if added else []
        parts += [f"no more: {format_slots(unit, dropped)}"] if dropped else []
        text = f"{len(slots)} engines are wished in {unit} ({'; '.join(parts)})"
        self._say("wish_changed", text, unit=unit, slots=[*added, *dropped])

    def _drain(self, record: records.DrainIntended) -> None:
        names = format_slots(record.engine_set, record.slots)
        if record.is_given_up:
            return
        time = "" if record.patience is None else f", after {record.patience:g} s at the latest"
        then = " Then each is replaced." if record.is_replaced else ""
        text = f"{names}: no new tasks; to end when there is none left{time}.{then}"
        self._say("draining", text, unit=record.engine_set, slots=list(record.slots))

    def _stop(self, record: records.StopIntended) -> None:
        unit = self._units.get(record.launch, "")
        level = logging.WARNING if record.is_failure else logging.INFO
        text = f"the {_process(unit)} is to end: {record.reason}"
        self._say("launch_to_end", text, level=level, unit=unit, launch=record.launch)

    def _say(self, event: str, text: str, **fields: Any) -> None:
        self._story.tell(event, text, **fields)


def _process(unit: str) -> str:
    return unit if unit == CONTROLLER else f"agent of {unit}"

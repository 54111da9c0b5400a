"""Makes the story of one engine, agent, set or controller out of what was told: its steps, and the first that was not as it should be.

Pure functions over events. A trouble begins with the first abnormal step after the last time that all was well: what was ready,
and stayed so for `HEALTHY_AFTER` seconds, has left earlier troubles behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from clusterd.core.model.ids import CONTROLLER, parse_slot
from clusterd.core.supervisor.restart import HEALTHY_AFTER
from clusterd.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Subject", "is_about", "is_named", "parse", "story_of"]

STEPS: Final = 60
"""Steps that are told; older ones are counted. A crash loop of a night would hide the present otherwise."""

# What makes the parts of a cluster ready for work.
_READY: Final = {
    "engine": frozenset({"engine_ready"}),
    "agent": frozenset({"agent_attached", "launch_ready"}),
    "set": frozenset({"engine_ready"}),
    "controller": frozenset({"controller_ready"}),
}
_DAEMON: Final = frozenset(
    {
        "daemon_started",
        "ends",
        "run_changed",
        "reloaded",
        "reload_refused",
        "journal_broken",
        "journal_repaired",
        "missed",
    }
)
"""About everything."""


class Subject(NamedTuple):
    """What is to be explained.

    Attributes:
        kind: engine, set, agent or controller.
        unit: the engine set, or `controller`.
        slot: of the engine; -1 where none is meant.
    """

    kind: str
    unit: str
    slot: int = -1

    def __str__(self) -> str:
        if self.kind == "engine":
            return f"{self.unit}/{self.slot}"
        return f"agent/{self.unit}" if self.kind == "agent" else self.unit


def parse(text: str, sets: Sequence[str]) -> Subject:
    """Understand what people name: `engines/3`, `3`, a set, `agent` or `agent/SET`, `controller`.

    Raises:
        ControlError: code `not_found`: there is no such thing.
    """
    if text == CONTROLLER:
        return Subject("controller", CONTROLLER)
    if text in sets:
        return Subject("set", text)
    kind, _, unit = text.partition("/")
    if kind in {"agent", "agents"}:
        if not unit and len(sets) == 1:
            return Subject("agent", sets[0])
        if unit in sets:
            return Subject("agent", unit)
    try:
        slot = parse_slot(text)
    except ValueError:
        slot = None
    if slot is not None and slot.engine_set in sets:
        return Subject("engine", slot.engine_set, slot.number)
    known = ", ".join([CONTROLLER, *(f"{name}/NUMBER" for name in sets), *sets, *(f"agent/{name}" for name in sets)])
    raise ControlError(f"there is no `{text}` here", code="not_found", hint=f"what can be explained: {known}")


def is_about(event: dict[str, Any], subject: Subject) -> bool:
    """Say whether an event belongs to the story of the subject."""
    unit, slots = event.get("unit"), event.get("slots")
    if event["event"] in _DAEMON:
        return True
    if event["event"] == "command":
        # A wish for everything, or for this unit, or for one of its engines.
        return unit in {None, "", "all", subject.unit} and (slots is None or subject.slot in {-1, *slots})
    if unit == CONTROLLER:
        # Without a controller nothing goes on.
        return True
    if unit != subject.unit:
        return False
    if subject.kind == "agent":
        return slots is None
    return slots is None or subject.slot == -1 or subject.slot in slots


def is_named(event: dict[str, Any], subject: Subject) -> bool:
    """Say whether an event names the subject's very slot."""
    return event.get("unit") == subject.unit and subject.slot in event.get("slots", ())


def story_of(subject: Subject, events: Iterable[dict[str, Any]], *, is_well: bool) -> dict[str, Any]:
    """Return the story.

    Args:
        subject: of whom.
        events: all that are remembered, oldest first.
        is_well: it is now as it should be.

    Returns:
        `steps` (time, event, text, is_abnormal), `left_out` (how many older ones there are), `first_abnormal` (a step, null where
        nothing went wrong) and `is_over` (that trouble has passed).
    """
    steps = [
        {
            "time": event["time"],
            "event": event["event"],
            "text": event["text"],
            "is_abnormal": event.get("level") in {"warning", "error", "critical"},
        }
        for event in events
        if is_about(event, subject)
    ]
    first = _first_abnormal(steps, _READY[subject.kind])
    return {
        "steps": steps[-STEPS:],
        "left_out": max(0, len(steps) - STEPS),
        "first_abnormal": first,
        "is_over": first is not None and is_well,
    }


def _tells_why(step: dict[str, Any], first: dict[str, Any]) -> bool:
    # The controller sees a connection end a moment before the agent says what has become of the engine.
    is_next = step["time"] - first["time"] < 1.0
    return is_next and (first["event"], step["event"]) == ("engine_suspect", "engine_gone")


def _first_abnormal(steps: Sequence[dict[str, Any]], ready: frozenset[str]) -> dict[str, Any] | None:
    first: dict[str, Any] | None = None
    ready_at: float | None = None
    for step in steps:
        if step["event"] in ready:
            ready_at = step["time"]
        elif step["is_abnormal"]:
            is_new = first is None or (ready_at is not None and step["time"] - ready_at >= HEALTHY_AFTER)
            if is_new or (first is not None and _tells_why(step, first)):
                first = step
            ready_at = None
    return first

"""Tells what a command would touch: the supervisor's footprint of it, with engines by name, what they run, and whose it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from clusterd.core.model.ids import format_slot
from clusterd.core.wire.messages import EngineTasks
from clusterd.daemon.footprints import named
from clusterd.daemon.status import engine_list
from clusterd.errors import ClusterdError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterd.core.supervisor.footprint import Footprint
    from clusterd.daemon.loop import Daemon

__all__ = ["plan_of", "tasks_of"]

PATIENCE: Final = 2.0
"""Seconds that the controller has to say what its engines run; without its answer that is left out, and said to be."""


async def plan_of(daemon: Daemon, what: str, footprint: Footprint) -> dict[str, Any]:
    """Return what the command `what` would touch, with engines, tasks and owners."""
    listed = {(one["set"], one["slot"]): one for one in engine_list(daemon.driver.supervisor, daemon.roster)}
    engines = [
        _engine(unit, slot, "ends" if slot in touched.ends else "drains", listed.get((unit, slot), {}), touched.starts)
        for unit, touched in footprint.sets.items()
        for slot in sorted({*touched.ends, *touched.drains})
    ]
    ids = [engine["id"] for engine in engines if engine["id"] is not None]
    held = await tasks_of(daemon, ids) if ids else {}
    for engine in engines:
        found = held.get(engine["id"], {"tasks": None, "more": None})
        engine.update(tasks=found["tasks"], more_tasks=found["more"])
    return {
        "command": what,
        "touched": named(footprint),
        "engines": engines,
        "starts": [format_slot(unit, slot) for unit, touched in footprint.sets.items() for slot in touched.starts],
        "owners": _owners(engines),
        "are_tasks_known": all(engine["tasks"] is not None for engine in engines if engine["id"] is not None),
    }


async def tasks_of(daemon: Daemon, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Return what these engines hold, by wire id; nothing of those that the controller does not speak of in time."""
    if not daemon.link.is_up:
        return {}
    wanted = list(ids)
    try:
        async with asyncio.timeout(PATIENCE):
            value = await daemon.link.request(lambda number: EngineTasks(number, wanted))
    except (TimeoutError, ClusterdError):
        return {}
    return {int(wire_id): held for wire_id, held in value["engines"].items()}


def _engine(unit: str, slot: int, fate: str, entry: dict[str, Any], starts: tuple[int, ...]) -> dict[str, Any]:
    return {
        "engine": format_slot(unit, slot),
        "set": unit,
        "slot": slot,
        "fate": fate,
        "is_replaced": slot in starts,
        "id": entry.get("id"),
        "state": entry.get("state", "waiting"),
        "pid": entry.get("pid"),
    }


def _owners(engines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return whose tasks are touched, those with the most first."""
    owners: dict[str, dict[str, Any]] = {}
    for engine in engines:
        for task in engine["tasks"] or ():
            entry = owners.setdefault(task["owner"], {"owner": task["owner"], "running": 0, "waiting": 0})
            entry["running" if task["is_running"] else "waiting"] += 1
    return sorted(owners.values(), key=lambda entry: (-entry["running"], -entry["waiting"], entry["owner"]))

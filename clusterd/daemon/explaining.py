"""Answers `clusterctl explain`: the story of one part, how it is now, what it wrote last, and what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from clusterd.core.model.ids import CONTROLLER
from clusterd.daemon.engine_commands import resolve
from clusterd.daemon.explanation import Subject, is_named, parse, story_of
from clusterd.daemon.logs import LogFiles
from clusterd.daemon.planning import tasks_of
from clusterd.daemon.status import cluster_status, engine_list
from clusterd.errors import ControlError
from clusterd.system import clock

if TYPE_CHECKING:
    from clusterd.daemon.loop import Daemon

__all__ = ["explain"]

LINES: Final = 8
"""Of the log: enough for the end of a traceback."""


async def explain(daemon: Daemon, text: str) -> dict[str, Any]:
    """Return the story of what `text` names.

    Raises:
        ControlError: code `not_found`: it names nothing that is or was.
    """
    supervisor = daemon.driver.supervisor
    if text.startswith("id:"):
        [text] = [engine["engine"] for engine in resolve([text], engine_list(supervisor, daemon.roster))]
    subject = parse(text, supervisor.sets())
    now = _now(daemon, subject)
    story = story_of(subject, daemon.story.all(), is_well=now["is_well"])
    if now["state"] == "not wanted" and not any(is_named(event, subject) for event in daemon.story.all()):
        raise ControlError(
            f"there is and was no engine {subject}", code="not_found", hint="clusterctl engines lists them"
        )
    if now.get("id") is not None:
        held = (await tasks_of(daemon, [now["id"]])).get(now["id"], {"tasks": [], "more": 0})
        now |= {"tasks": held["tasks"], "more_tasks": held["more"]}
    return {"subject": str(subject), "kind": subject.kind, **now, **story, "output": await _output(daemon, subject)}


def _now(daemon: Daemon, subject: Subject) -> dict[str, Any]:
    seen = cluster_status(
        daemon.driver.supervisor,
        daemon.roster,
        heard_at=daemon.link.last_heard if daemon.link.is_up else None,
        link_problem=daemon.link.problem,
        now=clock.monotonic(),
    )
    unit = seen["controller"] if subject.unit == CONTROLLER else seen["engine_sets"].get(subject.unit, {})
    about: dict[str, Any] = {
        "state": unit.get("state", "stopped"),
        "reason": unit.get("reason", ""),
        "hint": unit.get("hint", ""),
        "is_well": unit.get("is_converged", True),
    }
    if subject.kind == "engine":
        engines = engine_list(daemon.driver.supervisor, daemon.roster)
        entry = next((one for one in engines if (one["set"], one["slot"]) == subject[1:]), None)
        about |= _engine_now(daemon.places.name, entry, unit)
    elif subject.kind == "agent":
        launch = unit["launches"][-1] if unit.get("launches") else None
        if launch is not None:
            state = {"ready": "running"}.get(launch["state"], launch["state"])
            about |= {"state": state, "reason": launch["reason"] or about["reason"], "process": launch["pid"]}
            about["is_well"] = state == "running"
    return about


def _engine_now(name: str, entry: dict[str, Any] | None, unit: dict[str, Any]) -> dict[str, Any]:
    if entry is None:
        reason = f"the set has {unit.get('desired', 0)} engines now, and this is none of them"
        return {"state": "not wanted", "reason": reason, "hint": "", "is_well": True}
    about: dict[str, Any] = {
        key: entry[key] for key in ("state", "reason", "restarts", "id", "pid", "host", "since") if key in entry
    }
    about["is_well"] = entry["state"] in {"idle", "busy", "draining", "running"}
    about["hint"] = ""
    if entry["state"] == "crash-loop":
        about["hint"] = f"when the cause is repaired: clusterctl -p {name} resume {entry['set']} {entry['slot']}"
    elif not about["is_well"]:
        # What keeps the whole set waiting keeps this engine waiting.
        about["reason"] = entry["reason"] or unit.get("reason", "")
        about["hint"] = unit.get("hint", "")
    return about


async def _output(daemon: Daemon, subject: Subject) -> list[str]:
    name = {
        "engine": f"engine-{subject.unit}-{subject.slot}",
        "agent": f"agent-{subject.unit}",
        "controller": CONTROLLER,
    }.get(subject.kind)
    if name is None:
        return []
    files = LogFiles(daemon.places.logs, re.compile(re.escape(f"{name}.log")))
    return [line["line"] async for line in files.lines(LINES, follow=False)]

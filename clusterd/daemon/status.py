"""The supervisor's view, the roster and the link as the plain data of the API. Reads everything, changes nothing.

The shapes are those of API version 1: fields are added, never renamed or removed.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from clusterd.core.model.ids import CONTROLLER, format_slot
from clusterd.core.supervisor.view import view
from clusterd.system.paths import host_id

if TYPE_CHECKING:
    from clusterd.core.model.launch import ProcessIdentity
    from clusterd.core.supervisor.machine import Supervisor
    from clusterd.core.supervisor.view import LaunchView, UnitView
    from clusterd.core.wire.messages import EngineInfo, SlotReport
    from clusterd.daemon.roster import Roster

__all__ = ["cluster_status", "engine_list", "is_idle"]

_UUID_BYTES: Final = 16


def is_idle(supervisor: Supervisor) -> bool:
    """Say whether nothing is wanted and nothing runs."""
    state = supervisor.state
    return not state.is_wanted and not state.launches and not state.orphaned


def cluster_status(
    supervisor: Supervisor, roster: Roster, *, heard_at: float | None, link_problem: str, now: float
) -> dict[str, Any]:
    """Return what `status` says of the cluster.

    Args:
        supervisor: whose.
        roster: of engines and agents.
        heard_at: monotonic time of the controller's last word, None while the link is down.
        link_problem: why it is down.
        now: monotonic time.
    """
    seen = view(supervisor, now)
    is_wanted = supervisor.state.is_wanted
    controller = _controller(supervisor, seen.controller, link_problem if heard_at is None else "")
    sets = {unit.unit: _engine_set(supervisor, roster, unit, heard_at, now) for unit in seen.sets}
    waiting = [entry for entry in sets.values() if not entry["is_converged"]]
    if not controller["is_converged"]:
        # Nothing of the sets moves before it does.
        waiting = [controller]
    return {
        "cluster": seen.name,
        "state": seen.state,
        "desired": "running" if is_wanted else "stopped",
        "is_converged": seen.is_converged,
        # Not as wished, and nothing that is under way will change that.
        "is_stuck": is_wanted and bool(waiting) and all(entry["is_stuck"] for entry in waiting),
        "controller": controller,
        "engine_sets": sets,
        "other_engines": _others(supervisor, roster),
    }


def engine_list(supervisor: Supervisor, roster: Roster) -> list[dict[str, Any]]:
    """Return each slot that is wanted or occupied, and what is in it; then the engines that are in no set of the profile."""
    entries = []
    for unit in supervisor.sets():
        wish = supervisor.state.desired.get(unit)
        wanted = wish.slots if wish is not None and supervisor.state.is_wanted else ()
        registered = {engine.slot: engine for engine in roster.of_set(unit)}
        reports = _reports(supervisor, roster, unit)
        for slot in sorted({*wanted, *registered}):
            engine, report = registered.get(slot), reports.get(slot)
            entry: dict[str, Any] = {
                "engine": format_slot(unit, slot),
                "set": unit,
                "slot": slot,
                "id": None,
                "state": "waiting" if report is None else report.state,
                "reason": "" if report is None else report.reason,
                "restarts": 0 if report is None else report.restarts,
                "pid": None if report is None else report.pid or None,
                "host": None,
                "python": None,
                "since": None,
                "uuid": None,
            }
            if engine is not None:
                entry |= _registered(engine)
            entries.append(entry)
    known = set(supervisor.sets())
    others = [engine for engine in roster.engines.values() if engine.engine_set not in known]
    entries += [
        {
            "engine": format_slot(engine.engine_set, engine.slot) if engine.engine_set else f"id:{engine.id}",
            "set": engine.engine_set,
            "slot": engine.slot,
            "reason": "",
            "restarts": 0,
            **_registered(engine),
        }
        for engine in sorted(others, key=lambda engine: (engine.engine_set, engine.id))
    ]
    return entries


def _registered(engine: EngineInfo) -> dict[str, Any]:
    return {
        "id": engine.id,
        "state": engine.state,
        "pid": engine.pid or None,
        "host": engine.host or None,
        "python": engine.python or None,
        "since": engine.started_at or None,
        # A stock engine names itself, in text.
        "uuid": engine.uuid.hex() if len(engine.uuid) == _UUID_BYTES else engine.uuid.decode(errors="replace"),
    }


def _others(supervisor: Supervisor, roster: Roster) -> dict[str, int]:
    """Count, by set, the engines that no profile speaks of: stock ones, and those that somebody started by hand."""
    known = set(supervisor.sets())
    names = [engine.engine_set for engine in roster.engines.values() if engine.engine_set not in known]
    return {name: names.count(name) for name in sorted(set(names))}


def _controller(supervisor: Supervisor, seen: UnitView, link_problem: str) -> dict[str, Any]:
    is_wanted = supervisor.state.is_wanted
    launch = seen.launches[-1] if seen.launches else None
    state = _state(supervisor, seen, launch)
    reason = seen.reason
    if state in {"starting", "unreachable"} and link_problem:
        reason = f"{reason}: {link_problem}" if reason else link_problem
    return {
        "desired": "running" if is_wanted else "stopped",
        "state": state,
        "reason": reason,
        "hint": seen.hint,
        "is_converged": seen.is_converged,
        "is_stuck": state == "halted",
        "launch": None if launch is None else launch.id,
        "restarts": supervisor.unit(CONTROLLER).restarts.failures,
        "last_end": seen.last_end,
        **_process(supervisor, launch),
    }


def _engine_set(
    supervisor: Supervisor, roster: Roster, seen: UnitView, heard_at: float | None, now: float
) -> dict[str, Any]:
    launch = seen.launches[-1] if seen.launches else None
    wish = supervisor.state.desired.get(seen.unit)
    wanted = set(wish.slots) if wish is not None and seen.desired else set[int]()
    missing = wanted - {engine.slot for engine in roster.of_set(seen.unit)}
    reports = _reports(supervisor, roster, seen.unit)
    has_given_up = {slot for slot, report in reports.items() if report.state == "crash-loop"}
    age = seen.observed_age
    if age is not None and heard_at is not None:
        # Changes are told unasked: as long as the controller answers, what it told last is so.
        age = min(age, max(0.0, now - heard_at))
    state = _state(supervisor, seen, launch)
    if state == "running" and not seen.is_converged:
        state = "draining" if seen.draining else "converging"
    return {
        "desired": seen.desired,
        "observed": seen.observed,
        "state": state,
        "reason": seen.reason,
        "hint": seen.hint,
        "is_converged": seen.is_converged,
        "is_stuck": state == "halted" or (bool(missing) and missing <= has_given_up),
        "age": age,
        "generation": seen.generation,
        "draining": len(seen.draining),
        "retry_in": seen.retry_in,
        "restarts": supervisor.unit(seen.unit).restarts.failures,
        "last_end": seen.last_end,
        "launches": [
            {
                "launch": each.id,
                "state": each.state,
                "reason": each.reason,
                "evidence": each.evidence,
                "slots": list(each.slots),
                "job": each.job or None,
                **_process(supervisor, each),
            }
            for each in seen.launches
        ],
    }


def _state(supervisor: Supervisor, seen: UnitView, launch: LaunchView | None) -> str:
    if launch is not None:
        return {"ready": "running", "requested": "starting"}.get(launch.state, launch.state)
    if not supervisor.state.is_wanted or (seen.unit != CONTROLLER and not seen.desired):
        return "stopped"
    if seen.unit in supervisor.state.halted:
        return "halted"
    return "backoff" if seen.retry_in is not None else "waiting"


def _reports(supervisor: Supervisor, roster: Roster, unit: str) -> dict[int, SlotReport]:
    launches = {launch.id for launch in supervisor.state.of_unit(unit)}
    notices = [notice for notice in roster.agents.values() if notice.launch in launches]
    return {report.slot: report for notice in notices for report in notice.slots}


def _process(supervisor: Supervisor, launch: LaunchView | None) -> dict[str, Any]:
    """Return pid, host and age of a launch's process."""
    known = None if launch is None else supervisor.state.launches.get(launch.id)
    identity = None if known is None else known.identity
    if identity is None:
        return {"pid": None, "host": None, "uptime": None}
    return {"pid": identity.pid, "host": identity.host, "uptime": _uptime(identity)}


def _uptime(identity: ProcessIdentity) -> float | None:
    if identity.host != host_id():
        return None
    # Ticks since boot are what the kernel noted: true also for what an earlier daemon started.
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return max(0.0, now - identity.start_time / os.sysconf("SC_CLK_TCK"))

"""Finds what runs in the runtime directory and is nobody's, and ends it when somebody asks.

That are processes of another state directory (a copied or lost one) or of a launch that was given up, and engines that no agent
speaks of.
Invariants: what the supervisor knows, will adopt or is about to end itself is never a stray; an engine is one only when every agent
of its set has said what it holds; nothing is signalled but the very process that an identity file names, by its pidfd.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from clusterd.core.model.ids import CONTROLLER
from clusterd.core.model.launch import ProcessIdentity
from clusterd.daemon.reaping import AFTER_KILL, ended
from clusterd.system import process

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from clusterd.core.supervisor.machine import Supervisor
    from clusterd.daemon.roster import Roster

__all__ = ["Stray", "described", "end", "strays"]


class Stray(NamedTuple):
    """One process.

    Attributes:
        name: of its identity file, without `.json`: what a request to end it says.
        kind: controller, agent or engine.
        unit: `controller`, or its engine set.
        slot: of an engine, else -1.
        launch: that it belongs to.
        identity: who it is.
        path: its identity file.
        why: nobody claims it.
    """

    name: str
    kind: str
    unit: str
    slot: int
    launch: str
    identity: ProcessIdentity
    path: Path
    why: str


def strays(units: Path, supervisor: Supervisor, roster: Roster) -> list[Stray]:
    """Return what runs and is unclaimed, by kind and name.

    Args:
        units: the directory of identity files.
        supervisor: knows all launches that may run.
        roster: what agents say of their engines.
    """
    return list(_found(units, supervisor, roster))


def described(found: Sequence[Stray]) -> list[dict[str, Any]]:
    """Return strays as the plain data of the API."""
    now, ticks = time.clock_gettime(time.CLOCK_BOOTTIME), os.sysconf("SC_CLK_TCK")
    return [
        {
            "name": stray.name,
            "kind": stray.kind,
            "unit": stray.unit,
            "slot": None if stray.slot < 0 else stray.slot,
            "launch": stray.launch,
            "pid": stray.identity.pid,
            "host": stray.identity.host,
            "uptime": max(0.0, now - stray.identity.start_time / ticks),
            "why": stray.why,
        }
        for stray in found
    ]


async def end(found: Sequence[Stray], patience: float) -> dict[str, Any]:
    """End strays: asked first, killed after `patience` seconds; return `done` (names) and `failed` (name -> reason)."""
    left = list(found)
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, AFTER_KILL)):
        for stray in left:
            # A stopped process takes no notice of SIGTERM until it goes on; SIGKILL needs nobody's notice.
            process.send_signal(stray.identity, number)
        over = await asyncio.gather(*(ended(stray.identity, seconds) for stray in left))
        left = [stray for stray, is_over in zip(left, over, strict=True) if not is_over]
        if not left:
            break
    failed = {stray.name: f"process {stray.identity.pid} does not end although it was killed" for stray in left}
    done = [stray for stray in found if stray.name not in failed]
    for stray in done:
        _remove(stray)
    return {"done": [stray.name for stray in done], "failed": failed}


def _found(units: Path, supervisor: Supervisor, roster: Roster) -> Iterator[Stray]:
    held = _held(supervisor, roster)
    for path in sorted(units.glob("*.json")):
        content = _read(path)
        kind = content.get("kind")
        if kind not in {"controller", "agent", "engine"}:
            continue
        try:
            identity = msgspec.convert(content, ProcessIdentity)
        except msgspec.ValidationError:
            continue
        unit = CONTROLLER if kind == "controller" else str(content.get("engine_set", ""))
        launch = str(content.get("launch", ""))
        why = _why(supervisor, roster, held, content, unit)
        # Asked last: most files are of those that are known.
        if why and process.probe(identity) == "alive":
            slot = content.get("slot", -1)
            slot = slot if isinstance(slot, int) else -1
            yield Stray(path.stem, str(kind), unit, slot, launch, identity, path, why)


def _why(supervisor: Supervisor, roster: Roster, held: frozenset[str], content: dict[str, Any], unit: str) -> str:
    """Return why nobody claims a process; nothing when somebody does or may."""
    launch, state = str(content.get("launch", "")), supervisor.state
    if content["kind"] != "engine":
        return "" if launch in state.launches else f"its launch {launch} is not in the journal"
    if str(content.get("uuid")) in held or unit in state.orphaned:
        return ""
    launches = state.of_unit(unit)
    if any(known.id not in roster.agents or roster.agents[known.id].event == "lost" for known in launches):
        # Its agent may be about to find it.
        return ""
    if not launches:
        return "its set has no agent, and the journal knows of no engines left behind"
    return "no agent of its set holds it"


def _held(supervisor: Supervisor, roster: Roster) -> frozenset[str]:
    """Return the uuids of the engines that agents of ours speak of."""
    notices = [notice for launch, notice in roster.agents.items() if launch in supervisor.state.launches]
    return frozenset(slot.uuid.hex() for notice in notices for slot in notice.slots if slot.uuid)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remove(stray: Stray) -> None:
    # It may have been made anew by somebody else meanwhile: only the file that names the dead process goes.
    content = _read(stray.path)
    if content.get("pid") == stray.identity.pid and content.get("start_time") == stray.identity.start_time:
        stray.path.unlink(missing_ok=True)
        if stray.kind == "engine":
            stray.path.with_name(f"{content.get('uuid')}.page").unlink(missing_ok=True)

"""Finds what an earlier daemon left running: launches by identity or claimed file, engines without an agent by theirs.

Invariants: `absent` is said only with proof: the very process is gone, or its place was claimed before it could begin; a process
on another host or in another namespace is unknown; an engine is signalled only as the process that its file names.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from clusterd.core.model.launch import ProcessIdentity
from clusterd.core.supervisor import events
from clusterd.daemon.specs import kind_of
from clusterd.system import files, process

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator
    from pathlib import Path

    from clusterd.core.supervisor import actions
    from clusterd.daemon.places import Places

__all__ = ["engines_of", "look_for", "signal_engines"]


def look_for(action: actions.Adopt, places: Places) -> events.AdoptionResult:
    """Return whether a launch of an earlier daemon runs."""
    identity = action.identity
    evidence = "journaled identity"
    if identity is None:
        path = places.identity_file(kind_of(action.unit), action.launch)
        files.private_directory(places.units)
        # Whoever makes this file first has decided: if we do, a process that begins later finds it and ends at once.
        if files.claim(path, json.dumps({"kind": "called off", "launch": action.launch})):
            return events.AdoptionResult(action.launch, "absent", None, "it had not begun, and now never will")
        identity = read_identity(path)
        evidence = f"identity file {path.name}"
        if identity is None:
            return events.AdoptionResult(action.launch, "absent", None, "it had been called off before")
    match process.probe(identity):
        case "alive":
            return events.AdoptionResult(action.launch, "found", identity, evidence)
        case "gone":
            # Named, because it lived: engines of it may go on.
            gone = f"process {identity.pid} is gone ({evidence})"
            return events.AdoptionResult(action.launch, "absent", identity, gone)
        case "unknown":
            where = f"process {identity.pid} on {identity.host}"
            return events.AdoptionResult(action.launch, "unknown", None, f"{where} cannot be seen from here")


def read_identity(path: Path) -> ProcessIdentity | None:
    """Return who wrote an identity file; None when there is none, or nobody is named in it."""
    content = _read(path)
    try:
        return None if content is None else msgspec.convert(content, ProcessIdentity)
    except msgspec.ValidationError:
        return None


def engines_of(unit: str, places: Places) -> Iterator[tuple[Path, ProcessIdentity]]:
    """Yield the identity files of a set's engines on this host, with who they name; files of dead ones are removed."""
    for path in sorted(places.units.glob("engine-*.json")):
        content = _read(path)
        identity = read_identity(path)
        if content is None or identity is None or content.get("engine_set") != unit:
            continue
        if process.probe(identity) == "gone":
            # The reader of this file is its agent, and there is none: nobody else would ever take it away.
            path.unlink(missing_ok=True)
            path.with_name(f"{content.get('uuid')}.page").unlink(missing_ok=True)
            continue
        yield path, identity


def signal_engines(unit: str, places: Places, number: signal.Signals) -> list[ProcessIdentity]:
    """Send a signal to the engines of a set; return those that got it."""
    return [identity for _, identity in engines_of(unit, places) if process.send_signal(identity, number)]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None

"""`clusterctl engines interrupt|stop|kill|restart TARGET...`: what people write -> wire ids -> the controller -> the agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clusterd.core.model.ids import format_slot, parse_slot
from clusterd.core.wire.messages import EngineCommand
from clusterd.daemon.status import engine_list
from clusterd.errors import ControlError

if TYPE_CHECKING:
    from clusterd.daemon.loop import Daemon

__all__ = ["command_engines", "resolve"]


def resolve(targets: list[int | str], engines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the engines that are meant, each once.

    Args:
        targets: `engines/3`, a set, `3` (a slot of the default set), `id:7` (a wire id).
        engines: as `status.engine_list` returns them.

    Raises:
        ControlError: code `not_found`: a target means no slot that is wanted or occupied.
    """
    found: dict[str, dict[str, Any]] = {}
    for target in targets:
        for engine in _meant(target, engines):
            found[engine["engine"]] = engine
    return list(found.values())


async def command_engines(daemon: Daemon, command: str, targets: list[int | str]) -> dict[str, Any]:
    """Have a command carried out; return `done` (names) and `failed` (name -> reason)."""
    meant = resolve(targets, engine_list(daemon.driver.supervisor, daemon.roster))
    by_id = {engine["id"]: engine["engine"] for engine in meant if engine["id"] is not None}
    done: list[str] = []
    failed: dict[str, str] = {}
    for engine in meant:
        if engine["id"] is not None:
            continue
        if command == "restart" and engine["state"] in {"crash-loop", "backoff"}:
            # Nothing is there to end; what is meant is: try again.
            await daemon.resume_slots(engine["set"], [engine["slot"]])
            done.append(engine["engine"])
        else:
            why = f": {engine['reason']}" if engine["reason"] else ""
            failed[engine["engine"]] = f"no engine is there now ({engine['state']}{why})"
    if by_id:
        answer = await daemon.link.request(lambda number: EngineCommand(number, list(by_id), command))
        done += [by_id[wire_id] for wire_id in answer["done"]]
        failed |= {by_id[int(wire_id)]: reason for wire_id, reason in answer["failed"].items()}
    return {"command": command, "done": done, "failed": failed}


def _meant(target: int | str, engines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    text = str(target)
    of_set = [engine for engine in engines if engine["set"] == text]
    if of_set:
        return of_set
    if text.startswith("id:"):
        wanted = text.removeprefix("id:")
        found = [engine for engine in engines if engine["id"] is not None and str(engine["id"]) == wanted]
    else:
        try:
            slot = parse_slot(text)
        except ValueError as error:
            raise ControlError(str(error), code="bad_request") from None
        found = [engine for engine in engines if (engine["set"], engine["slot"]) == slot]
        text = format_slot(*slot)
    if not found:
        raise ControlError(f"there is no engine {text}", code="not_found", hint="clusterctl engines lists them")
    return found

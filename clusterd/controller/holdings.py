"""Answers EngineTasks: what engines run and hold, since when, and whose it is: what is lost when they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from clusterd.core.wire import messages
from clusterd.storage.taskstore.told import short_id

if TYPE_CHECKING:
    from clusterd.controller.hub import Hub
    from clusterd.controller.tasks import Tasks
    from clusterd.core.scheduler.holdings import Holding

__all__ = ["engine_tasks"]

LISTED: Final = 4
"""Tasks of one engine that are described; the others are counted."""

_KINDS: Final = {
    messages.APPLY: "apply",
    messages.MAP: "map",
    messages.EXECUTE: "execute",
    messages.PUSH: "push",
    messages.PULL: "pull",
    messages.CLEAR: "clear",
    messages.STOCK: "request of ipyparallel",
}


def engine_tasks(hub: Hub, tasks: Tasks, targets: list[int] | None, now: float) -> dict[str, Any]:
    """Return, by wire id, `tasks` (the running one first) and `more`, how many beyond these wait in the engine or for it alone."""
    wanted = hub.engines_by_id if targets is None else dict.fromkeys(targets)
    engines = {}
    for wire_id in wanted:
        if wire_id in hub.engines_by_id:
            held, count = tasks.scheduler.holdings(wire_id, LISTED)
            engines[wire_id] = {"tasks": [_task(hub, tasks, one, now) for one in held], "more": count - len(held)}
    return {"engines": engines}


def _task(hub: Hub, tasks: Tasks, holding: Holding, now: float) -> dict[str, Any]:
    client = hub.clients_by_handle.get(holding.client)
    function = tasks.functions.get(holding.function)
    payload = tasks.payloads.get(holding.task)
    # Without a function it is a cell, a push, or what a stock client asks for.
    name = function.name if function is not None else "" if payload is None else _KINDS.get(payload.kind, "")
    # A stock client's own name for it stands in its record.
    row = None if payload is None else payload.row
    task_id = holding.task.hex() if row is None else row.msg_id
    return {
        "task": task_id,
        "short": short_id(task_id),
        "label": holding.label,
        "function": name,
        "is_running": holding.is_begun,
        "for": max(0.0, now - holding.since),
        "owner": "" if client is None else client.name.removeprefix("client "),
    }

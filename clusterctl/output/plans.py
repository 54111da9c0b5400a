"""What `--plan` prints: what a command would touch, and whose work that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clusterctl.output.stories import task_line
from clusterctl.output.text import columns

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["plan_lines"]

_CONTROLLER = {
    "restarts": ": engines and clients attach again",
    "ends": ": tasks that wait in it are lost, unless they are durable",
}


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """Return the lines of a plan."""
    return list(_lines(plan))


def _lines(plan: dict[str, Any]) -> Iterator[str]:
    yield f"{plan['cluster']}: {plan['command']} (a plan: nothing was changed)"
    controller = plan["touched"]["controller"]
    if controller is not None:
        yield f"  controller {controller}{_CONTROLLER.get(controller, '')}"
    rows = []
    for engine in plan["engines"]:
        identifier = "-" if engine["id"] is None else str(engine["id"])
        rows.append((f"  {engine['engine']}", identifier, engine["state"], _fate(engine, plan), _tasks(engine)))
    if rows:
        yield from columns([("  ENGINE", "ID", "STATE", "WOULD", "TASKS"), *rows])
    touched = {engine["engine"] for engine in plan["engines"]}
    if new := [name for name in plan["starts"] if name not in touched]:
        yield f"  would start: {', '.join(new)}"
    for owner in plan["owners"]:
        whose = owner["owner"] or "nobody known"
        yield f"  tasks of {whose}: {owner['running']} running, {owner['waiting']} waiting in engines"
    if not plan["are_tasks_known"]:
        yield "  what the engines run is not known: the controller does not answer"
    if controller is None and not rows and not plan["starts"]:
        yield "  nothing would be touched"


def _fate(engine: dict[str, Any], plan: dict[str, Any]) -> str:
    then = ", then a new one" if engine["is_replaced"] else ""
    if engine["fate"] == "ends":
        return f"end at once{then}"
    patience = plan["touched"]["sets"][engine["set"]]["drain_timeout"]
    if engine["state"] == "idle":
        return f"end{then}"
    return f"finish its task{then}" if patience is None else f"have {patience:g} s for its task{then}"


def _tasks(engine: dict[str, Any]) -> str:
    if not engine["tasks"]:
        return "-" if engine["tasks"] is not None or engine["id"] is None else "?"
    others = len(engine["tasks"]) - 1 + engine["more_tasks"]
    more = f"; {others} more wait" if others else ""
    return f"{task_line(engine['tasks'][0])}{more}"

"""Answers of the daemon as plain text. Reads the shapes of the API and nothing else; a field that is missing is left out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "age",
    "columns",
    "engine_table",
    "event_line",
    "key_lines",
    "moment",
    "orphan_lines",
    "set_line",
    "status_lines",
    "summary",
    "why_not",
]

SHOWN = 8
"""Names in one line."""


def age(seconds: float) -> str:
    """Return `0.3 s`, `12 s`, `5 min`, `3 h`, `2 days`."""
    if seconds < 0.95:
        return f"{max(seconds, 0.0):.1f} s"
    for limit, divisor, unit in ((100, 1, "s"), (6000, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def moment(wall: float) -> str:
    """Return local time, to the second; the date only when it is not today's."""
    then = time.localtime(wall)
    is_today = time.strftime("%Y-%m-%d", then) == time.strftime("%Y-%m-%d")
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S", then)


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return rows as aligned lines; the last column is as long as it is."""
    table = [list(row) for row in rows]
    if not table:
        return []
    widths = [max(len(row[index]) for row in table) for index in range(len(table[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in table
    ]


def summary(status: dict[str, Any]) -> str:
    """Return the state of a cluster in one line: what `watch` prints off a terminal."""
    sets = ", ".join(f"{name} {entry['observed']}/{entry['desired']}" for name, entry in status["engine_sets"].items())
    return f"{status['cluster']}: {status['state']}; controller {status['controller']['state']}; {sets or 'no engine sets'}"


def status_lines(status: dict[str, Any]) -> list[str]:
    """Return what `clusterctl status` prints."""
    daemon, controller = status["daemon"], status["controller"]
    head = f"{status['cluster']}: {status['state']}"
    if status["state"] not in {"running", "stopped"} or not status["is_converged"]:
        head += f" (wished: {status['desired']})"
    rows = [
        ("daemon", "running", f"process {daemon['pid']}, up {age(daemon['uptime'])}, profile {daemon['profile_file']}"),
        ("controller", controller["state"], _controller(controller)),
        *(
            (name, f"{entry['observed']} of {entry['desired']}", set_line(entry))
            for name, entry in status["engine_sets"].items()
        ),
    ]
    rows += [(name, str(count), "not of the profile") for name, count in status.get("other_engines", {}).items()]
    if tasks := status.get("tasks"):
        queued = tasks["queued"] + tasks["waiting"]
        busy = tasks["running"] + tasks["prefetched"]
        rows.append(("tasks", f"{queued} queued", f"{busy} on engines, {tasks['completed']} done; {_clients(status)}"))
    if (stock := status.get("stock")) and stock["served"]:
        rows.append(("ipython", "off" if stock["served"] == "off" else "served", _client_file(stock)))
    if (keys := status.get("keys")) and keys["until"]:
        rows.append(("keys", "changed", "; ".join(key_lines(keys, time.time()))))
    lines = [head, *(f"  {line}" for line in columns(rows))]
    return lines + [f"  warning: {warning}" for warning in status.get("warnings", [])]


def key_lines(keys: dict[str, Any], now: float) -> list[str]:
    """Return until when the keys before the last change are accepted, and who uses them."""
    if not keys["until"]:
        return ["the old ones are refused"]
    users = [_users(kind, names) for kind, names in keys["using_old"].items() if names]
    last = f"the old ones are accepted until {moment(keys['until'])} ({age(keys['until'] - now)} more)"
    if not users:
        return [last, "nobody uses them"]
    return [last, *(f"{user} the old key, and will be refused then" for user in users)]


def _users(kind: str, names: list[str]) -> str:
    words = kind.replace("_", " ")
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"1 {words[:-1]} ({shown}) uses" if len(names) == 1 else f"{len(names)} {words} ({shown}) use"


def _client_file(stock: dict[str, Any]) -> str:
    if stock["served"] == "off":
        return "stock clients are not served: controller.stock of the profile"
    file = f"client file {stock['ipython_file'] or stock['client_file']}"
    return f"encrypted; {file}" if stock["served"] == "curve" else file


def _controller(controller: dict[str, Any]) -> str:
    parts = []
    if controller.get("pid"):
        parts.append(f"process {controller['pid']}, up {age(controller.get('uptime') or 0)}")
    parts += _last_end(controller)
    if controller.get("reason"):
        parts.append(controller["reason"])
    return "; ".join(parts)


def _last_end(entry: dict[str, Any], whose: str = "") -> list[str]:
    """Return how often it had to be restarted, and why the last time, where its present state does not tell that."""
    if not entry.get("restarts"):
        return []
    why = entry.get("last_end", "")
    is_told = not why or why in (entry.get("reason") or "")
    return [f"{whose}restarted {_times(entry['restarts'])}" + ("" if is_told else f", the last time because it {why}")]


def set_line(entry: dict[str, Any]) -> str:
    """Return how an engine set stands, beside its numbers."""
    parts = [entry["reason"]] if entry.get("reason") else []
    if entry.get("age") is not None:
        parts.append(f"seen {age(entry['age'])} ago")
    elif entry["desired"]:
        parts.append("not seen yet")
    parts += _last_end(entry, "its agent ")
    return "; ".join(parts)


def why_not(status: dict[str, Any]) -> str:
    """Return why the wish has not come true, a line for each part that differs."""
    lines = []
    controller = status["controller"]
    if controller["state"] != controller["desired"]:
        reason = f": {controller['reason']}" if controller.get("reason") else ""
        lines.append(f"controller is {controller['state']}{reason}")
    for name, entry in status["engine_sets"].items():
        if entry["observed"] != entry["desired"]:
            reason = f": {entry['reason']}" if entry.get("reason") else ""
            lines.append(f"{name}: {entry['observed']} of {entry['desired']}{reason}")
    return "\n  ".join(lines) or f"it is {status['state']}"


def orphan_lines(orphans: list[dict[str, Any]]) -> list[str]:
    """Return what `clusterctl status --orphans` prints."""
    if not orphans:
        return ["nothing runs unclaimed"]
    rows = [("PROCESS", "WHAT", "UP", "LAUNCH", "WHY")]
    for one in orphans:
        what = one["unit"] if one["kind"] == "controller" else f"{one['kind']} of {one['unit']}"
        if one["slot"] is not None:
            what = f"engine {one['unit']}/{one['slot']}"
        rows.append((str(one["pid"]), what, age(one["uptime"]), one["launch"], one["why"]))
    return columns(rows)


def engine_table(engines: list[dict[str, Any]], now: float) -> list[str]:
    """Return what `clusterctl engines` prints."""
    rows = [("ENGINE", "ID", "STATE", "FOR", "PROCESS", "HOST", "")]
    for engine in engines:
        identifier = engine.get("id")
        since = engine.get("since")
        notes = [engine["reason"]] if engine.get("reason") else []
        if engine.get("restarts"):
            notes.append(f"restarted {_times(engine['restarts'])}")
        rows.append(
            (
                engine["engine"],
                "-" if identifier is None else str(identifier),
                engine["state"],
                age(now - since) if since else "-",
                str(engine.get("pid") or "-"),
                engine.get("host") or "-",
                "; ".join(notes),
            )
        )
    return columns(rows)


def event_line(event: dict[str, Any]) -> str:
    """Return one event as a line."""
    return f"{moment(event['time'])} {event['text']}"


def _clients(status: dict[str, Any]) -> str:
    count = status["clients"]
    return "1 client" if count == 1 else f"{count} clients"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"

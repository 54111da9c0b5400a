"""Tasks as plain text. What users have named (functions, labels, messages) and printed is shown without what would control a terminal."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from clusterctl.output.text import age, columns, moment

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["duration", "harmless", "task_lines", "task_table"]

_ESCAPE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)")
_MAX_OUTCOME: Final = 72
_MAX_NAME: Final = 32
_TAIL: Final = 20
"""Lines of what a task has printed; all of them are in the JSON."""


def duration(seconds: float | None) -> str:
    """Return `4 ms`, `0.25 s`, `12 s`, `3 h`; `-` for none."""
    if seconds is None:
        return "-"
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.00095 else "<1 ms"
    return f"{seconds:.2f} s" if seconds < 9.995 else age(seconds)


def harmless(text: str) -> str:
    """Return text without escape sequences; of what else cannot be printed line ends and tabs stay."""
    plain = _ESCAPE.sub("", text)
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in plain)


def task_table(tasks: list[dict[str, Any]]) -> list[str]:
    """Return what `clusterctl tasks list` prints."""
    has_labels = any(task["label"] for task in tasks)
    head = [
        "TASK",
        "STATE",
        "ENGINE",
        "WHAT",
        *(["LABEL"] if has_labels else []),
        "SUBMITTED",
        "WAITED",
        "RAN",
        "OUTCOME",
    ]
    return columns([head, *(_row(task, has_labels=has_labels) for task in tasks)])


def _row(task: dict[str, Any], *, has_labels: bool) -> list[str]:
    waited, ran = task["waited"], task["ran"]
    if task["state"] == "waiting":
        waited = task["for"]
    elif task["state"] == "running":
        ran = task["for"]
    return [
        task["short"],
        task["state"],
        _engine(task),
        _one_line(task["name"] or task["kind"], _MAX_NAME),
        *([_one_line(task["label"] or "-", _MAX_NAME)] if has_labels else []),
        _when(task["submitted"]),
        duration(waited),
        duration(ran),
        _outcome(task),
    ]


def task_lines(task: dict[str, Any]) -> Iterator[str]:
    """Yield what `clusterctl tasks show` prints."""
    facts = [
        ("task", task["id"] if task["short"] == task["id"] else f"{task['id']} ({task['short']})"),
        ("what", _one_line(f"{task['kind']} {task['name'] or ''}".strip(), 200)),
        ("label", _one_line(task["label"] or "", 200)),
        ("state", task["state"] + (f" for {duration(task['for'])}" if task.get("for") is not None else "")),
        ("why", harmless(task.get("why") or "")),
        ("depends on", ", ".join(task.get("depends_on") or ())),
        ("engine", _place(task)),
        ("attempts", str(task["attempt"] + 1) if task["engine_id"] is not None else ""),
        ("client", harmless(task["client"])),
        ("submitted", _when(task["submitted"])),
        ("waited", "" if task["waited"] is None else duration(task["waited"])),
        ("started", _when(task["started"])),
        ("ended", _when(task["completed"])),
        ("ran", "" if task["ran"] is None else duration(task["ran"])),
        ("delivered", "not yet: its client has not acknowledged it" if task.get("is_delivered") is False else ""),
        ("arguments", _sizes(task.get("argument_bytes"))),
        ("result", _sizes(task.get("result_bytes"))),
        (
            "on record",
            f"{task['bytes']:,} bytes"
            + ("" if task["can_be_resubmitted"] else ", without the arguments: they were too large"),
        ),
        ("run again as", task["resubmitted_as"] or ""),
        ("outcome", _outcome(task, 2000)),
    ]
    yield from columns((f"{name}:", value) for name, value in facts if value and value != "-")
    for title, text in (
        ("code", task["code"] or ""),
        ("traceback", "\n".join(task["traceback"])),
        ("stdout", task["stdout"]),
        ("stderr", task["stderr"]),
    ):
        yield from _part(title, text, _TAIL if title.startswith("std") else None)


def _part(title: str, text: str, most: int | None) -> Iterator[str]:
    lines = harmless(text.replace("\r\n", "\n").replace("\r", "\n")).rstrip("\n").split("\n")
    if lines == [""]:
        return
    left_out = 0 if most is None else max(0, len(lines) - most)
    yield f"{title}:" if not left_out else f"{title} (the last {most} of {len(lines)} lines; all: --json):"
    yield from (f"    {line}" for line in lines[left_out:])


def _engine(task: dict[str, Any]) -> str:
    identifier = task["engine_id"]
    return task["engine"] or ("-" if identifier is None else f"id:{identifier}")


def _place(task: dict[str, Any]) -> str:
    if task["engine_id"] is None:
        return ""
    parts = [f"id {task['engine_id']}"]
    if task["pid"]:
        parts.append(f"process {task['pid']}")
    if task["host"]:
        parts.append(f"on {harmless(task['host'])}")
    return f"{_engine(task)} ({', '.join(parts)})"


def _outcome(task: dict[str, Any], most: int = _MAX_OUTCOME) -> str:
    if not task["error"]:
        return ""
    text = f"{task['error']}: {task['message']}" if task["message"] else task["error"]
    return _one_line(text, most)


def _one_line(text: str, most: int) -> str:
    line = " ".join(harmless(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _when(date: str | None) -> str:
    if date is None:
        return ""
    then = datetime.fromisoformat(date).timestamp()
    return moment(then) if abs(time.time() - then) < 10**10 else date


def _sizes(sizes: list[int] | None) -> str:
    if not sizes:
        return ""
    total = f"{sum(sizes):,} bytes"
    return total if len(sizes) == 1 else f"{total} in {len(sizes)} buffers"

"""What people are told of a task: plain data for `clusterctl tasks`, JSON as it is. Times are ISO 8601 in UTC, durations seconds.

Results and arguments are never in it: they are pickles, and large; their sizes are. What a task was is a name and a kind, how it ended a
state and an outcome: the name of an exception. A task is called by its id, and by a short form of it: the first 8 characters, a hyphen,
and the number that its client has given it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from clusterd.core.wire import jupyter
from clusterd.core.wire.messages import APPLY, CLEAR, EXECUTE, MAP, PULL, PUSH, STOCK
from clusterd.storage.taskstore.record import FIELDS, header_of, result_content
from clusterd.storage.taskstore.row import end_size, parse_place, request_size

if TYPE_CHECKING:
    from clusterd.storage.taskstore.row import TaskRow

ENDED: Final = ("ok", "error", "aborted")
UNENDED: Final = ("waiting", "running", "unfinished")
"""States. `unfinished`: it has no outcome, and nobody is known who would still give it one."""

_KINDS: Final = {APPLY: "call", MAP: "map", EXECUTE: "cell", PUSH: "push", PULL: "pull", CLEAR: "clear"}
_STOCK: Final = {"apply_request": "call", "execute_request": "cell"}
_OUTCOMES: Final = {
    "engine_lost": "EngineLost",
    "timeout": "TaskTimeout",
    "unschedulable": "TaskUnschedulable",
    "invalid_dependency": "TaskUnschedulable",
    "aborted": "TaskAborted",
}
"""What `clusterd.Client` raises for a task that has no result."""
_SHORT: Final = re.compile(r"(?P<head>[0-9A-Za-z]{1,8})-(?P<number>[0-9A-Za-z]+)\Z")
_NATIVE: Final = re.compile(r"[0-9a-f]{32}\Z")
_PLAIN: Final = re.compile(r"[0-9A-Za-z_.:-]+\Z")
_HEX: Final = frozenset("0123456789abcdef")
_HEAD: Final = 8
_NUMBER: Final = 16
_MAX_NAME: Final = 80


def short_id(msg_id: str) -> str:
    """The short form of an id: of ours a client's number and the task's own, of stock ones session and message number."""
    if _NATIVE.match(msg_id):
        return f"{msg_id[:8]}-{int(msg_id[16:], 16):x}"
    head, _, number = msg_id.rpartition("_")
    return f"{head[:8]}-{number}" if head[:8].isalnum() and number.isalnum() else msg_id


def sibling_of(text: str) -> tuple[str, str] | None:
    """Of what may be the short form of an id of ours: a pattern for any task of that client, and the end that its id has.

    A client has numbered up to millions; their ids are alike up to the number, so one of them tells what the others are.
    """
    short = _SHORT.match(text)
    if (
        short is None
        or len(short["head"]) != _HEAD
        or len(short["number"]) > _NUMBER
        or not _HEX.issuperset(short["number"])
    ):
        return None
    return f"{short['head']}{'?' * (_NUMBER * 2 - _HEAD)}", short["number"].rjust(_NUMBER, "0")


def patterns_of(text: str) -> list[str]:
    """Patterns for the ids that a user may mean, the likeliest first; none where it cannot be an id."""
    if not _PLAIN.match(text):
        return []
    found: list[str] = []
    if short := _SHORT.match(text):
        head, number = short["head"], short["number"]
        if _HEX.issuperset(number) and len(number) <= _NUMBER:
            found.append(f"{head}{'?' * (_NUMBER - len(head))}{number.rjust(_NUMBER, '0')}")
        found.append(f"{head}*_{number}")
    # Last: stock ids have a hyphen after 8 characters, too, and all of a session begin alike.
    return [*found, f"{text}*"]


def state_of(row: TaskRow, *, is_running: bool = False, is_known: bool = False) -> str:
    """The state of a task.

    Args:
        row: its record.
        is_running: whoever is asked says that an engine runs it.
        is_known: whoever is asked has it.
    """
    outcome = row.outcome
    if outcome is not None:
        return outcome.status if outcome.status in ENDED else "error"
    if not is_known:
        return "unfinished"
    return "running" if is_running else "waiting"


def told(row: TaskRow, state: str, *, is_full: bool = False) -> dict[str, Any]:
    """A task in a few lines; `is_full`: with its output, traceback and code."""
    outcome = row.outcome
    place = parse_place(row.place)
    started = None if outcome is None else outcome.started
    completed = None if outcome is None else outcome.completed
    error, message, traceback = _failure(row)
    task: dict[str, Any] = {
        "id": row.msg_id,
        "short": short_id(row.msg_id),
        "state": state,
        "name": _name(row),
        "kind": _KINDS.get(row.kind) or _STOCK.get(str(header_of(row).get("msg_type")), "other"),
        "label": row.label or None,
        "client": row.client,
        "engine": place.engine or None,
        "engine_id": None if row.engine_id < 0 else row.engine_id,
        "pid": place.pid or None,
        "host": place.host or None,
        "attempt": row.attempt,
        "submitted": jupyter.date_of(row.submitted),
        "started": None if started is None else jupyter.date_of(started),
        "completed": None if completed is None else jupyter.date_of(completed),
        # Of several hosts' clocks: none is less than nothing.
        "waited": None if started is None else max(0.0, started - row.submitted),
        "ran": None if started is None or completed is None else max(0.0, completed - started),
        "error": error,
        "message": message,
        "bytes": row.size or request_size(row) + (0 if outcome is None else end_size(outcome, row.output)),
    }
    if is_full:
        task |= {
            "is_direct": row.queue == "mux",
            "engine_uuid": row.engine or None,
            "received": None if outcome is None else jupyter.date_of(outcome.received),
            "resubmitted_as": row.resubmitted or None,
            "can_be_resubmitted": row.is_whole,
            "is_delivered": None if outcome is None else not row.is_owed,
            "traceback": traceback,
            "stdout": FIELDS["stdout"](row),
            "stderr": FIELDS["stderr"](row),
            "code": _code(row),
        }
    return task


def _name(row: TaskRow) -> str | None:
    """The function, or the first line of a cell."""
    text = row.name
    if not text and (code := _code(row)):
        text = next((line.strip() for line in code.splitlines() if line.strip()), "")
    return (text if len(text) <= _MAX_NAME else f"{text[: _MAX_NAME - 1]}…") or None


def _code(row: TaskRow) -> str | None:
    code = FIELDS["content"](row).get("code") if row.kind == STOCK else None
    return code if isinstance(code, str) and code else None


def _failure(row: TaskRow) -> tuple[str | None, str | None, list[str]]:
    """(name of the exception, its text, its traceback) of a task that has no result."""
    outcome = row.outcome
    if outcome is None or outcome.status == "ok":
        return None, None, []
    if outcome.status not in ENDED or (outcome.status == "aborted" and row.kind != STOCK):
        return _OUTCOMES.get(outcome.status, outcome.status), outcome.message or None, []
    content = result_content(row) or {}
    name = content.get("ename") or _OUTCOMES.get(outcome.status)
    traceback = content.get("traceback")
    lines = [str(line) for line in traceback] if isinstance(traceback, list) else []
    return str(name or "unknown"), str(content.get("evalue") or "") or outcome.message or None, lines

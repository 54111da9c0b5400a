"""What people and stock clients see of a row: the record of 23 keys, made when somebody asks.

A native task has no Jupyter messages: header, metadata and content are derived from what is known of it, so that old and new
tools read its record alike. Its pickles are never opened here: the body of a request or result is the first of its buffers, and
the content of a cell stays empty.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clusterd.core.wire import jupyter
from clusterd.core.wire.messages import EXECUTE, STOCK
from clusterd.core.wire.payload import unpack_failure
from clusterd.errors import BadQuery, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.storage.taskstore.row import Outcome, TaskRow

_NAMES: Final = {
    "aborted": "TaskAborted",
    "engine_lost": "EngineError",
    "timeout": "TaskTimeout",
    "unschedulable": "ImpossibleDependency",
    "invalid_dependency": "InvalidDependency",
}
"""What stock clients call the reasons why a task has no result; the wire's word for any other."""


def record_of(row: TaskRow, keys: Sequence[str] | None = None) -> dict[str, Any]:
    """The record, or of it the keys named and `msg_id`. Times are datetimes in UTC; buffers are lists of bytes-like objects.

    Args:
        row: as a store gives it; with its buffers where they are asked for.
        keys: None: everything but the buffers.

    Raises:
        BadQuery: a key that records have not.
    """
    record: dict[str, Any] = {}
    for key in RECORD if keys is None else ("msg_id", *keys):
        get = FIELDS.get(key)
        if get is None:
            raise BadQuery(f"records have no field {key!r}", hint=f"Fields: {', '.join(sorted(FIELDS))}.")
        value = get(row)
        record[key] = datetime.fromtimestamp(value, UTC) if key in TIMES and value is not None else value
    return record


def request_buffers(row: TaskRow) -> list[Any]:
    """The buffers of the request; of a native one its pickle first."""
    return list(row.buffers) if row.kind == STOCK else [row.body, *row.buffers]


def result_buffers(row: TaskRow) -> list[Any]:
    """The buffers of the result; of a native one its pickle first."""
    outcome = row.outcome
    if outcome is None:
        return []
    return [outcome.body, *outcome.buffers] if outcome.body else list(outcome.buffers)


def failure_content(reason: str, message: str) -> dict[str, Any]:
    """The content of the reply for a task that has no result; an empty `engine_info` says that no engine made it."""
    if reason == "aborted":
        return {"status": "aborted"}
    return {
        "status": "error",
        "ename": _NAMES.get(reason, reason),
        "evalue": message,
        "traceback": [],
        "engine_info": {},
    }


# --- the request ---


def header_of(row: TaskRow) -> dict[str, Any]:
    """The header of the request."""
    if row.header:
        return _json(row.header)
    kind = "execute_request" if row.kind == EXECUTE else "apply_request"
    return _header(row.msg_id, kind, row.client, row.submitted)


def _metadata(row: TaskRow) -> dict[str, Any]:
    return {"label": row.label or None} if row.kind != STOCK else _json(row.metadata)


# --- the result ---


def _result_header(row: TaskRow) -> dict[str, Any] | None:
    outcome = row.outcome
    if outcome is None:
        return None
    if outcome.header:
        return _json(outcome.header)
    asked = header_of(row).get("msg_type", "apply_request")
    return _header(f"{row.msg_id}_reply", str(asked).replace("_request", "_reply"), row.engine, outcome.completed)


def _result_metadata(row: TaskRow) -> dict[str, Any] | None:
    outcome = row.outcome
    if outcome is None:
        return None
    if outcome.metadata:
        return _json(outcome.metadata)
    metadata: dict[str, Any] = {"status": _word(outcome), "engine": row.engine, "label": row.label}
    if outcome.started is not None:
        metadata["started"] = jupyter.date_of(outcome.started)
    return metadata


def result_content(row: TaskRow) -> dict[str, Any] | None:
    """The content of the reply; of a native error it is read from the body."""
    outcome = row.outcome
    if outcome is None:
        return None
    if outcome.content:
        return _json(outcome.content)
    if outcome.status == "ok":
        return {"status": "ok"}
    if outcome.status != "error":
        return failure_content(outcome.status, outcome.message)
    try:
        failure = unpack_failure(outcome.body)
    except WireError as error:
        return failure_content("error", str(error))
    return {
        "status": "error",
        "ename": failure.name.rpartition(".")[2],
        "evalue": failure.message,
        "traceback": failure.traceback.splitlines(),
        "engine_info": {"engine_uuid": row.engine, "engine_id": row.engine_id, "method": "apply"},
    }


def _word(outcome: Outcome) -> str:
    return outcome.status if outcome.status in {"ok", "aborted"} else "error"


def _header(msg_id: str, kind: str, session: str, when: float) -> dict[str, Any]:
    return {
        "msg_id": msg_id,
        "msg_type": kind,
        "username": "",
        "session": session,
        "date": jupyter.date_of(when),
        "version": jupyter.VERSION,
    }


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data) if data else {}
    except msgspec.DecodeError:
        # What a client sent, kept as it came: half of a surrogate pair, say, which its own JSON takes.
        return {}
    return value if isinstance(value, dict) else {}


# --- what it has shown ---


def _shown(kind: str) -> Callable[[TaskRow], Any]:
    def get(row: TaskRow) -> Any:
        data = getattr(row.output, kind, b"")
        return msgspec.json.decode(data) if data else None

    return get


def _stream(name: str) -> Callable[[TaskRow], str]:
    def get(row: TaskRow) -> str:
        return "".join(getattr(row.output, name, ()))

    return get


def _started(row: TaskRow) -> float | None:
    return None if row.outcome is None else row.outcome.started


TIMES: Final = frozenset({"submitted", "started", "completed", "received"})
"""Fields that hold times; FIELDS gives them in seconds since the epoch."""
BUFFERS: Final = frozenset({"buffers", "result_buffers"})
"""Fields that are only given when they are named."""

FIELDS: Final[dict[str, Callable[[TaskRow], Any]]] = {
    "msg_id": lambda row: row.msg_id,
    "header": header_of,
    "metadata": _metadata,
    "content": lambda row: _json(row.content),
    "buffers": request_buffers,
    "submitted": lambda row: row.submitted,
    "client_uuid": lambda row: row.client,
    "engine_uuid": lambda row: row.engine or None,
    "started": _started,
    "completed": lambda row: None if row.outcome is None else row.outcome.completed,
    "resubmitted": lambda row: row.resubmitted or None,
    "received": lambda row: None if row.outcome is None else row.outcome.received,
    "result_header": _result_header,
    "result_metadata": _result_metadata,
    "result_content": result_content,
    "result_buffers": result_buffers,
    "queue": lambda row: row.queue,
    "execute_input": _shown("execute_input"),
    "execute_result": _shown("execute_result"),
    "error": _shown("error"),
    "stdout": _stream("stdout"),
    "stderr": _stream("stderr"),
    "label": lambda row: row.label or None,
    "status": lambda row: None if row.outcome is None else row.outcome.status,
    "engine_id": lambda row: None if row.engine_id < 0 else row.engine_id,
    "attempt": lambda row: row.attempt,
    "name": lambda row: row.name or None,
    "place": lambda row: row.place or None,
}
"""Every field that can be asked for or searched, and how it is had from a row. Those from `status` on are ours."""

OURS: Final = frozenset({"status", "engine_id", "attempt", "name", "place"})
"""Fields that ipyparallel's records have not: they are only given when they are named."""
RECORD: Final = tuple(key for key in FIELDS if key not in BUFFERS and key not in OURS)
"""The keys of a whole record."""

"""Rows as MongoDB documents and back. A document has 16 MiB at the most: what is larger lies in GridFS, and its name in the document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from clusterd.storage.taskstore.row import OUTCOME, PARTIAL, REQUEST, Outcome, Output, TaskRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from clusterd.storage.taskstore.query import Query

    Upload = Callable[[str, str, Any], str]
    Download = Callable[[str], bytes]

INLINE: Final = 256 * 1024
"""Bytes of one value that lie in the document; and of all its values together BUDGET."""
BUDGET: Final = 8 * 1024**2
PIECE: Final = 1024**2
WITHOUT_BUFFERS: Final = {"body": 0, "buffers": 0, "result_body": 0, "result_buffers": 0}

_PLAIN: Final = (
    "client",
    "queue",
    "submitted",
    "kind",
    "function",
    "label",
    "is_whole",
    "engine",
    "engine_id",
    "attempt",
    "resubmitted",
    "order",
    "size",
    "is_owed",
    "name",
    "place",
)
_CHANGING: Final = ("engine", "engine_id", "attempt", "resubmitted", "size", "is_owed", "place")
_JSON: Final = ("header", "metadata", "content")
_SHOWN: Final = ("execute_input", "execute_result", "error")
_COLUMN_OF: Final = {"msg_id": "_id", "client_uuid": "client", "queue": "queue", "status": "status"}
_BOUNDS: Final = {"$lt": ("$lte", 1), "$lte": ("$lte", 1), "$gt": ("$gte", -1), "$gte": ("$gte", -1)}


class _Packer:
    """Decides what lies in the document."""

    def __init__(self, msg_id: str, upload: Upload) -> None:
        self._msg_id = msg_id
        self._upload = upload
        self._left = BUDGET

    def __call__(self, part: str, data: Any) -> Any:
        size = len(data)
        if size <= INLINE and size <= self._left:
            self._left -= size
            return bytes(data)
        return {"file": self._upload(self._msg_id, part, data)}

    def all(self, part: str, buffers: Iterable[Any]) -> list[Any]:
        """Several of them."""
        return [self(f"{part}/{number}", buffer) for number, buffer in enumerate(buffers)]


def fields_of(row: TaskRow, parts: int, upload: Upload) -> dict[str, Any]:
    """What is to be written of a row: all of it with REQUEST, else what can change, and its end with OUTCOME."""
    pack = _Packer(row.msg_id, upload)
    names = _PLAIN if parts & REQUEST else _CHANGING
    fields: dict[str, Any] = {name: getattr(row, name) for name in names}
    if parts & REQUEST:
        fields["_id"] = row.msg_id
        fields["completed"] = None
        fields["wish"] = row.wish
        for name in _JSON:
            fields[name] = pack(name, getattr(row, name))
        fields["body"] = pack("body", row.body)
        fields["buffers"] = pack.all("buffers", row.buffers)
    output = row.output
    if output is not None:
        fields["stdout"] = pack("stdout", "".join(output.stdout).encode())
        fields["stderr"] = pack("stderr", "".join(output.stderr).encode())
        for name in _SHOWN:
            fields[name] = pack(name, getattr(output, name))
    outcome = row.outcome
    if parts & OUTCOME and outcome is not None:
        fields["status"] = outcome.status
        fields["started"] = outcome.started
        fields["completed"] = outcome.completed
        fields["received"] = outcome.received
        fields["message"] = outcome.message
        fields["display"] = pack("display", outcome.display)
        for name in _JSON:
            fields[f"result_{name}"] = pack(f"result_{name}", getattr(outcome, name))
        fields["result_body"] = pack("result_body", outcome.body)
        fields["result_buffers"] = pack.all("result_buffers", outcome.buffers)
    return fields


def row_of(found: dict[str, Any], download: Download, *, has_buffers: bool) -> TaskRow:
    """The row of a document, which may have been fetched without buffers."""

    def data(value: Any) -> bytes:
        if value is None:
            return b""
        return download(value["file"]) if isinstance(value, dict) else bytes(value)

    plain: dict[str, Any] = {name: found[name] for name in _PLAIN if name in found}
    asked: dict[str, Any] = {name: data(found[name]) for name in _JSON}
    row = TaskRow(
        msg_id=found["_id"],
        **plain,
        **asked,
        body=data(found.get("body")),
        buffers=[data(value) for value in found.get("buffers", ())],
        stored=REQUEST if has_buffers else REQUEST | PARTIAL,
        wish=bytes(found.get("wish", b"")),
    )
    if "stdout" in found:
        shown: dict[str, Any] = {name: data(found[name]) for name in _SHOWN}
        row.output = Output(**shown)
        row.output.write("stdout", data(found["stdout"]).decode())
        row.output.write("stderr", data(found["stderr"]).decode())
    if found.get("status") is not None:
        row.stored |= OUTCOME
        answered: dict[str, Any] = {name: data(found[f"result_{name}"]) for name in _JSON}
        row.outcome = Outcome(
            status=found["status"],
            started=found["started"],
            completed=found["completed"],
            received=found["received"],
            message=found["message"],
            **answered,
            body=data(found.get("result_body")),
            buffers=[data(value) for value in found.get("result_buffers", ())],
            display=data(found.get("display")),
        )
    return row


def translated(query: Query) -> tuple[dict[str, Any], bool]:
    """(a filter, whether it says all that the query says); never less is found than what matches."""
    terms: list[dict[str, Any]] = []
    is_exact = True
    for condition in query.conditions:
        field, operator, argument = condition
        column = _COLUMN_OF.get(field)
        if column and operator == "$eq" and isinstance(argument, str):
            terms.append({column: {"$eq": argument}})
        elif column and operator == "$in" and all(type(item) is str for item in argument):
            terms.append({column: {"$in": argument}})
        elif field == "engine_uuid" and operator == "$eq" and isinstance(argument, str) and argument:
            terms.append({"engine": {"$eq": argument}})
        elif column and operator == "$nin" and all(type(item) is str for item in argument):
            terms.append({column: {"$nin": argument}})
        elif field in {"status", "completed"} and operator in {"$eq", "$ne"} and argument is None:
            terms.append({field: {operator: None}})
        elif field in {"submitted", "completed"} and operator in _BOUNDS and argument is not None:
            # A microsecond more than asked: the query itself decides about the edge.
            word, by = _BOUNDS[operator]
            terms.append({field: {word: (argument + by) / 1_000_000}})
            is_exact = False
        else:
            is_exact = False
    return ({"$and": terms} if terms else {}), is_exact

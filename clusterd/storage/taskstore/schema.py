"""The SQLite schema of task records: its version, its migrations, and rows to columns and back.

A file of ours has `application_id` APPLICATION and its version in `user_version`. A column is what is looked for; all else of a row lies
in three blobs of MessagePack (request, state, outcome), or in the first alone where it is written once: each value costs 0.2 us. What
is larger than INLINE lies in a table of its own, in pieces, so that a buffer of hundreds of MB is never held a second time: pieces
of a request have side 0, those of a result side 1, and a native body is buffer -1. A function is one row for each of its parts.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clusterd.storage.taskstore.row import (
    OUTCOME,
    OWED_TO_STOCK,
    OWED_UNSEEN,
    PARTIAL,
    REQUEST,
    UNSEEN,
    Outcome,
    Output,
    TaskRow,
    debt_of,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator, Mapping, Sequence

APPLICATION: Final = 0x436C5472
INLINE: Final = 16 * 1024
"""Bytes of body and buffers, of the request and of the result, that lie in the row: it is written anew when its task ends."""
PIECE: Final = 1024**2
REQUEST_SIDE: Final = 0
RESULT_SIDE: Final = 1
BODY: Final = -1

# What takes a file from the version before to this one, in order: append only. Blobs come last: what is looked for is before them.
MIGRATIONS: Final = (
    (
        """
        CREATE TABLE tasks (
            id INTEGER PRIMARY KEY,
            msg_id TEXT NOT NULL UNIQUE,
            client TEXT NOT NULL,
            label TEXT,
            name TEXT NOT NULL,
            submitted REAL NOT NULL,
            engine TEXT NOT NULL,
            place TEXT NOT NULL,
            size INTEGER NOT NULL,
            is_owed INTEGER NOT NULL,
            status TEXT,
            completed REAL,
            request BLOB NOT NULL,
            state BLOB,
            outcome BLOB
        )
        """,
        """
        CREATE TABLE pieces (
            task INTEGER NOT NULL,
            side INTEGER NOT NULL,
            buffer INTEGER NOT NULL,
            piece INTEGER NOT NULL,
            data BLOB NOT NULL
        )
        """,
        "CREATE INDEX pieces_of_task ON pieces (task, side, buffer, piece)",
        "CREATE INDEX tasks_by_submitted ON tasks (submitted)",
        "CREATE INDEX tasks_by_completed ON tasks (completed)",
        "CREATE INDEX tasks_owed ON tasks (client) WHERE is_owed",
        """
        CREATE TABLE functions (
            digest BLOB NOT NULL,
            part INTEGER NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (digest, part)
        ) WITHOUT ROWID
        """,
    ),
)
VERSION: Final = len(MIGRATIONS)

COLUMNS: Final = (
    "id",
    "msg_id",
    "client",
    "label",
    "name",
    "submitted",
    "engine",
    "place",
    "size",
    "is_owed",
    "status",
    "completed",
    "request",
    "state",
    "outcome",
)
# The SQL is made of the names above only.
SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM tasks"  # noqa: S608
CHANGE: Final = "UPDATE tasks SET engine = ?, place = ?, size = ?, is_owed = ?, state = ? WHERE id = ?"
FINISH: Final = (
    "UPDATE tasks SET engine = ?, place = ?, size = ?, is_owed = ?, state = ?, status = ?, completed = ?, outcome = ?"
    " WHERE id = ?"
)
# What was hidden stays so (`debt_of`).
SETTLE: Final = f"UPDATE tasks SET is_owed = CASE WHEN is_owed IN ({OWED_UNSEEN}, {UNSEEN}) THEN {UNSEEN} ELSE 0 END"  # noqa: S608
UNFINISHED: Final = "is_owed AND is_owed > 0 AND completed IS NULL"
OWED_TO: Final = "SELECT id, msg_id, size FROM tasks WHERE is_owed AND is_owed > 0 AND completed IS NOT NULL AND client = ? ORDER BY id"
HISTORY: Final = f"SELECT submitted, msg_id FROM tasks WHERE is_owed BETWEEN 0 AND {OWED_TO_STOCK} ORDER BY submitted"  # noqa: S608
PUT_PIECE: Final = "INSERT INTO pieces VALUES (?, ?, ?, ?, ?)"


class _State(msgspec.Struct, array_like=True, gc=False):
    engine_id: int
    attempt: int
    resubmitted: str
    # stdout, stderr, execute_input, execute_result, error; None: it has shown nothing.
    shown: tuple[str, str, bytes, bytes, bytes] | None


class _End(msgspec.Struct, array_like=True, gc=False):
    started: float | None
    received: float
    message: str
    header: bytes
    metadata: bytes
    content: bytes
    display: bytes
    body: bytes
    # None: these and the body lie in pieces.
    buffers: list[bytes] | None


class _Request(msgspec.Struct, array_like=True, gc=False):
    queue: str
    kind: int
    function: bytes
    header: bytes
    metadata: bytes
    content: bytes
    is_whole: bool
    wish: bytes
    body: bytes
    buffers: list[bytes] | None
    # Where the columns of these names are null.
    state: _State | None = None
    end: _End | None = None


_encode = msgspec.msgpack.Encoder().encode
_state_of = msgspec.msgpack.Decoder(_State).decode
_request_of = msgspec.msgpack.Decoder(_Request).decode
_end_of = msgspec.msgpack.Decoder(_End).decode


@cache
def insert(rows: int) -> str:
    """The statement that inserts so many rows. One for many costs a third of many for one: each hands over the interpreter's lock."""
    values = f"({', '.join('?' * len(COLUMNS))})"
    return f"INSERT INTO tasks ({', '.join(COLUMNS)}) VALUES {', '.join([values] * rows)}"  # noqa: S608


def is_inline(body: bytes, buffers: Sequence[Any]) -> bool:
    """Say whether they lie in the row."""
    return len(body) + (sum(map(len, buffers)) if buffers else 0) <= INLINE


def values_of(row: TaskRow, outcome: Outcome | None) -> tuple[Any, ...]:
    """All columns of a new row."""
    body, buffers = _inline(row.body, row.buffers)
    state: bytes | None = None
    status: str | None = None
    completed: float | None = None
    request: tuple[Any, ...] = (
        row.queue,
        row.kind,
        row.function,
        row.header,
        row.metadata,
        row.content,
        row.is_whole,
        row.wish,
        body,
        buffers,
    )
    if outcome is None:
        state = _encode(_state(row))
    else:
        status, completed = outcome.status, outcome.completed
        request = (*request, _state(row), _end(outcome))
    return (
        row.order,
        row.msg_id,
        row.client,
        row.label,
        row.name,
        row.submitted,
        row.engine,
        row.place,
        row.size,
        debt_of(row),
        status,
        completed,
        _encode(request),
        state,
        None,
    )


def change_values(row: TaskRow) -> tuple[Any, ...]:
    """The values of CHANGE."""
    return (row.engine, row.place, row.size, debt_of(row), _encode(_state(row)), row.order)


def finish_values(row: TaskRow, outcome: Outcome) -> tuple[Any, ...]:
    """The values of FINISH."""
    changed = (row.engine, row.place, row.size, debt_of(row), _encode(_state(row)))
    return (*changed, outcome.status, outcome.completed, _encode(_end(outcome)), row.order)


def _inline(body: bytes, buffers: Sequence[Any]) -> tuple[bytes, list[bytes] | None]:
    if not buffers:
        return (body, []) if len(body) <= INLINE else (b"", None)
    return (body, list(map(bytes, buffers))) if is_inline(body, buffers) else (b"", None)


def _state(row: TaskRow) -> tuple[Any, ...]:
    output = row.output
    if output is None:
        return (row.engine_id, row.attempt, row.resubmitted, None)
    shown = ("".join(output.stdout), "".join(output.stderr), output.execute_input, output.execute_result, output.error)
    return (row.engine_id, row.attempt, row.resubmitted, shown)


def _end(outcome: Outcome) -> tuple[Any, ...]:
    return (
        outcome.started,
        outcome.received,
        outcome.message,
        outcome.header,
        outcome.metadata,
        outcome.content,
        outcome.display,
        *_inline(outcome.body, outcome.buffers),
    )


def row_of(values: tuple[Any, ...]) -> TaskRow:
    """A row from COLUMNS; PARTIAL where something of it lies in pieces."""
    order, msg_id, client, label, name, submitted, engine, place, size, is_owed, status, completed, *blobs = values
    request = _request_of(blobs[0])
    state = request.state if blobs[1] is None else _state_of(blobs[1])
    row = TaskRow(
        msg_id=msg_id,
        client=client,
        queue=request.queue,
        submitted=submitted,
        kind=request.kind,
        function=request.function,
        body=request.body,
        buffers=request.buffers or (),
        label=label,
        header=request.header,
        metadata=request.metadata,
        content=request.content,
        engine=engine,
        engine_id=-1 if state is None else state.engine_id,
        attempt=0 if state is None else state.attempt,
        resubmitted="" if state is None else state.resubmitted,
        is_whole=request.is_whole,
        order=order,
        size=size,
        stored=REQUEST if request.buffers is not None else REQUEST | PARTIAL,
        wish=request.wish,
        is_owed=is_owed > 0,
        name=name,
        place=place,
    )
    if state is not None and state.shown is not None:
        stdout, stderr, execute_input, execute_result, error = state.shown
        output = row.output = Output(execute_input=execute_input, execute_result=execute_result, error=error)
        output.write("stdout", stdout)
        output.write("stderr", stderr)
    end = request.end if blobs[2] is None else _end_of(blobs[2])
    if end is not None:
        row.stored |= OUTCOME if end.buffers is not None else OUTCOME | PARTIAL
        row.outcome = Outcome(
            status=status,
            completed=completed,
            received=end.received,
            started=end.started,
            body=end.body,
            buffers=end.buffers or (),
            message=end.message,
            header=end.header,
            metadata=end.metadata,
            content=end.content,
            display=end.display,
        )
    return row


def pieces_of(order: int, side: int, body: bytes, buffers: Sequence[Any]) -> Iterator[tuple[int, int, int, int, Any]]:
    """The rows of table pieces for one side of a task; an empty buffer has one empty piece, an empty body none."""
    numbered = [(BODY, body)] if body else []
    for number, buffer in [*numbered, *enumerate(buffers)]:
        view = memoryview(buffer)
        view = view if view.format == "B" and view.ndim == 1 else view.cast("B")
        for piece, start in enumerate(range(0, max(len(view), 1), PIECE)):
            yield order, side, number, piece, view[start : start + PIECE]


def read_pieces(connection: sqlite3.Connection, row: TaskRow) -> None:
    """Fill in what of a row lies in pieces."""
    if not row.stored & PARTIAL:
        return
    parts: dict[tuple[int, int], list[bytes]] = {}
    pieces = connection.execute(
        "SELECT side, buffer, data FROM pieces WHERE task = ? ORDER BY side, buffer, piece", (row.order,)
    )
    for side, buffer, data in pieces:
        parts.setdefault((side, buffer), []).append(data)
    whole = {place: data[0] if len(data) == 1 else b"".join(data) for place, data in parts.items()}
    sides = {side for side, _ in whole}
    if REQUEST_SIDE in sides:
        row.body = whole.pop((REQUEST_SIDE, BODY), b"")
        row.buffers = [data for (side, _), data in whole.items() if side == REQUEST_SIDE]
    if RESULT_SIDE in sides and row.outcome is not None:
        row.outcome.body = whole.pop((RESULT_SIDE, BODY), b"")
        row.outcome.buffers = [data for (side, _), data in whole.items() if side == RESULT_SIDE]
    row.stored &= ~PARTIAL


def write_functions(
    connection: sqlite3.Connection, kept: Mapping[bytes, Sequence[Any]], dropped: Collection[bytes]
) -> None:
    """Bring the table functions up to date."""
    connection.executemany("DELETE FROM functions WHERE digest = ?", [(digest,) for digest in {*dropped, *kept}])
    connection.executemany(
        "INSERT OR REPLACE INTO functions VALUES (?, ?, ?)",
        [(digest, number, data) for digest, parts in kept.items() for number, data in enumerate(parts)],
    )


def read_functions(connection: sqlite3.Connection) -> dict[bytes, list[bytes]]:
    """All functions, each by its digest in its parts."""
    found: dict[bytes, list[bytes]] = {}
    for digest, data in connection.execute("SELECT digest, data FROM functions ORDER BY digest, part"):
        found.setdefault(digest, []).append(data)
    return found

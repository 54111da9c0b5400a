"""The SQLite schema of task records: its version, its migrations, and rows to columns and back.

A file of ours has `application_id` APPLICATION and its version in `user_version`. Buffers lie in a table of their own, in pieces,
so that one of hundreds of MB is never held a second time; the pieces of a request have side 0, those of a result side 1, and a
native body is buffer -1. A function is one row for each of its parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from clusterd.storage.taskstore.row import OUTCOME, PARTIAL, REQUEST, Outcome, Output, TaskRow

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator, Mapping, Sequence

APPLICATION: Final = 0x436C5464
PIECE: Final = 1024**2
REQUEST_SIDE: Final = 0
RESULT_SIDE: Final = 1
BODY: Final = -1

# What takes a file from the version before to this one, in order: append only.
MIGRATIONS: Final = (
    (
        """
        CREATE TABLE tasks (
            id INTEGER PRIMARY KEY,
            msg_id TEXT NOT NULL UNIQUE,
            client TEXT NOT NULL,
            queue TEXT NOT NULL,
            submitted REAL NOT NULL,
            kind INTEGER NOT NULL,
            function BLOB NOT NULL,
            label TEXT,
            header BLOB NOT NULL,
            metadata BLOB NOT NULL,
            content BLOB NOT NULL,
            is_whole INTEGER NOT NULL,
            engine TEXT NOT NULL,
            engine_id INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            resubmitted TEXT NOT NULL,
            stdout TEXT NOT NULL,
            stderr TEXT NOT NULL,
            execute_input BLOB NOT NULL,
            execute_result BLOB NOT NULL,
            error BLOB NOT NULL,
            status TEXT,
            started REAL,
            completed REAL,
            received REAL,
            message TEXT,
            result_header BLOB,
            result_metadata BLOB,
            result_content BLOB,
            size INTEGER NOT NULL
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
        "CREATE INDEX tasks_by_client ON tasks (client)",
        "CREATE INDEX tasks_by_engine ON tasks (engine)",
    ),
    (
        "ALTER TABLE tasks ADD COLUMN wish BLOB NOT NULL DEFAULT x''",
        "ALTER TABLE tasks ADD COLUMN is_owed INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE tasks ADD COLUMN display BLOB",
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
    (
        "ALTER TABLE tasks ADD COLUMN name TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE tasks ADD COLUMN place TEXT NOT NULL DEFAULT ''",
    ),
)
VERSION: Final = len(MIGRATIONS)

FIXED: Final = (
    "id",
    "msg_id",
    "client",
    "queue",
    "submitted",
    "kind",
    "function",
    "label",
    "header",
    "metadata",
    "content",
    "is_whole",
    "wish",
    "name",
)
CHANGING: Final = (
    "engine",
    "engine_id",
    "attempt",
    "resubmitted",
    "stdout",
    "stderr",
    "execute_input",
    "execute_result",
    "error",
    "size",
    "is_owed",
    "place",
)
END: Final = (
    "status",
    "started",
    "completed",
    "received",
    "message",
    "result_header",
    "result_metadata",
    "result_content",
    "display",
)
COLUMNS: Final = (*FIXED, *CHANGING, *END)

# The SQL is made of the names above only.
INSERT: Final = (
    f"INSERT INTO tasks ({', '.join((*FIXED, *CHANGING))}) VALUES ({', '.join('?' * len((*FIXED, *CHANGING)))})"  # noqa: S608
)
CHANGE: Final = f"UPDATE tasks SET {', '.join(f'{name} = ?' for name in CHANGING)} WHERE id = ?"  # noqa: S608
FINISH: Final = f"UPDATE tasks SET {', '.join(f'{name} = ?' for name in END)} WHERE id = ?"  # noqa: S608
UNFINISHED: Final = "is_owed AND completed IS NULL"
OWED_TO: Final = "is_owed AND completed IS NOT NULL AND client = ?"
SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM tasks"  # noqa: S608


def fixed_values(row: TaskRow) -> tuple[Any, ...]:
    """The columns FIXED."""
    return (
        row.order,
        row.msg_id,
        row.client,
        row.queue,
        row.submitted,
        row.kind,
        row.function,
        row.label,
        row.header,
        row.metadata,
        row.content,
        row.is_whole,
        row.wish,
        row.name,
    )


def changing_values(row: TaskRow) -> tuple[Any, ...]:
    """The columns CHANGING."""
    output = row.output
    shown: tuple[Any, ...] = ("", "", b"", b"", b"")
    if output is not None:
        streams = ("".join(output.stdout), "".join(output.stderr))
        shown = (*streams, output.execute_input, output.execute_result, output.error)
    return (row.engine, row.engine_id, row.attempt, row.resubmitted, *shown, row.size, row.is_owed, row.place)


def end_values(outcome: Outcome) -> tuple[Any, ...]:
    """The columns END."""
    return (
        outcome.status,
        outcome.started,
        outcome.completed,
        outcome.received,
        outcome.message,
        outcome.header,
        outcome.metadata,
        outcome.content,
        outcome.display,
    )


def row_of(values: tuple[Any, ...]) -> TaskRow:
    """A row from COLUMNS, without body and buffers."""
    at = dict(zip(COLUMNS, values, strict=True))
    row = TaskRow(
        msg_id=at["msg_id"],
        client=at["client"],
        queue=at["queue"],
        submitted=at["submitted"],
        kind=at["kind"],
        function=at["function"],
        label=at["label"],
        header=at["header"],
        metadata=at["metadata"],
        content=at["content"],
        is_whole=bool(at["is_whole"]),
        engine=at["engine"],
        engine_id=at["engine_id"],
        attempt=at["attempt"],
        resubmitted=at["resubmitted"],
        order=at["id"],
        size=at["size"],
        stored=REQUEST | PARTIAL,
        wish=at["wish"],
        is_owed=bool(at["is_owed"]),
        name=at["name"],
        place=at["place"],
    )
    if at["stdout"] or at["stderr"] or at["execute_input"] or at["execute_result"] or at["error"]:
        output = row.output = Output(
            execute_input=at["execute_input"], execute_result=at["execute_result"], error=at["error"]
        )
        output.write("stdout", at["stdout"])
        output.write("stderr", at["stderr"])
    if at["status"] is not None:
        row.stored |= OUTCOME
        row.outcome = Outcome(
            status=at["status"],
            started=at["started"],
            completed=at["completed"],
            received=at["received"],
            message=at["message"],
            header=at["result_header"],
            metadata=at["result_metadata"],
            content=at["result_content"],
            display=at["display"] or b"",
        )
    return row


def pieces_of(order: int, side: int, body: bytes, buffers: Any) -> Iterator[tuple[int, int, int, int, Any]]:
    """The rows of table pieces for one side of a task; an empty buffer has one empty piece, an empty body none."""
    numbered = [(BODY, body)] if body else []
    for number, buffer in [*numbered, *enumerate(buffers)]:
        view = memoryview(buffer)
        view = view if view.format == "B" and view.ndim == 1 else view.cast("B")
        for piece, start in enumerate(range(0, max(len(view), 1), PIECE)):
            yield order, side, number, piece, view[start : start + PIECE]


def read_pieces(connection: sqlite3.Connection, row: TaskRow) -> None:
    """Fill in body and buffers of a row."""
    parts: dict[tuple[int, int], list[bytes]] = {}
    pieces = connection.execute(
        "SELECT side, buffer, data FROM pieces WHERE task = ? ORDER BY side, buffer, piece", (row.order,)
    )
    for side, buffer, data in pieces:
        parts.setdefault((side, buffer), []).append(data)
    whole = {place: b"".join(data) for place, data in parts.items()}
    row.body = whole.pop((REQUEST_SIDE, BODY), b"")
    row.buffers = [data for (side, _), data in whole.items() if side == REQUEST_SIDE]
    if row.outcome is not None:
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

"""The rows of a SQLite file: put in, changed, removed, culled, and counted meanwhile. On the writer's thread, in its transactions.

What is alike goes into one statement: each call of sqlite3 hands over the interpreter's lock, which costs more than a row does.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from typing import TYPE_CHECKING, Any, Final, TypeVar

from clusterd.storage.taskstore import schema
from clusterd.storage.taskstore.row import OUTCOME, OWED, REQUEST, end_size

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from clusterd.storage.taskstore.row import TaskRow

_T = TypeVar("_T")
AT_ONCE: Final = (64, 8, 1)
"""Rows of one INSERT. Each length is a statement that SQLite keeps compiled."""
MAX_IDS: Final = 500
"""Of one statement; SQLite before 3.32 takes 999 values."""
CULL: Final = 1000
"""Records that are removed in one transaction when there are too many."""


class Rows:
    """The table `tasks` and what lies beside it.

    Attributes:
        records, bytes: of all rows, near enough; exact from the first `count` on.
        is_counted: that has been.
    """

    def __init__(self) -> None:
        self.records = 0
        self.bytes = 0
        self.is_counted = False

    def count(self, connection: sqlite3.Connection) -> None:
        """Look how many there are: with a million that takes longer than a start may."""
        self.records, self.bytes = connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM tasks").fetchone()
        self.is_counted = True

    def write(
        self,
        connection: sqlite3.Connection,
        rows: Sequence[tuple[TaskRow, int]],
        purged: Collection[str],
        settled: Collection[str],
    ) -> None:
        """See `Backend.write`; in a transaction."""
        before = self.records, self.bytes
        try:
            self._remove(connection, purged)
            self._insert(connection, [(row, parts) for row, parts in rows if parts & REQUEST])
            self._change(connection, [(row, parts) for row, parts in rows if not parts & REQUEST])
            for some in portions(settled):
                connection.execute(f"{schema.SETTLE} WHERE msg_id IN ({marks(some)})", some)
        except BaseException:
            self.records, self.bytes = before
            raise

    def _insert(self, connection: sqlite3.Connection, rows: list[tuple[TaskRow, int]]) -> None:
        execute, start = connection.execute, 0
        for count in AT_ONCE:
            statement = schema.insert(count)
            while len(rows) - start >= count:
                some = rows[start : start + count]
                values: list[Any] = []
                for row, parts in some:
                    values += schema.values_of(row, row.outcome if parts & OUTCOME else None)
                try:
                    execute(statement, values)
                except sqlite3.IntegrityError:
                    # Some have come again under the same id. Nearly none do, so it is not looked for before.
                    self._remove(connection, [row.msg_id for row, _ in some])
                    execute(statement, values)
                start += count
        for row, parts in rows:
            self.bytes += row.size
            if row.size > schema.INLINE:
                self._put_pieces(connection, row, parts)
        self.records += len(rows)

    def _change(self, connection: sqlite3.Connection, rows: list[tuple[TaskRow, int]]) -> None:
        if not rows:
            return
        ended = [(row, row.outcome) for row, parts in rows if parts & OUTCOME and row.outcome is not None]
        connection.executemany(schema.FINISH, [schema.finish_values(row, outcome) for row, outcome in ended])
        others = [schema.change_values(row) for row, parts in rows if not parts & OUTCOME]
        connection.executemany(schema.CHANGE, others)
        for row, outcome in ended:
            self.bytes += end_size(outcome, row.output)
            if row.size > schema.INLINE:
                self._put_pieces(connection, row, OUTCOME)

    @staticmethod
    def _put_pieces(connection: sqlite3.Connection, row: TaskRow, parts: int) -> None:
        outcome = row.outcome
        if parts & REQUEST and not schema.is_inline(row.body, row.buffers):
            pieces = schema.pieces_of(row.order, schema.REQUEST_SIDE, row.body, row.buffers)
            connection.executemany(schema.PUT_PIECE, pieces)
        if parts & OUTCOME and outcome is not None and not schema.is_inline(outcome.body, outcome.buffers):
            pieces = schema.pieces_of(row.order, schema.RESULT_SIDE, outcome.body, outcome.buffers)
            connection.executemany(schema.PUT_PIECE, pieces)

    def _remove(self, connection: sqlite3.Connection, msg_ids: Collection[str]) -> None:
        for some in portions(msg_ids):
            found = connection.execute(f"SELECT id, size FROM tasks WHERE msg_id IN ({marks(some)})", some)  # noqa: S608
            self._delete(connection, found.fetchall())

    def _delete(self, connection: sqlite3.Connection, found: list[tuple[int, int]]) -> None:
        """Remove rows, each named by its id and counted by its size."""
        for some in portions(found):
            ids, places = [number for number, _ in some], marks(some)
            connection.execute(f"DELETE FROM pieces WHERE task IN ({places})", ids)  # noqa: S608
            connection.execute(f"DELETE FROM tasks WHERE id IN ({places})", ids)  # noqa: S608
            self.records -= len(some)
            self.bytes -= sum(size for _, size in some)

    def cull(
        self,
        connection: sqlite3.Connection,
        field: str,
        before: float,
        is_kept: Callable[[str], bool],
        most: float = -math.inf,
    ) -> int:
        """Remove what is not kept, the first first, until no more than `most` bytes are left; how many.

        Args:
            connection: not in a transaction.
            field: completed: what has ended `before`, with `most` only what is owed to no native client; submitted: what came
                before, has not ended, and is owed to nobody.
            before: seconds since the epoch.
            is_kept: by id.
            most: in the whole table.
        """
        # What has ended grows old, also when it is owed: a client that was killed never says that it does not want it any more.
        where = f"{field} < ?"
        if field == "submitted":
            where += " AND is_owed <= 0 AND completed IS NULL"
        elif most >= 0:
            where += f" AND is_owed != {OWED}"
        removed, place = 0, (-math.inf, -1)
        while self.bytes > most:
            found = connection.execute(
                f"SELECT id, size, msg_id, {field} FROM tasks WHERE {where} AND ({field}, id) > (?, ?)"  # noqa: S608
                f" ORDER BY {field}, id LIMIT ?",
                (before, *place, CULL),
            ).fetchall()
            if not found:
                break
            place = (found[-1][3], found[-1][0])
            doomed, left = [], self.bytes
            for number, size, msg_id, _ in found:
                if left <= most:
                    break
                if not is_kept(msg_id):
                    doomed.append((number, size))
                    left -= size
            with transaction(connection):
                self._delete(connection, doomed)
            removed += len(doomed)
        return removed


def portions(items: Collection[_T]) -> Iterator[list[_T]]:
    """As many as go into one statement."""
    listed = list(items)
    for start in range(0, len(listed), MAX_IDS):
        yield listed[start : start + MAX_IDS]


def marks(values: Sequence[object]) -> str:
    """The places of values in a statement."""
    return ", ".join("?" * len(values))


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors (a full disk): a second time would hide the first reason.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise

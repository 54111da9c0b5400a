"""`database: sqlite`: one file in the profile's directory db, readable after a restart, bounded by age and size.

Two connections: the writer's, and one that reads; in WAL mode neither waits for the other. A file that is damaged, not ours, or of a
later release is set aside under another name, with what belongs to it, and a new one is begun: it is never overwritten. Facts about
SQLite: https://sqlite.org/wal.html, https://sqlite.org/pragma.html.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

from clusterd.errors import StorageError
from clusterd.storage.taskstore import schema
from clusterd.storage.taskstore.backend import StartedAnew
from clusterd.storage.taskstore.durable import DurableStore
from clusterd.storage.taskstore.sqlite_query import read_named, read_page, translated
from clusterd.storage.taskstore.sqlite_rows import Rows, marks, portions, transaction
from clusterd.system import files

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from clusterd.storage.taskstore.pages import Span
    from clusterd.storage.taskstore.query import Query
    from clusterd.storage.taskstore.row import TaskRow

log = logging.getLogger(__name__)
BUSY_SECONDS: Final = 5.0
"""That long another program (a backup, the sqlite3 shell) may hold the file before a write counts as failed."""
WAL_BYTES: Final = 64 * 1024**2


class SqliteStore(DurableStore):
    """Records in a SQLite file.

    Args:
        path: the file; its directory is made where it is missing.
        ttl: seconds that a record is kept after the end of its task; None: for ever.
        max_bytes: of all records; the oldest go first.
        is_synced: each transaction is on disk before it counts as written (it survives a power loss, not just a kill).
        is_durable: see `DurableStore`.

    Raises:
        StorageError: it can be neither opened nor begun.
    """

    kind: ClassVar[str] = "sqlite"

    def __init__(
        self, path: Path, *, ttl: float | None, max_bytes: int, is_synced: bool = False, is_durable: bool = False
    ) -> None:
        self.file = SqliteFile(path, ttl=ttl, max_bytes=max_bytes, is_synced=is_synced)
        super().__init__(self.file, is_durable=is_durable)


class SqliteFile:
    """The file: a `written.Backend`.

    Attributes:
        set_aside: files that were moved out of the way.
    """

    def __init__(self, path: Path, *, ttl: float | None, max_bytes: int, is_synced: bool) -> None:
        self._path = path
        self._ttl = ttl
        self._max_bytes = max_bytes
        self._is_synced = is_synced
        self.set_aside: list[Path] = []
        self._writer: sqlite3.Connection | None = None
        # Guards the reading connection: the writer's thread closes it when the file is exchanged.
        self._reading = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._rows = Rows()
        self.refusal = ""
        # What was found while it was used; the next opening sets it aside.
        self._damage = ""

    # --- opening ---

    def open(self) -> int:
        """See `Backend`."""
        self.close()
        is_anew = False
        try:
            files.private_directory(self._path.parent)
            try:
                highest = self._begin()
            except (sqlite3.DatabaseError, _Unusable) as error:
                if not _is_damage(error):
                    raise
                self.close()
                self._set_aside(str(error))
                is_anew = True
                highest = self._begin()
        except (sqlite3.Error, OSError, StorageError) as error:
            self.close()
            raise StorageError(f"{self._path} cannot be opened: {error}") from error
        if is_anew:
            raise StartedAnew
        return highest

    def _begin(self) -> int:
        if self._damage:
            raise _Unusable(self._damage)
        # Before SQLite opens it: the files that it makes beside it (-wal, -shm) get the same mode.
        self._path.touch(mode=0o600)
        self._path.chmod(0o600)
        self._writer = self._connect()
        self._migrate(self._writer)
        self._rows = Rows()
        # How many they are is counted by the writer (`tidy`): with a million records that takes longer than a start may.
        (highest,) = self._writer.execute("SELECT coalesce(max(id), 0) FROM tasks").fetchone()
        return int(highest)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != schema.APPLICATION:
            raise _Unusable("it is the database of another program")
        if version > schema.VERSION:
            raise _Unusable(f"it has version {version} of the schema, and this release knows up to {schema.VERSION}")
        if not tables:
            # Must come before the first table (https://sqlite.org/pragma.html#pragma_auto_vacuum).
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._is_synced else 'NORMAL'}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        for number in range(version, schema.VERSION):
            with transaction(connection):
                for statement in schema.MIGRATIONS[number]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {schema.APPLICATION}")
                connection.execute(f"PRAGMA user_version = {number + 1}")

    def _set_aside(self, why: str) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        number = 0
        target = self._path.with_name(f"{self._path.name}.set-aside-{stamp}")
        while target.exists():
            number += 1
            target = self._path.with_name(f"{self._path.name}.set-aside-{stamp}-{number}")
        for ending in ("-wal", "-shm", ""):
            source = self._path.with_name(self._path.name + ending)
            with contextlib.suppress(FileNotFoundError):
                source.rename(target.with_name(target.name + ending))
        self.set_aside.append(target)
        self._damage = ""
        log.error("%s cannot be used (%s): it is kept as %s, and a new one is begun", self._path, why, target.name)

    # --- the writer's thread ---

    def write(self, rows: Sequence[tuple[TaskRow, int]], purged: Collection[str], settled: Collection[str]) -> None:
        """See `Backend`."""
        try:
            with transaction(self._usable()) as connection:
                self._rows.write(connection, rows, purged, settled)
        except _OF_ONE_ROW:
            raise  # trying again would not help
        except sqlite3.Error as error:
            raise self._failure(error) from error

    @property
    def has_excess(self) -> bool:
        """See `Backend`."""
        return self._rows.is_counted and self._rows.bytes > self._max_bytes

    def tidy(self, now: float, is_kept: Callable[[str], bool]) -> int:
        """See `Backend`."""
        rows, removed = self._rows, 0
        try:
            connection = self._usable()
            if not rows.is_counted:
                rows.count(connection)
            if self._ttl is not None:
                before = now - self._ttl
                removed += rows.cull(connection, "completed", before, is_kept)
                # What an earlier controller left unended, and owes to nobody, has nobody who could end it.
                removed += rows.cull(connection, "submitted", before, is_kept)
            if self.has_excess:
                removed += rows.cull(connection, "completed", math.inf, is_kept, self._max_bytes)
            if removed:
                # As a script: a single execute() frees one page of them.
                connection.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise self._failure(error) from error
        self.refusal = ""
        if self.has_excess:
            self.refusal = (
                f"what has not ended or is owed to clients takes {rows.bytes} bytes of {self._path.name},"
                f" and max_size is {self._max_bytes}; `clusterctl tasks purge` makes room"
            )
        return removed

    # --- the caller's thread ---

    def get(self, msg_id: str, *, buffers: bool) -> TaskRow | None:
        """See `Backend`."""
        with self._reader_of() as reader:
            found = reader.execute(f"{schema.SELECT} WHERE msg_id = ?", (msg_id,)).fetchone()
            if found is None:
                return None
            row = schema.row_of(found)
            if buffers:
                schema.read_pieces(reader, row)
            return row

    def read(self, query: Query, limit: int | None, *, buffers: bool) -> list[TaskRow]:
        """See `Backend`."""
        where, values, _ = translated(query)
        rows: list[TaskRow] = []
        with self._reader_of() as reader:
            for found in reader.execute(f"{schema.SELECT} WHERE {where} ORDER BY id", values):
                if len(rows) == limit:
                    break
                row = schema.row_of(found)
                if query.matches(row):
                    rows.append(row)
            if buffers:
                for row in rows:
                    schema.read_pieces(reader, row)
        return rows

    def page(
        self, query: Query, span: Span, limit: int, look: int, *, newest_first: bool
    ) -> tuple[list[TaskRow], int | None]:
        """See `Backend`."""
        with self._reader_of() as reader:
            return read_page(reader, query, span, limit, look, newest_first=newest_first)

    def named(self, pattern: str, limit: int) -> list[str]:
        """See `Backend`."""
        with self._reader_of() as reader:
            return read_named(reader, pattern, limit)

    def matching_ended(self, query: Query) -> list[str]:
        """See `Backend`."""
        where, values, is_exact = translated(query)
        if not is_exact:
            return [row.msg_id for row in self.read(query, None, buffers=False) if row.outcome is not None]
        with self._reader_of() as reader:
            found = reader.execute(f"SELECT msg_id FROM tasks WHERE {where} AND completed IS NOT NULL", values)  # noqa: S608
            return [msg_id for (msg_id,) in found]

    def unfinished(self) -> list[TaskRow]:
        """See `Backend`."""
        with self._reader_of() as reader:
            found = reader.execute(f"{schema.SELECT} WHERE {schema.UNFINISHED} ORDER BY id")
            return _whole(reader, found)

    def owed_to(self, client: str) -> list[tuple[int, str, int]]:
        """See `Backend`."""
        with self._reader_of() as reader:
            return reader.execute(schema.OWED_TO, (client,)).fetchall()

    def whole(self, msg_ids: Sequence[str]) -> list[TaskRow]:
        """See `Backend`."""
        rows: list[TaskRow] = []
        with self._reader_of() as reader:
            for some in portions(msg_ids):
                rows += _whole(reader, reader.execute(f"{schema.SELECT} WHERE msg_id IN ({marks(some)})", some))
        return rows

    def write_functions(self, kept: Mapping[bytes, Sequence[Any]], dropped: Collection[bytes]) -> None:
        """See `Backend`."""
        try:
            with transaction(self._usable()) as connection:
                schema.write_functions(connection, kept, dropped)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def functions(self) -> dict[bytes, list[bytes]]:
        """See `Backend`."""
        with self._reader_of() as reader:
            return schema.read_functions(reader)

    def history(self) -> Iterable[tuple[float, str]]:
        """See `Backend`."""
        with self._reader_of() as reader:
            return reader.execute(schema.HISTORY).fetchall()

    def size(self) -> tuple[int, int]:
        """See `Backend`."""
        return self._rows.records, self._rows.bytes

    def close(self) -> None:
        """See `Backend`."""
        with self._reading:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    with contextlib.suppress(sqlite3.Error):
                        connection.close()
            self._reader = self._writer = None

    @contextlib.contextmanager
    def _reader_of(self) -> Iterator[sqlite3.Connection]:
        with self._reading:
            try:
                if self._reader is None:
                    self._reader = self._connect()
                    self._reader.execute("PRAGMA query_only = ON")
                yield self._reader
            except sqlite3.Error as error:
                raise self._failure(error) from error

    def _usable(self) -> sqlite3.Connection:
        if self._writer is None:
            raise sqlite3.OperationalError("it is not open")
        return self._writer

    def _failure(self, error: sqlite3.Error) -> StorageError:
        if _is_damage(error) and getattr(error, "sqlite_errorname", "") != "SQLITE_ERROR":
            self._damage = str(error)
        is_full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
        hint = f"Make room on the file system of {self._path.parent}; it goes on by itself then." if is_full else ""
        return StorageError(f"{self._path}: {error}", hint=hint)


_OF_ONE_ROW: Final = (sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.IntegrityError)


def _whole(reader: sqlite3.Connection, found: Iterable[tuple[Any, ...]]) -> list[TaskRow]:
    rows = [schema.row_of(values) for values in found]
    for row in rows:
        schema.read_pieces(reader, row)
    return rows


class _Unusable(Exception):
    """The file is not ours, or was found to be damaged: it must be left alone."""


def _is_damage(error: Exception) -> bool:
    """Say whether it will not go away: locked files, full disks and failing reads may."""
    if isinstance(error, _Unusable):
        return True
    name = getattr(error, "sqlite_errorname", "")
    # SQLITE_ERROR: the schema is not what its version says.
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or name == "SQLITE_ERROR"

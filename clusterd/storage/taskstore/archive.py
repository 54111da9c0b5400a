"""Reads a SQLite file of task records while no controller has it: what ran, after the cluster was stopped. Never changes a record."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Any

from clusterd.errors import StorageError, UnknownTask
from clusterd.storage.taskstore import schema
from clusterd.storage.taskstore.pages import LOOK, Page, Span
from clusterd.storage.taskstore.sqlite import BUSY_SECONDS, SqliteFile
from clusterd.storage.taskstore.teller import Teller, Where

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from clusterd.storage.taskstore.query import Query
    from clusterd.storage.taskstore.row import TaskRow


def read_page(
    path: Path, query: Mapping[str, Any], span: Span, limit: int, *, is_newest_first: bool, is_full: bool
) -> tuple[list[dict[str, Any]], Span | None]:
    """As `Teller.page`, of the file at `path`; raises StorageError, too, where it cannot be read."""
    with contextlib.closing(Archive(path)) as archive:
        return Teller(archive, _where).page(query, span, limit, is_newest_first=is_newest_first, is_full=is_full)


def read_task(path: Path, text: str) -> dict[str, Any]:
    """As `Teller.describe`, of the file at `path`; raises StorageError, too, where it cannot be read."""
    with contextlib.closing(Archive(path)) as archive:
        return Teller(archive, _where).describe(text)


class Archive:
    """A file of records: `teller.Records`.

    Args:
        path: the file.

    Raises:
        StorageError: it is not there, or not to be read by us, or by this release.
    """

    def __init__(self, path: Path) -> None:
        _check(path)
        self._file = SqliteFile(path, ttl=None, max_bytes=0, is_synced=False)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def page(
        self, query: Query, span: Span | None = None, *, limit: int, look: int = LOOK, newest_first: bool = True
    ) -> Page:
        """See `TaskStore`."""
        span = span or Span()
        rows, reached = self._file.page(query, span, limit, look, newest_first=newest_first)
        return Page(rows, None if reached is None else span.beyond(reached, newest_first=newest_first))

    def named(self, pattern: str, limit: int) -> list[str]:
        """See `TaskStore`."""
        return self._file.named(pattern, limit)

    def get(self, msg_id: str, *, buffers: bool = True) -> TaskRow:
        """See `TaskStore`."""
        row = self._file.get(msg_id, buffers=buffers)
        if row is None:
            raise UnknownTask(msg_id)
        return row


def _check(path: Path) -> None:
    try:
        owner = path.stat().st_uid
    except OSError as error:
        # SQLite would make one.
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if owner != os.geteuid():
        # What SQLite makes beside it would be ours, and in the way of the next controller.
        raise StorageError(f"{path} belongs to uid {owner}", hint="ask as that user")
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
            found = tuple(
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
    except sqlite3.Error as error:
        raise StorageError(f"{path}: {error}") from error
    if found != (schema.APPLICATION, schema.VERSION):
        raise StorageError(
            f"{path} is not of this release",
            hint="A controller brings the file of an older release up to date when it starts.",
        )


def _where(row: TaskRow) -> Where | None:
    if row.is_owed:
        return Where(False, None, "the controller has ended; the next one takes it up")
    return None

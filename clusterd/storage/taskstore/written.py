"""What SQLite and MongoDB have in common: rows that are written by a thread of their own, in batches, and read back.

The caller's thread puts a row into a table and goes on; the writer takes the whole table at once and writes each row's present state in
one transaction, so a short task is written once, not three times. What is not written yet is read from the table: whoever asks sees
what was put. Invariants: a row that has not ended stays in `_live`; `_dirty` has what is to be written next, `_writing` what is
being written; nothing of a batch leaves these before it is committed. While the backend fails, the writer tries again with pauses,
and ended rows beyond the bound are given up, oldest first and counted: the controller's memory is not the disk.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from clusterd.errors import StorageError, UnknownTask
from clusterd.storage.taskstore.backend import StartedAnew
from clusterd.storage.taskstore.base import Size, TaskStore
from clusterd.storage.taskstore.row import OUTCOME, PARTIAL, REQUEST, end_size, request_size, unwritten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clusterd.storage.taskstore.backend import Backend
    from clusterd.storage.taskstore.query import Query
    from clusterd.storage.taskstore.row import TaskRow

log = logging.getLogger(__name__)
LINGER: Final = 0.02
"""Seconds that the writer collects: what begins and ends meanwhile is one write. A reader does not wait for it."""
BACKOFF: Final = (0.2, 10.0)
"""Seconds between attempts while the backend fails: the first pause, doubled up to the second."""
PATIENCE: Final = 1.0
"""Seconds that a caller is held when the writer is behind by more than the bound: that slows submission instead of growing."""
TIDY_SECONDS: Final = 30.0
"""Between two looks at age and size."""


class WrittenStore(TaskStore):
    """A store over a backend.

    Args:
        backend: not open yet.
        max_backlog: bytes that may wait to be written.
        is_prompt: what is put is written at once, not collected for a moment.

    Raises:
        StorageError: the backend cannot be opened.
    """

    def __init__(self, backend: Backend, max_backlog: int = 64 * 1024**2, *, is_prompt: bool = False) -> None:
        self._backend = backend
        self._max_backlog = max_backlog
        self._is_prompt = is_prompt
        # Numbers of the table that is filled, and of the one that is written; what `durable` tells of it.
        self._filling, self._taken = 1, 0
        self.last_change = self.committed = 0
        self.on_commit: Callable[[], object] = bool
        try:
            self._order = backend.open()
        except StartedAnew as anew:
            self._order = anew.highest_order
        # Guards everything below; held for moments, never while the backend works.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._live: dict[str, TaskRow] = {}
        self._dirty: dict[str, TaskRow] = {}
        self._writing: dict[str, TaskRow] = {}
        # Ids to be removed, and those that are being removed.
        self._purged: set[str] = set()
        self._purging: set[str] = set()
        self._backlog = 0
        self._trouble = ""
        self._lost = 0
        self._is_closing = False
        # True while the writer is not asleep: it will find what is put without being woken.
        self._is_awake = False
        self._is_hurried = False  # somebody waits in `flush`: no lingering
        self._thread = threading.Thread(target=self._run, name=f"{self.kind} writer", daemon=True)
        self._thread.start()

    # --- what is put ---

    def put(self, row: TaskRow) -> None:
        """See `TaskStore`."""
        row.stored = 0
        row.size = request_size(row)
        with self._changed:
            if self._backlog + row.size > self._max_backlog and self._backlog:
                self._make_room(row.size)
            self._drop(row.msg_id)
            self._order += 1
            row.order = self._order
            self._backlog += row.size
            self._live[row.msg_id] = row
            if row.outcome is not None:
                self._end(row)
            self._touch(row)

    def update(self, row: TaskRow) -> None:
        """See `TaskStore`."""
        with self._changed:
            if self._live.get(row.msg_id) is row:
                if row.outcome is not None:
                    self._end(row)
                self._touch(row)
                if self._backlog > self._max_backlog:
                    self._make_room(0)
            elif row.stored or self._present(row.msg_id) is row:
                self._touch(row)

    def _end(self, row: TaskRow) -> None:
        size = 0 if row.outcome is None else end_size(row.outcome, row.output)
        row.size += size
        self._backlog += size
        del self._live[row.msg_id]

    def _touch(self, row: TaskRow) -> None:
        self._dirty[row.msg_id] = row
        self.last_change = self._filling
        if not self._is_awake:
            self._is_awake = True
            self._changed.notify_all()

    def _drop(self, msg_id: str) -> None:
        """Take a row out of what is to be written; what is being written will be taken out of the backlog by the writer."""
        row = self._dirty.pop(msg_id, None)
        is_live = self._live.pop(msg_id, None) is not None
        if row is not None and msg_id not in self._writing:
            self._backlog -= unwritten(row, is_ended=not is_live)
        self._writing.pop(msg_id, None)

    def _make_room(self, size: int) -> None:
        """Hold the caller until the writer has caught up a little; while nothing can be written, give up what has ended."""
        self._is_hurried = True
        self._changed.notify_all()
        deadline = time.monotonic() + PATIENCE
        while not self._trouble and self._backlog + size > self._max_backlog:
            left = deadline - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                break
        if not self._trouble:
            return
        for msg_id in list(self._dirty):
            if self._backlog + size <= self._max_backlog:
                break
            if msg_id not in self._live and msg_id not in self._writing:
                self._drop(msg_id)
                self._lost += 1

    # --- the writer ---

    def _run(self) -> None:
        pause = BACKOFF[0]
        next_tidy = time.monotonic()
        while True:
            with self._changed:
                if not self._dirty and not self._purged and not self._is_closing:
                    self._is_awake = False
                    self._changed.wait(max(0.0, next_tidy - time.monotonic()))
                    self._is_awake = True
                if not (self._is_hurried or self._is_prompt or self._is_closing):
                    self._changed.wait(LINGER)
                is_last = self._is_closing
                self._writing, self._dirty = self._dirty, {}
                self._purging, self._purged = self._purged, set()
                self._taken, self._filling = self._filling, self._filling + 1
                self._is_hurried = False
            error = self._write()
            if error is None and time.monotonic() >= next_tidy and not is_last:
                error = self._tidy()
                next_tidy = time.monotonic() + TIDY_SECONDS
            if error is None:
                pause = BACKOFF[0]
                if is_last and not self._dirty and not self._purged:
                    return
                continue
            if is_last:
                return
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, pause)
            pause = min(2 * pause, BACKOFF[1])
            self._reopen()

    def _write(self) -> StorageError | None:
        with self._lock:
            batch = [self._part(row) for row in self._writing.values()]
            purging = self._purging
        error: StorageError | None = None
        try:
            self._write_first()
            if batch or purging:
                self._write_all([(row, parts) for row, parts, _ in batch], purging)
        except StorageError as failure:
            error = failure
        with self._changed:
            for row, parts, size in batch:
                if error is None:
                    row.stored |= parts
                if error is None or row.msg_id not in self._writing:
                    self._backlog -= size
            if error is not None:
                self._dirty = {**self._writing, **self._dirty}
                self._purged |= purging
            self._writing, self._purging = {}, set()
            if error is None:
                self.committed = self._taken
            self._tell(error)
            self._changed.notify_all()
        self.on_commit()
        return error

    def _write_first(self) -> None:
        """Write what the rows of this batch need."""

    def _write_all(self, rows: list[tuple[TaskRow, int]], purging: set[str]) -> None:
        try:
            self._backend.write(rows, purging)
        except StorageError:
            raise
        except Exception as error:  # one row must not keep all others from being written
            if len(rows) <= 1:
                log.exception("the record of a task cannot be written: %s", [row.msg_id for row, _ in rows])
                self._lost += len(rows)
                return
            log.debug("a batch is written one by one: %s", error)
            for row in rows:
                self._write_all([row], purging)

    def _part(self, row: TaskRow) -> tuple[TaskRow, int, int]:
        """(a row, its parts that are new, their bytes). A row that ends while it is being written is dirty again then."""
        is_ended = row.msg_id not in self._live
        parts = (REQUEST | (OUTCOME if is_ended else 0)) & ~row.stored
        return row, parts, unwritten(row, is_ended=is_ended)

    def _tell(self, error: StorageError | None) -> None:
        if error is None:
            if self._trouble:
                log.info("task records are written again (%d were lost)", self._lost)
            self._trouble = ""
        else:
            if not self._trouble:
                log.error("task records cannot be written: %s", error)
            self._trouble = error.message

    def _tidy(self) -> StorageError | None:
        with self._lock:
            kept = {*self._live, *self._dirty}
        try:
            self._backend.tidy(time.time(), kept)
        except StorageError as error:
            with self._lock:
                self._tell(error)
            return error
        return None

    def _reopen(self) -> None:
        try:
            self._backend.open()
        except StartedAnew:
            with self._lock:
                for row in [*self._live.values(), *self._dirty.values()]:
                    if not row.stored & PARTIAL:
                        is_ended = row.msg_id not in self._live
                        self._backlog += row.size - unwritten(row, is_ended=is_ended)
                        row.stored = 0
                        self._dirty[row.msg_id] = row
                self._dirty = dict(sorted(self._dirty.items(), key=lambda item: item[1].order))
        except StorageError as error:
            with self._lock:
                self._tell(error)

    # --- what is asked ---

    def _present(self, msg_id: str) -> TaskRow | None:
        return self._live.get(msg_id) or self._dirty.get(msg_id) or self._writing.get(msg_id)

    def _overlay(self) -> tuple[Mapping[str, TaskRow], set[str]]:
        """Rows that are newer here than in the backend; ids that the backend has and must not show."""
        with self._lock:
            rows = {**self._writing, **self._dirty, **self._live}
            return rows, self._purged | self._purging | rows.keys()

    def get(self, msg_id: str, *, buffers: bool = True) -> TaskRow:
        """See `TaskStore`."""
        with self._lock:
            row = self._present(msg_id)
            is_purged = msg_id in self._purged or msg_id in self._purging
        if row is None and not is_purged:
            row = self._backend.get(msg_id, buffers=buffers)
        if row is None:
            raise UnknownTask(msg_id)
        return self._complete(row) if buffers else row

    def query(self, query: Query, *, limit: int | None = None, buffers: bool = False) -> list[TaskRow]:
        """See `TaskStore`."""
        newer, hidden = self._overlay()
        most = None if limit is None else limit + len(hidden)
        rows = [row for row in self._backend.read(query, most, buffers=buffers) if row.msg_id not in hidden]
        rows.extend(row for row in newer.values() if query.matches(row))
        rows.sort(key=lambda row: row.order)
        if limit is not None:
            del rows[limit:]
        return [self._complete(row) for row in rows] if buffers else rows

    def _complete(self, row: TaskRow) -> TaskRow:
        """Fetch what a row was read without."""
        if row.stored & PARTIAL:
            whole = self._backend.get(row.msg_id, buffers=True)
            if whole is not None:
                row.body, row.buffers = whole.body, whole.buffers
                if row.outcome is not None and whole.outcome is not None:
                    row.outcome.body, row.outcome.buffers = whole.outcome.body, whole.outcome.buffers
                row.stored &= ~PARTIAL
        return row

    def purge(self, msg_ids: Sequence[str]) -> int:
        """See `TaskStore`."""
        known = 0
        doomed: list[str] = []
        for msg_id in msg_ids:
            try:
                row = self.get(msg_id, buffers=False)
            except UnknownTask:
                continue
            if row.outcome is not None:
                known += 1
                doomed.append(msg_id)
        self._purge(doomed)
        return known

    def purge_matching(self, query: Query) -> int:
        """See `TaskStore`."""
        newer, hidden = self._overlay()
        doomed = [msg_id for msg_id in self._backend.matching_ended(query) if msg_id not in hidden]
        doomed.extend(msg_id for msg_id, row in newer.items() if row.outcome is not None and query.matches(row))
        self._purge(doomed)
        return len(doomed)

    def _purge(self, msg_ids: list[str]) -> None:
        with self._changed:
            for msg_id in msg_ids:
                self._drop(msg_id)
                self._purged.add(msg_id)
            if msg_ids and not self._is_awake:
                self._is_awake = True
                self._changed.notify_all()

    def history(self) -> list[str]:
        """See `TaskStore`."""
        newer, hidden = self._overlay()
        known = [item for item in self._backend.history() if item[1] not in hidden]
        known.extend((row.submitted, row.msg_id) for row in newer.values())
        return [msg_id for _, msg_id in sorted(known)]

    def size(self) -> Size:
        """See `TaskStore`."""
        records, size = self._backend.size()
        with self._lock:
            new = [row for row in {**self._writing, **self._dirty, **self._live}.values() if not row.stored & REQUEST]
            return Size(records + len(new), len(self._live), size + self._backlog)

    @property
    def trouble(self) -> str:
        """See `TaskStore`."""
        return self._trouble

    @property
    def lost(self) -> int:
        """See `TaskStore`."""
        return self._lost

    @property
    def backlog(self) -> int:
        """See `TaskStore`."""
        return self._backlog

    def flush(self, seconds: float = 10.0) -> bool:
        """See `TaskStore`."""
        with self._changed:
            self._is_hurried = True
            self._is_awake = True
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: not (self._dirty or self._writing or self._purged or self._purging), seconds
            )

    def close(self) -> None:
        """See `TaskStore`."""
        with self._changed:
            if self._is_closing:
                return
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        left = len(self._dirty)
        if left:
            log.error("%d task records were not written: %s", left, self._trouble)
        self._backend.close()

"""What SQLite and MongoDB have in common: rows that are written by a thread of their own, in batches, and read back.

The caller's thread puts a row into a table (`pending`) and goes on; the writer takes the whole table at once and writes each row's
present state in one transaction, so a short task is written once, not three times. What is not written yet is read from the
table: whoever asks sees what was put. While the backend fails, the writer tries again with pauses, and ended rows beyond the bound
are given up, oldest first and counted: the controller's memory is not the disk.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from clusterd.errors import StorageError, UnknownTask
from clusterd.storage.taskstore.backend import StartedAnew
from clusterd.storage.taskstore.base import Size, TaskStore
from clusterd.storage.taskstore.pending import Pending
from clusterd.storage.taskstore.row import HIDDEN, PARTIAL, request_size

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from clusterd.storage.taskstore.backend import Backend
    from clusterd.storage.taskstore.query import Query
    from clusterd.storage.taskstore.row import TaskRow

log = logging.getLogger(__name__)
LINGER: Final = 0.2
"""Seconds that the writer collects where nobody waits for it: more rows a transaction, fewer turns at the interpreter's lock."""
BACKOFF: Final = (0.2, 10.0)
"""Seconds between attempts while the backend fails: the first pause, doubled up to the second."""
PATIENCE: Final = 1.0
"""Seconds that a caller is held when the writer is behind by more than the bound: that slows submission instead of growing."""
TIDY_SECONDS: Final = 30.0
"""Between two looks at age and size."""
EXCESS_SECONDS: Final = 1.0
"""The same while the backend has more than it may have."""


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
        self._pending = Pending(is_prompt=is_prompt)
        self._trouble = ""
        self._lost = 0
        self._is_closing = False
        # True while the writer is not asleep: it will find what is put without being woken.
        self._is_awake = False
        self._is_hurried = False  # somebody waits in `flush`, or there is much: no lingering
        self._thread = threading.Thread(target=self._run, name=f"{self.kind} writer", daemon=True)
        self._thread.start()

    # --- what is put ---

    def put(self, row: TaskRow) -> None:
        """See `TaskStore`."""
        row.stored = 0
        row.size = request_size(row)
        with self._lock:
            pending = self._pending
            if pending.bytes + row.size > self._max_backlog and pending.bytes:
                self._make_room(row.size)
            self._order += 1
            row.order = self._order
            if pending.put(row):
                self.last_change = self._filling
                if not self._is_awake:
                    self._wake()

    def update(self, row: TaskRow) -> None:
        """See `TaskStore`."""
        pending = self._pending
        if row.outcome is None and pending.is_young(row):
            return
        with self._lock:
            if pending.change(row):
                self.last_change = self._filling
                if not self._is_awake:
                    self._wake()
                if pending.bytes > self._max_backlog:
                    self._make_room(0)

    def _wake(self) -> None:
        self._is_awake = True
        self._changed.notify_all()

    def _make_room(self, size: int) -> None:
        """Hold the caller until the writer has caught up a little; while nothing can be written, give up what has ended."""
        self._is_hurried = True
        self._wake()
        deadline = time.monotonic() + PATIENCE
        pending = self._pending
        while not self._trouble and pending.bytes + size > self._max_backlog:
            left = deadline - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                break
        if self._trouble:
            self._lost += pending.give_up(self._max_backlog - size)

    # --- the writer ---

    def _run(self) -> None:
        pause = BACKOFF[0]
        last_tidy, taken = time.monotonic() - TIDY_SECONDS, 0.0
        pending = self._pending
        while True:
            with self._changed:
                now = time.monotonic()
                seconds = 0.0 if self._is_closing or self._is_hurried else pending.seconds_to_work(now)
                if seconds:
                    self._is_awake = False
                    self._changed.wait(max(0.0, min(seconds, last_tidy + TIDY_SECONDS - now)))
                    self._is_awake = True
                if not (self._is_hurried or self._is_prompt or self._is_closing):
                    self._changed.wait(LINGER)
                is_last = self._is_closing
                pending.take(time.monotonic(), is_all=is_last or self._is_hurried)
                self._taken, self._filling = self._filling, self._filling + 1
                self._is_hurried = False
            error = self._write()
            if error is None and not is_last and self._is_tidying_due(last_tidy, taken):
                began = time.monotonic()
                error = self._tidy()
                last_tidy = time.monotonic()
                taken = last_tidy - began
            if error is None:
                pause = BACKOFF[0]
                if is_last and not pending.has_work:
                    return
                continue
            if is_last:
                return
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, pause)
            pause = min(2 * pause, BACKOFF[1])
            self._reopen()

    def _write(self) -> StorageError | None:
        pending = self._pending
        batch = pending.parts()
        error: StorageError | None = None
        try:
            self._write_first()
            if batch or pending.purging or pending.settling:
                self._write_all(batch, pending.purging, pending.settling)
        except StorageError as failure:
            error = failure
        with self._changed:
            if error is None:
                pending.done()
                self.committed = self._taken
            else:
                pending.failed(batch)
            self._tell(error)
            self._changed.notify_all()
        self.on_commit()
        return error

    def _write_first(self) -> None:
        """Write what the rows of this batch need."""

    def _write_all(self, rows: list[tuple[TaskRow, int]], purging: Collection[str], settling: Collection[str]) -> None:
        try:
            self._backend.write(rows, purging, settling)
        except StorageError:
            raise
        except Exception as error:  # one row must not keep all others from being written
            if len(rows) <= 1:
                log.exception("the record of a task cannot be written: %s", [row.msg_id for row, _ in rows])
                self._lost += len(rows)
                return
            log.debug("a batch of %d is written in two: %s", len(rows), error)
            half = len(rows) // 2
            self._write_all(rows[:half], purging, ())
            self._write_all(rows[half:], (), settling)

    def _tell(self, error: StorageError | None) -> None:
        if error is None:
            if self._trouble:
                log.info("task records are written again (%d were lost)", self._lost)
            self._trouble = ""
        else:
            if not self._trouble:
                log.error("task records cannot be written: %s", error)
            self._trouble = error.message

    def _is_tidying_due(self, last: float, taken: float) -> bool:
        passed = time.monotonic() - last
        # Where it finds little to remove among much that is owed it takes its time, and must leave some for writing.
        pause = max(EXCESS_SECONDS, 20 * taken)
        return passed >= TIDY_SECONDS or (passed >= pause and self._backend.has_excess)

    def _tidy(self) -> StorageError | None:
        refused = self._backend.refusal
        try:
            self._backend.tidy(time.time(), self._pending.is_present)
        except StorageError as error:
            with self._lock:
                self._tell(error)
            return error
        refusal = self._backend.refusal
        if bool(refusal) != bool(refused):
            if refusal:
                log.warning("no durable tasks are taken: %s", refusal)
            else:
                log.info("durable tasks are taken again: there is room for what is owed of them")
        return None

    def _reopen(self) -> None:
        try:
            self._backend.open()
        except StartedAnew:
            with self._lock:
                self._pending.write_anew()
        except StorageError as error:
            with self._lock:
                self._tell(error)

    # --- what is asked ---

    def _overlay(self) -> tuple[Mapping[str, TaskRow], Collection[str]]:
        with self._lock:
            return self._pending.overlay()

    def get(self, msg_id: str, *, buffers: bool = True) -> TaskRow:
        """See `TaskStore`."""
        with self._lock:
            row = self._pending.present(msg_id)
            is_purged = msg_id in self._pending.purged or msg_id in self._pending.purging
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
        with self._lock:
            for msg_id in msg_ids:
                self._pending.purge(msg_id)
            if msg_ids and not self._is_awake:
                self._wake()

    def history(self) -> list[str]:
        """See `TaskStore`."""
        newer, hidden = self._overlay()
        known = [item for item in self._backend.history() if item[1] not in hidden]
        known.extend((row.submitted, row.msg_id) for row in newer.values() if row.queue not in HIDDEN)
        return [msg_id for _, msg_id in sorted(known)]

    def size(self) -> Size:
        """See `TaskStore`."""
        records, size = self._backend.size()
        with self._lock:
            pending = self._pending
            return Size(records + pending.unseen(), len(pending.live), size + pending.bytes)

    @property
    def trouble(self) -> str:
        """See `TaskStore`."""
        return self._trouble

    @property
    def refusal(self) -> str:
        """See `TaskStore`."""
        return self._backend.refusal

    @property
    def lost(self) -> int:
        """See `TaskStore`."""
        return self._lost

    @property
    def backlog(self) -> int:
        """See `TaskStore`."""
        return self._pending.bytes

    def flush(self, seconds: float = 10.0) -> bool:
        """See `TaskStore`."""
        with self._changed:
            self._is_hurried = True
            self._wake()
            return self._changed.wait_for(lambda: self._pending.is_empty, seconds)

    def close(self) -> None:
        """See `TaskStore`."""
        with self._changed:
            if self._is_closing:
                return
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        left = len(self._pending.dirty)
        if left:
            log.error("%d task records were not written: %s", left, self._trouble)
        self._backend.close()

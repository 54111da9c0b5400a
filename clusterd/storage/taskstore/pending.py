"""Which rows a store still has to write: tables alone, without threads, locks and databases. `written` guards them.

A row that has not ended is in `live`. What is to be written next is in `dirty`, what is being written in `writing`, and nothing leaves
either before it is committed. Where nobody waits for a commit, a row that has not ended is young first and no business of the
writer's: most tasks end before it would come to them, and are written once. Invariants: a row's `stored` has what the
database has, and what it is being given; `bytes` is nothing whenever nothing is to be written; young rows are live.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterd.storage.taskstore.row import OUTCOME, PARTIAL, REQUEST, end_size, unwritten

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from clusterd.storage.taskstore.row import TaskRow

GENERATION_SECONDS: Final = 5.0
"""A row that has not ended is written when it is one to two of these old."""
AGED_AT_ONCE: Final = 10_000
"""Rows that grow old in one batch: they are moved while the caller waits."""


class Pending:
    """The tables of one store.

    Args:
        is_prompt: somebody waits for each commit: nothing is young.

    Attributes:
        live: rows that have not ended.
        dirty: rows that have changed and are to be written next; `writing`: those that are being written.
        purged, purging: ids that are to be, and are being, removed.
        settled, settling: ids of which nothing is owed any more, to be, and being, written.
        bytes: that are to be written, near enough; young rows are left out: those are held by their tasks in any case.
    """

    __slots__ = (
        "_is_prompt",
        "_next_generation",
        "_older",
        "_writing_bytes",
        "_writing_new",
        "_young",
        "bytes",
        "dirty",
        "live",
        "purged",
        "purging",
        "settled",
        "settling",
        "writing",
    )

    def __init__(self, *, is_prompt: bool) -> None:
        self._is_prompt = is_prompt
        self.live: dict[str, TaskRow] = {}
        self.dirty: dict[str, TaskRow] = {}
        self.writing: dict[str, TaskRow] = {}
        # Live rows that are not to be written yet: of this generation, and of the one before.
        self._young: dict[str, TaskRow] = {}
        self._older: dict[str, TaskRow] = {}
        self._next_generation = 0.0
        self.purged: set[str] = set()
        self.purging: set[str] = set()
        self.settled: set[str] = set()
        self.settling: set[str] = set()
        self.bytes = 0
        # Of `bytes`, those in `writing`; and how many rows of it the database does not know.
        self._writing_bytes = 0
        self._writing_new = 0

    @property
    def is_empty(self) -> bool:
        """True when all that was put is in the database."""
        return not (self.has_work or self.writing or self.purging or self.settling or self._young or self._older)

    @property
    def has_work(self) -> bool:
        """True when something is to be written now."""
        return bool(self.dirty or self.purged or self.settled)

    def seconds_to_work(self, now: float) -> float:
        """How long the writer may sleep when nobody wakes it."""
        if self.has_work or (self._older and now >= self._next_generation):
            return 0.0
        return GENERATION_SECONDS

    def is_young(self, row: TaskRow) -> bool:
        """Say whether no change of a row matters yet; of any thread: what a writer that takes it just now encodes, has the change."""
        return not (self._is_prompt or row.stored or row.outcome is not None or row.msg_id in self.writing)

    # --- changes ---

    def put(self, row: TaskRow) -> bool:
        """A new row; says whether it is to be written now."""
        msg_id = row.msg_id
        # Written out, here and in `_end`: this runs twice a task.
        if msg_id in self.live or msg_id in self.dirty or msg_id in self.writing or msg_id in self.settled:
            self.drop(msg_id)
        self.live[msg_id] = row
        if row.outcome is not None:
            self._end(row)
        elif self._is_prompt:
            self.dirty[msg_id] = row
            self.bytes += row.size
        else:
            self._young[msg_id] = row
            return False
        return True

    def change(self, row: TaskRow) -> bool:
        """A row has changed, or ended; says whether that is to be written now. One that was purged stays so."""
        msg_id = row.msg_id
        if self.live.get(msg_id) is row:
            if row.outcome is not None:
                self._end(row)
                return True
            if self._is_prompt:
                self.dirty[msg_id] = row
                return True
            if row.stored or msg_id in self.writing:
                self._young[msg_id] = row
            return False
        if row.stored or self.present(msg_id) is row:
            self.dirty[msg_id] = row
            return True
        return False

    def _end(self, row: TaskRow) -> None:
        msg_id = row.msg_id
        outcome = row.outcome
        size = 0 if outcome is None else end_size(outcome, row.output)
        row.size += size
        del self.live[msg_id]
        if msg_id in self._young:
            del self._young[msg_id]
        elif self._older:
            self._older.pop(msg_id, None)
        if row.stored or msg_id in self.dirty or msg_id in self.writing:
            self.bytes += size
        else:
            self.bytes += row.size
        self.dirty[msg_id] = row

    def drop(self, msg_id: str) -> None:
        """Forget what is to be written of a task."""
        is_live = self.live.pop(msg_id, None) is not None
        if is_live and self._young.pop(msg_id, None) is None:
            self._older.pop(msg_id, None)
        row = self.dirty.pop(msg_id, None)
        if row is not None and msg_id not in self.writing:
            self.bytes -= unwritten(row, is_ended=not is_live)
        self.writing.pop(msg_id, None)
        self.settled.discard(msg_id)

    def purge(self, msg_id: str) -> None:
        """Remove a task, here and from the database."""
        self.drop(msg_id)
        self.purged.add(msg_id)

    def settle(self, msg_id: str) -> None:
        """Nothing is owed for a task any more."""
        row = self.present(msg_id)
        if row is not None:
            row.is_owed = False
        self.settled.add(msg_id)

    def resume(self, row: TaskRow) -> None:
        """A row that was read from the database is live again."""
        self.live[row.msg_id] = row

    def give_up(self, most: int) -> int:
        """Forget what has ended, the oldest first, until no more than `most` bytes are to be written; how many that were."""
        lost = 0
        for msg_id in list(self.dirty):
            if self.bytes <= most:
                break
            if msg_id not in self.live and msg_id not in self.writing:
                self.drop(msg_id)
                lost += 1
        return lost

    # --- batches ---

    def take(self, now: float, *, is_all: bool) -> None:
        """Begin a batch; `is_all`: with what is young."""
        if is_all:
            self._age(len(self._older))
            self._older, self._young = self._young, {}
            self._age(len(self._older))
        elif now >= self._next_generation:
            self._age(AGED_AT_ONCE)
            if not self._older:
                self._older, self._young = self._young, {}
                self._next_generation = now + GENERATION_SECONDS
        self.writing, self.dirty = self.dirty, {}
        self._writing_bytes = self.bytes
        self.purging, self.purged = self.purged, set()
        self.settling, self.settled = self.settled, set()

    def _age(self, most: int) -> None:
        older, dirty = self._older, self.dirty
        for _ in range(min(most, len(older))):
            msg_id, row = older.popitem()
            if msg_id not in dirty:
                dirty[msg_id] = row
                self.bytes += unwritten(row, is_ended=False)

    def parts(self) -> list[tuple[TaskRow, int]]:
        """The rows of the batch, each with its parts that are new. One that ends while it is being written is dirty again then.

        They count as stored from now on: that is taken back when it turns out to be wrong, so that thousands of rows, long out of the
        processor's cache, are not looked at once more.
        """
        live, both, new = self.live, REQUEST | OUTCOME, 0
        batch: list[tuple[TaskRow, int]] = []
        for msg_id, row in list(self.writing.items()):
            stored = row.stored
            parts = (REQUEST if msg_id in live else both) & ~stored
            row.stored = stored | parts
            new += parts & REQUEST
            batch.append((row, parts))
        self._writing_new = new
        return batch

    def failed(self, batch: list[tuple[TaskRow, int]]) -> None:
        """The batch is to be written again, with what has come since."""
        for row, parts in batch:
            row.stored &= ~parts
        self.dirty = {**self.writing, **self.dirty}
        self.purged |= self.purging
        self.settled |= self.settling
        self._forget_batch()

    def done(self) -> None:
        """The batch is committed."""
        self.bytes = self.bytes - self._writing_bytes if self.dirty else 0
        self._forget_batch()

    def _forget_batch(self) -> None:
        self.writing = {}
        self._writing_bytes = self._writing_new = 0
        self.purging, self.settling = set(), set()

    def write_anew(self) -> None:
        """The database is empty: all that is here is to be written."""
        for row in [*self.live.values(), *self.dirty.values()]:
            if not row.stored & PARTIAL:
                row.stored = 0
                self.dirty[row.msg_id] = row
        self._young, self._older = {}, {}
        self.dirty = dict(sorted(self.dirty.items(), key=lambda item: item[1].order))
        self.bytes = sum(row.size for row in self.dirty.values())

    # --- what is here ---

    def present(self, msg_id: str) -> TaskRow | None:
        """The row of a task, where it is newer here than in the database."""
        return self.live.get(msg_id) or self.dirty.get(msg_id) or self.writing.get(msg_id)

    def is_present(self, msg_id: str) -> bool:
        """Say whether a task is here; of any thread."""
        return msg_id in self.live or msg_id in self.dirty or msg_id in self.writing

    def overlay(self) -> tuple[Mapping[str, TaskRow], Collection[str]]:
        """Rows that are newer here than in the database; ids that the database has and must not show."""
        rows = {**self.writing, **self.dirty, **self.live}
        return rows, self.purged | self.purging | rows.keys()

    def unseen(self) -> int:
        """How many rows the database does not know of."""
        rows = {**self.dirty, **self.live}
        return self._writing_new + sum(1 for row in rows.values() if not row.stored & REQUEST)

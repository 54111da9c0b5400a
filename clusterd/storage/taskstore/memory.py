"""`database: memory`: rows by reference, bounded by number and bytes; the task that ended first is forgotten first.

Invariants: `_rows` holds everything; `_ended` holds each ended row once, in the order of their ends, and may still hold some that were
purged or replaced; `_ended_count` and `_bytes` are those of the ended ones in `_rows`. A row that has not ended is never culled.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from itertools import islice, takewhile
from typing import TYPE_CHECKING, ClassVar

from clusterd.errors import UnknownTask
from clusterd.storage.taskstore.base import Size, TaskStore
from clusterd.storage.taskstore.pages import LOOK, Page, Span, matching_names
from clusterd.storage.taskstore.row import OUTCOME, ROW_BYTES, end_size, request_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from clusterd.storage.taskstore.query import Query
    from clusterd.storage.taskstore.row import TaskRow


class _Index:
    """Where a walk finds its next rows without a look at all of them; by name, so that it keeps none alive that is forgotten meanwhile.

    Attributes:
        top: of all rows up to this order it has those that were there when it was made; what was put since has a higher one.
        orders, names: of them, by order.
    """

    __slots__ = ("names", "orders", "top")

    def __init__(self, top: int, rows: Mapping[str, TaskRow]) -> None:
        self.top = top
        self.names = list(rows)
        self.orders = array("q", [row.order for row in rows.values()])


class MemoryStore(TaskStore):
    """Keeps rows as long as the process lives.

    Args:
        max_records: of ended tasks.
        max_bytes: of ended tasks. What has not ended is bounded by the credit of clients.
    """

    kind: ClassVar[str] = "memory"
    is_told_of_dispatch: ClassVar[bool] = False

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self.max_request = max_bytes // 8
        self._rows: dict[str, TaskRow] = {}
        self._ended: deque[TaskRow] = deque()
        # How many of `_rows` have ended.
        self._ended_count = 0
        self._bytes = 0
        # Rank of the last row that was put: `_rows` is in this order.
        self._order = 0
        # Of the last walk that went beyond its first page.
        self._index: _Index | None = None

    def put(self, row: TaskRow) -> None:
        """See `TaskStore`."""
        rows = self._rows
        msg_id = row.msg_id
        if msg_id in rows:
            self._drop(msg_id)
        self._order = row.order = self._order + 1
        rows[msg_id] = row

    def update(self, row: TaskRow) -> None:
        """See `TaskStore`. What is shown after the end (a late message) is not counted: it is bounded by itself."""
        outcome = row.outcome
        if outcome is None or row.stored or self._rows.get(row.msg_id) is not row:
            return
        row.stored = OUTCOME
        self._ended.append(row)
        if row.buffers or outcome.buffers or outcome.content or row.output is not None:
            size = request_size(row) + end_size(outcome, row.output)
        else:  # in place, for what nearly all tasks are: this runs once a task
            size = ROW_BYTES + len(row.body) + len(outcome.body)
        row.size = size
        self._bytes += size
        self._ended_count += 1
        if self._ended_count > self._max_records or self._bytes > self._max_bytes:
            self._cull()

    def _cull(self) -> None:
        ended = self._ended
        while ended and (self._ended_count > self._max_records or self._bytes > self._max_bytes):
            row = ended.popleft()
            if self._rows.get(row.msg_id) is row:
                del self._rows[row.msg_id]
                self._bytes -= row.size
                self._ended_count -= 1

    def _drop(self, msg_id: str) -> None:
        row = self._rows.pop(msg_id)
        if row.stored:
            self._bytes -= row.size
            self._ended_count -= 1

    def get(self, msg_id: str, *, buffers: bool = True) -> TaskRow:
        """See `TaskStore`."""
        del buffers
        row = self._rows.get(msg_id)
        if row is None:
            raise UnknownTask(msg_id)
        return row

    def query(self, query: Query, *, limit: int | None = None, buffers: bool = False) -> list[TaskRow]:
        """See `TaskStore`."""
        del buffers
        named = query.msg_ids()
        candidates: Iterable[TaskRow] = self._rows.values()
        if named is not None and len(named) == 1:
            candidates = [self._rows[msg_id] for msg_id in named if msg_id in self._rows]
        found: list[TaskRow] = []
        for row in candidates:
            if len(found) == limit:
                break
            if query.matches(row):
                found.append(row)
        return found

    def page(
        self, query: Query, span: Span | None = None, *, limit: int, look: int = LOOK, newest_first: bool = True
    ) -> Page:
        """See `TaskStore`."""
        span = span or Span()
        if newest_first and not span.before:
            # The first page of most walks, and the only one of many: no need to know where the others are.
            newest = takewhile(lambda row: row.order > span.after, reversed(self._rows.values()))
            window = list(islice(newest, look))
            edge = window[-1].order if len(window) == look else None
        else:
            window, edge = self._window(span, look, newest_first=newest_first)
        found: list[TaskRow] = []
        for row in window:
            if query.matches(row):
                found.append(row)
                if len(found) == limit:
                    return Page(found, span.beyond(row.order, newest_first=newest_first))
        if edge is None:
            self._index = None
        return Page(found, None if edge is None else span.beyond(edge, newest_first=newest_first))

    def _window(self, span: Span, look: int, *, newest_first: bool) -> tuple[list[TaskRow], int | None]:
        """The first rows of a span; and the order of the last of them, or None where these are all."""
        index = self._index
        if index is None or index.top < min(span.end - 1, self._order):
            index = self._index = _Index(self._order, self._rows)
        first, last = bisect_right(index.orders, span.after), bisect_left(index.orders, span.end)
        if newest_first:
            begin, end = max(first, last - look), last
        else:
            begin, end = first, min(last, first + look)
        rows = [
            row
            for msg_id, order in zip(index.names[begin:end], index.orders[begin:end], strict=True)
            if (row := self._rows.get(msg_id)) is not None and row.order == order
        ]
        is_all = end - begin == last - first
        edge = None if is_all else index.orders[begin if newest_first else end - 1]
        return rows[::-1] if newest_first else rows, edge

    def named(self, pattern: str, limit: int) -> list[str]:
        """See `TaskStore`."""
        return matching_names(self._rows, pattern, limit)

    def purge(self, msg_ids: Sequence[str]) -> int:
        """See `TaskStore`."""
        purged = 0
        for msg_id in msg_ids:
            row = self._rows.get(msg_id)
            if row is not None and row.outcome is not None:
                self._drop(msg_id)
                purged += 1
        if len(self._ended) > 2 * self._ended_count:
            # Purged rows would else be held until their turn comes.
            self._ended = deque(row for row in self._ended if self._rows.get(row.msg_id) is row)
        return purged

    def purge_matching(self, query: Query) -> int:
        """See `TaskStore`."""
        return self.purge([row.msg_id for row in self.query(query) if row.outcome is not None])

    def history(self) -> list[str]:
        """See `TaskStore`."""
        return [row.msg_id for row in sorted(self._rows.values(), key=lambda row: row.submitted)]

    def size(self) -> Size:
        """See `TaskStore`."""
        return Size(len(self._rows), len(self._rows) - self._ended_count, self._bytes)

    def close(self) -> None:
        """See `TaskStore`."""
        self._rows.clear()
        self._ended.clear()
        self._index = None
        self._ended_count = self._bytes = 0

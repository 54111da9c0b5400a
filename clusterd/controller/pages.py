"""Answers operators' questions about tasks (PageTasks, DescribeTask, PurgePage): from the store, and where one is that has not ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clusterd.core.wire import jupyter
from clusterd.core.wire.codec import encode
from clusterd.core.wire.messages import STOCK, DescribeTask, ErrorReply, PageTasks, PurgePage, Reply
from clusterd.errors import ClusterdError
from clusterd.storage.taskstore.pages import Span
from clusterd.storage.taskstore.query import parse
from clusterd.storage.taskstore.teller import Teller, Where
from clusterd.storage.taskstore.told import short_id

if TYPE_CHECKING:
    from clusterd.controller.tasks import Tasks
    from clusterd.storage.taskstore.base import TaskStore
    from clusterd.storage.taskstore.row import TaskRow

_NATIVE_BYTES = 16
_MAX_LISTED = 1000


class Pages:
    """The operators' way to the records.

    Args:
        store: where they are.
        tasks: knows where those are that have not ended.
    """

    def __init__(self, store: TaskStore, tasks: Tasks) -> None:
        self._store = store
        self._tasks = tasks
        self._teller = Teller(store, self._where)
        self._now = 0.0

    def answer(self, message: PageTasks | DescribeTask | PurgePage, now: float) -> tuple[Reply | ErrorReply, int]:
        """The answer, and its size."""
        self._now = now
        value: dict[str, Any]
        try:
            if isinstance(message, PageTasks):
                tasks, rest = self._teller.page(
                    message.query,
                    Span(message.after, message.before),
                    message.limit,
                    is_newest_first=message.is_newest_first,
                    is_full=message.is_full,
                )
                value = {"tasks": tasks, "rest": rest}
            elif isinstance(message, DescribeTask):
                value = {"task": self._teller.describe(message.task)}
            else:
                purged, rest = self._store.purge_page(parse(message.query), Span(message.after, message.before))
                value = {"purged": purged, "rest": rest}
        except ClusterdError as error:
            return ErrorReply(message.request, error.code, error.message, error.hint), 512
        return Reply(message.request, value), len(encode(value))

    def _where(self, row: TaskRow) -> Where | None:
        tasks = self._tasks
        name = jupyter.task_id(row.msg_id) if row.kind == STOCK else bytes.fromhex(row.msg_id)
        known = tasks.scheduler.whereabouts(name)
        if known is not None:
            others = tuple(
                # What stock clients name is text; a digest of it where it is long.
                short_id(other.hex() if len(other) == _NATIVE_BYTES else other.decode("ascii", "replace"))
                for other in known.waits_for[:_MAX_LISTED]
            )
            return Where(known.is_begun, max(0.0, self._now - known.since), known.why, others)
        if not tasks.recovery.is_over(self._now) or (tasks.ledger is not None and tasks.ledger.has_waiting(name)):
            return Where(False, None, "the controller began after it, and waits to hear what its engine holds")
        return None

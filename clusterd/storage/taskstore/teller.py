"""Tells people of tasks out of a store: page by page, or one in full. Each answer takes a bounded time and has a bounded size.

A record says what was; where a task is that has not ended, whoever runs it has to say (`where`), at the moment when it is asked.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from clusterd.core.wire.codec import encode
from clusterd.errors import BadQuery, UnknownTask
from clusterd.storage.taskstore.pages import Span
from clusterd.storage.taskstore.query import parse
from clusterd.storage.taskstore.record import request_buffers, result_buffers
from clusterd.storage.taskstore.told import patterns_of, short_id, sibling_of, state_of, told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterd.storage.taskstore.pages import Page
    from clusterd.storage.taskstore.query import Query
    from clusterd.storage.taskstore.row import TaskRow

MAX_LIMIT: Final = 1000
MAX_PAGE: Final = 2 * 1024**2
"""Bytes of one page, after which it ends; and of a task that is read as a whole, to count the bytes of its buffers."""
MAX_TEXT: Final = 512 * 1024
"""Characters of each text of a task in full; the answer is a header, which takes 16 MiB."""
MAX_MESSAGE: Final = 1000
"""Characters of a message among others."""
_MAX_NAMED: Final = 5
_LONG: Final = ("message", "stdout", "stderr", "code")


class Where(NamedTuple):
    """Where a task is that has not ended.

    Attributes:
        is_running: an engine runs it.
        seconds: since it went to that engine, or was accepted; None where that is not known.
        why: what it waits for.
        depends_on: ids of tasks that it waits for.
    """

    is_running: bool
    seconds: float | None
    why: str
    depends_on: tuple[str, ...] = ()


class Records(Protocol):
    """What is asked of a store; see `TaskStore`."""

    def page(self, query: Query, span: Span | None = None, *, limit: int, newest_first: bool = True) -> Page:
        """Rows of a span that match."""

    def named(self, pattern: str, limit: int) -> list[str]:
        """Ids that match a pattern."""

    def get(self, msg_id: str, *, buffers: bool = True) -> TaskRow:
        """One row."""


class Teller:
    """Answers about the tasks of a store.

    Args:
        records: the store.
        where: says where a task is that has not ended; None: nobody knows, and nobody will end it.
    """

    def __init__(self, records: Records, where: Callable[[TaskRow], Where | None]) -> None:
        self._records = records
        self._where = where

    def page(
        self, query: Mapping[str, Any], span: Span, limit: int, *, is_newest_first: bool, is_full: bool
    ) -> tuple[list[dict[str, Any]], Span | None]:
        """Some tasks, and what is left of the span.

        Raises:
            BadQuery: the query makes no sense.
            StorageError: the store cannot be read.
        """
        if not is_newest_first and not span.before:
            # Else it would never end where tasks come faster than they are read.
            span = Span(span.after, self._highest() + 1)
        page = self._records.page(parse(query), span, limit=max(1, min(limit, MAX_LIMIT)), newest_first=is_newest_first)
        tasks: list[dict[str, Any]] = []
        size = 0
        for number, row in enumerate(page.rows, 1):
            where = None if row.outcome is not None else self._where(row)
            tasks.append(_told(row, where, is_full=is_full))
            size += len(encode(tasks[-1]))
            if size > MAX_PAGE and number < len(page.rows):
                return tasks, span.beyond(row.order, newest_first=is_newest_first)
        return tasks, page.rest

    def _highest(self) -> int:
        rows = self._records.page(parse({}), limit=1).rows
        return rows[0].order if rows else 0

    def describe(self, text: str) -> dict[str, Any]:
        """One task in full: `text` is its id, the beginning of it, or its short form.

        Raises:
            UnknownTask: there is no such task.
            BadQuery: there are several.
            StorageError: the store cannot be read.
        """
        row = self._records.get(self._meant(text), buffers=False)
        where = None if row.outcome is not None else self._where(row)
        task = _told(row, where, is_full=True)
        if where is not None:
            task |= {"why": where.why, "depends_on": list(where.depends_on)}
        elif row.outcome is None:
            task |= {
                "why": "nobody is known who would still run it: its controller ended before it did",
                "depends_on": [],
            }
        if row.size <= MAX_PAGE:
            row = self._records.get(row.msg_id)
            task["argument_bytes"] = [len(buffer) for buffer in request_buffers(row)]
            task["result_bytes"] = [len(buffer) for buffer in result_buffers(row)]
        return task

    def _meant(self, text: str) -> str:
        guesses = [text]
        if (sibling := sibling_of(text)) and (some := self._records.named(sibling[0], 1)):
            guesses.append(some[0][: -len(sibling[1])] + sibling[1])
        for guess in guesses:
            with contextlib.suppress(UnknownTask):
                return self._records.get(guess, buffers=False).msg_id
        for pattern in patterns_of(text):
            found = self._records.named(pattern, _MAX_NAMED + 1)
            if len(found) == 1:
                return found[0]
            if found:
                names = ", ".join(short_id(name) for name in sorted(found)[:_MAX_NAMED])
                more = ", ..." if len(found) > _MAX_NAMED else ""
                raise BadQuery(f"{text} may be any of several tasks: {names}{more}", hint="Write more of the id.")
        unknown = UnknownTask(text)
        unknown.hint = "It may be too old, or may have been purged; `clusterctl tasks list` has the ids."
        raise unknown


def _told(row: TaskRow, where: Where | None, *, is_full: bool) -> dict[str, Any]:
    state = state_of(row, is_running=where is not None and where.is_running, is_known=where is not None)
    task = told(row, state, is_full=is_full)
    # Until an engine has told its own times this is as near as anybody knows.
    task["for"] = None if where is None else where.seconds
    return _bounded(task, MAX_TEXT if is_full else MAX_MESSAGE)


def _bounded(task: dict[str, Any], limit: int) -> dict[str, Any]:
    """Leave out the beginning of what is too long: how it ended is what matters."""
    for name in _LONG:
        text = task.get(name)
        if text and len(text) > limit:
            task[name] = f"[{len(text) - limit} characters are left out] {text[-limit:]}"
    lines = task.get("traceback") or []
    if sum(map(len, lines)) > limit:
        task["traceback"] = ["[the beginning is left out]", *"\n".join(lines)[-limit:].splitlines()]
    return task

"""Tasks that the controller makes itself, of what it has on record: a client holds futures for them, and nothing to offer again.

So they end with an error when the controller that has them is not the one that is there any more.
"""

# ruff: noqa: SLF001 - futures, their book and this are one machine
from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.client.task import TaskFuture
from clusterd.errors import ControllerLost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.client.book import TaskBook
    from clusterd.client.task import TaskOwner


def expect(owner: TaskOwner, book: TaskBook, originals: Sequence[TaskFuture | None]) -> list[TaskFuture]:
    """Futures of tasks that are to be run once more, with new ids; an original says what becomes of the raw value."""
    futures = []
    for original in originals:
        future = TaskFuture(owner)
        if original is not None:
            future._convert, future._span = original._convert, original._span
        future._is_sent = True
        futures.append(future)
    book.expect(futures)
    return futures


def end_lost(book: TaskBook) -> None:
    """The controller does not know this client: end what an earlier one made of its records."""
    for future in list(book.pending.values()):
        if future._submit is None and future._is_sent:
            text = "the controller that ran this task once more was lost, and its record of the task with it"
            book.withdraw([future], ControllerLost(text, hint="Submit it anew."))

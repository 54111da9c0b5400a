"""Tasks that the controller makes itself, of what it has on record: a client holds futures for them, and nothing to offer again.

A controller that does not know this client is asked for them once more, by the same ids: it has its predecessor's records where they
outlive that one (`database: sqlite` or `mongodb`). Where they do not, they end with an error.
"""

# ruff: noqa: SLF001 - futures, their book and this are one machine
from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from clusterd.client.task import TaskFuture
from clusterd.core.wire.messages import Resubmit
from clusterd.errors import ControllerLost

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from clusterd.client.book import TaskBook
    from clusterd.client.requests import Requests
    from clusterd.client.task import TaskOwner


def expect(
    owner: TaskOwner, book: TaskBook, ids: Sequence[bytes], originals: Sequence[TaskFuture | None]
) -> list[TaskFuture]:
    """Futures of tasks that are to be run once more, with new ids.

    Args:
        owner: theirs.
        book: where they are to stand.
        ids: of what is run once more.
        originals: the future of each, which says what becomes of the raw value.
    """
    futures = []
    for task, original in zip(ids, originals, strict=True):
        future = TaskFuture(owner)
        future._original = task
        if original is not None:
            future._convert, future._span = original._convert, original._span
        future._is_sent = True
        futures.append(future)
    book.expect(futures)
    return futures


def ask_again(book: TaskBook, requests: Requests) -> None:
    """The controller does not know this client: have it go on with what an earlier one made of its records."""
    asked = requests.open_reruns()
    for future in list(book.pending.values()):
        if future._original and future._id not in asked:
            answer = requests.ask_anyway(Resubmit, [future._original], [future._id], True)
            answer.add_done_callback(partial(_answered, book, future))


def _answered(book: TaskBook, future: TaskFuture, answer: Future[Any]) -> None:
    error = answer.exception()
    if error is not None:
        text = f"the controller that ran this task once more was lost, and the one that is there cannot go on with it: {error}"
        book.withdraw([future], ControllerLost(text, hint="Submit it anew."))

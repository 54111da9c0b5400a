"""Calls on several engines whose payload is sent once: the tasks of one call are queued singly, and go out together.

The tasks of a cast stand one behind the other in the queue, so what is cancelled, offered again or beyond the credit is left out
of a message as any other task would be. A controller that does not know Broadcast gets single Submits.
"""

# ruff: noqa: SLF001 - futures, their book and this are one machine
from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from clusterd.client import dependencies
from clusterd.client.task import TaskFuture
from clusterd.core.wire.messages import Broadcast, Submit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.client.book import TaskBook
    from clusterd.client.functions import PackedFunction
    from clusterd.client.future import Parent
    from clusterd.client.task import TaskOwner

# Of a Broadcast for each engine: an id and a number.
TARGET_BYTES: Final = 24


def members(
    owner: TaskOwner,
    count: int,
    cost: int,
    frames: Sequence[Any],
    function: PackedFunction | None,
    parent: Parent,
    convert: Callable[[TaskFuture, Any], Any] | None,
) -> list[TaskFuture]:
    """The futures of one cast of so many tasks, not queued yet; `cost` is that of the payload."""
    # It is sent once, and the controller keeps it once: each answers for its part.
    share = -(-cost // count)
    cast = object()
    futures = []
    for _ in range(count):
        future = TaskFuture(owner)
        future._frames, future._function, future._cost, future._cast = frames, function, share, cast
        future._parent, future._convert = parent, convert
        futures.append(future)
    return futures


def head(book: TaskBook) -> list[TaskFuture]:
    """The first of the queue, and those behind it that go in one message with it, as far as the credit goes."""
    queue, limits = book.queue, book.limits
    first = queue[0]
    taken, count, size = [first], len(book.in_flight) + 1, book.in_flight_bytes + first._cost
    submit = first._submit
    for future in islice(queue, 1, limits.max_targets):
        other = future._submit
        if future._cast is not first._cast or other is None or other.task not in book.pending:
            break
        count, size = count + 1, size + future._cost
        if count > limits.max_tasks or size > limits.max_task_bytes:
            break
        if submit is None or other.is_offered_again is not submit.is_offered_again:
            break
        if future._waits_for:
            dependencies.leave_out_unknown(other, future._waits_for, is_new_controller=book.is_new_controller)
            if other.options != submit.options:
                break
        taken.append(future)
    return taken


def message(submit: Submit, futures: Sequence[TaskFuture]) -> Submit | Broadcast:
    """What says them all: tasks that differ from `submit`, the first of them, in id and target alone."""
    if len(futures) == 1:
        return submit
    targets = [future._submit.target for future in futures if future._submit is not None]
    return Broadcast(
        [future._id for future in futures],
        [target for target in targets if isinstance(target, int)],
        submit.kind,
        submit.function,
        submit.body,
        submit.frames,
        submit.options,
        submit.is_offered_again,
    )

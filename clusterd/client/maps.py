"""A map: one future for many items, fed chunk by chunk.

Chunks are taken, pickled and submitted by the thread that waits for the map, or by one of its own: never by the I/O thread,
because iterators are code of users. Bounded: what keeps the engines busy for 50 ms is under way, and in a stream not more are
finished and unread. The first failure stops the feeding and gives up what has not begun behind it.
"""

# ruff: noqa: SLF001 - a map and its chunks are one machine in two files
from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from clusterd.client.arguments import pack_columns
from clusterd.client.future import CANCELLED, FINISHED, LightFuture
from clusterd.client.gate import Gate
from clusterd.client.items import Items
from clusterd.client.pace import Pace
from clusterd.client.progress import Progress
from clusterd.core.wire.messages import MAP, Deliver
from clusterd.errors import TaskAborted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clusterd.client.functions import PackedFunction
    from clusterd.client.task import TaskFuture
    from clusterd.client.view import View

_LOOK_AGAIN = 1.0


class MapFuture(LightFuture):
    """The results of a map. Iterate for results as they come (in order, or not when made so), or `result()` for the list.

    Attributes:
        total: number of items, None where the iterables do not say.
    """

    def __init__(
        self,
        view: View,
        function: PackedFunction,
        iterables: tuple[Iterable[Any], ...],
        *,
        ordered: bool = True,
        chunksize: int | None = None,
        is_streaming: bool = False,
        max_outstanding: int | None = None,
    ) -> None:
        super().__init__(view.client._connection)
        if max_outstanding is not None:
            _check_outstanding(max_outstanding)
        self._pace = Pace(chunksize)
        self._items = Items(iterables)
        self.total = self._items.total
        self._view = view
        self._function: PackedFunction | None = function
        self._name = function.message.name
        self._options = view._options().message()
        self._is_ordered = ordered
        self._is_streaming = is_streaming
        self._max_outstanding = max_outstanding
        self._news = Gate()
        # All below under `_news`. Chunks in the order in which they are given out: of their items, or of their ends. A stream
        # takes out what it has given.
        self._chunks: list[TaskFuture] | deque[TaskFuture] = deque() if is_streaming else []
        # By first item: chunks that are submitted and have not ended.
        self._under_way: dict[int, TaskFuture] = {}
        # Their number, and that of chunks about to be submitted.
        self._outstanding = 0
        # Chunks of a stream that are not given out yet, whether ended or not, and their items.
        self._unread = 0
        self._unread_items = 0
        # Items whose chunk has ended.
        self._done_items = 0
        self._is_fed = False
        self._is_stopped = False
        self._is_cancelled = False
        # The failed chunk that is first in order; what was aborted in consequence does not count.
        self._failed: TaskFuture | None = None
        # What the iterable or the pickling raised.
        self._feed_error: BaseException | None = None

    # --- feeding ---

    def begin(self) -> MapFuture:
        """Feed what can be fed at once, and the rest from a thread."""
        if self._is_streaming:
            return self
        if self._items.is_quick:
            self._feed(is_waiting=False)
        if not self._is_fed:
            self._feed_from_thread()
        return self

    def feed(self) -> None:
        """Feed all of it from this thread; returns when the last chunk is submitted, or none is needed any more."""
        self._feed(is_waiting=True)

    def _feed_from_thread(self) -> None:
        threading.Thread(target=self._feed, args=(True,), name="clusterd-map", daemon=True).start()

    def _feed(self, is_waiting: bool) -> None:  # noqa: FBT001 - private, and named by its callers
        try:
            while self._has_room(is_waiting=is_waiting):
                if self._is_stopped or not self._feed_one():
                    break
            else:
                return
        except BaseException as error:
            # Whatever the user's iterator raises is the map's error.
            self._feed_error = error
            self._give_up(0)
            self._fed()
            if not isinstance(error, Exception):
                raise  # Ctrl-C must not wait for what is running
        else:
            self._fed()

    def _fed(self) -> None:
        with self._news.lock:
            self._is_fed = True
            self._function = None
            self._news.notify_all()
            is_last = self._outstanding == 0
        if is_last:
            self._finish()

    def _has_room(self, *, is_waiting: bool) -> bool:
        limit = self._pace.ahead(self._view._width())
        with self._news.lock:
            while not self._is_stopped and self._is_full(limit):
                if not is_waiting:
                    return False
                self._news.wait(_LOOK_AGAIN)
        return True

    def _is_full(self, limit: int) -> bool:
        if self._max_outstanding is not None:
            return self._unread_items >= self._max_outstanding
        return (self._unread if self._is_streaming else self._outstanding) >= limit

    def _next_size(self) -> int:
        width = self._view._width()
        size = self._pace.next_size(self._items.left, width)
        if self._max_outstanding is None:
            return size
        # One chunk for each engine, and one behind it: a large one would keep the others waiting for room.
        size = min(size, max(1, self._max_outstanding // (2 * width)))
        return min(size, self._max_outstanding - self._unread_items)

    def _feed_one(self) -> bool:
        items, function = self._items, self._function
        first = items.taken
        columns = items.take(self._next_size())
        if columns is None or function is None:
            return False
        count = len(columns[0])
        packed = pack_columns(columns, name=self._name)
        self._pace.sent(count, len(packed[0]) + sum(map(len, packed[1])))
        with self._news.lock:
            # Counted first: it may end before `submit` returns.
            self._outstanding += 1
            self._unread += 1
            self._unread_items += count
        try:
            chunk = self._view.client._connection.tasks.submit(
                MAP,
                function,
                self._view._target(),
                packed,
                self._options,
                parent=self,
                span=range(first, first + count),
            )
        except BaseException:
            with self._news.lock:
                self._outstanding -= 1
            raise
        with self._news.lock:
            if self._is_ordered:
                self._chunks.append(chunk)
                self._news.notify_all()
            if not chunk.done():
                self._under_way[first] = chunk
        return True

    def child_ended(self, chunk: TaskFuture) -> None:
        """A chunk has ended; in the I/O thread."""
        failed = False
        answer = chunk._answer
        with self._news.lock:
            self._outstanding -= 1
            if chunk._is_error or chunk._state == CANCELLED:
                if not self._is_stopped or not chunk.was_ended_early:
                    failed = self._failed is None or chunk._span.start < self._failed._span.start
                    self._failed = chunk if failed else self._failed
            else:
                self._done_items += len(chunk._span)
                if type(answer) is Deliver:
                    size = len(answer.body) + sum(map(len, chunk._answer_frames))
                    self._pace.ended(len(chunk._span), answer.finished - answer.started, size)
            self._under_way.pop(chunk._span.start, None)
            if not self._is_ordered:
                self._chunks.append(chunk)
            is_last = self._is_fed and self._outstanding == 0
            self._news.notify_all()
        if failed:
            self._give_up(chunk._span.stop if self._is_ordered else 0)
        if is_last:
            self._finish()

    def _give_up(self, first: int) -> None:
        """Feed no more, and abort what has not begun of the chunks from item `first` on."""
        with self._news.lock:
            self._is_stopped = True
            behind = [chunk for start, chunk in self._under_way.items() if start >= first]
            self._news.notify_all()
        if behind:
            self._view.client._connection.end_early(behind, is_cancelling=False, is_waiting=False)

    def _finish(self) -> None:
        with self._owner.lock:
            if self._is_finishing:
                return
            self._is_finishing = True
        self._is_error = self._failed is not None or self._feed_error is not None
        self._end(CANCELLED if self._is_cancelled else FINISHED)
        with self._news.lock:
            self._news.notify_all()

    _is_finishing = False

    # --- for users ---

    def cancel(self) -> bool:
        """Take no more items, and give up what has not begun; True unless it had ended."""
        with self._news.lock:
            if self._is_fed and self._outstanding == 0:
                return self.cancelled()
            self._is_cancelled = True
        self._give_up(0)
        return True

    def abort(self) -> bool:
        """As `cancel`, but `result` raises TaskAborted."""
        with self._news.lock:
            if self._is_fed and self._outstanding == 0:
                return False
            self._feed_error = self._feed_error or TaskAborted("the map was aborted")
        self._give_up(0)
        return True

    @property
    def progress(self) -> int:
        """How many items are done."""
        return self._done_items

    @property
    def tasks(self) -> list[TaskFuture]:
        """The chunks so far, in the order of their results."""
        return list(self._chunks)

    def wait_interactive(self, timeout: float | None = None) -> bool:
        """Wait with a progress bar on stderr (where that is a terminal); False when `timeout` seconds have passed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with Progress(self._name, self.total) as bar:
            while not self.done():
                left = 0.1 if deadline is None else min(0.1, deadline - time.monotonic())
                if left <= 0:
                    break
                self.wait(left)
                bar.show(self._done_items)
        return self.done()

    def __iter__(self) -> Iterator[Any]:
        return self.results()

    def results(self, deadline: float | None = None) -> Iterator[Any]:
        """Yield the results as they come, in order where the map is ordered.

        Args:
            deadline: monotonic time after which TimeoutError is raised instead.
        """
        chunks, place = self._chunks, 0
        while True:
            with self._news.lock:
                while len(chunks) <= place and not (self._is_fed and (self._is_ordered or self._outstanding == 0)):
                    self._owner.check_may_wait()
                    self._news.wait(min(_LOOK_AGAIN, _left(deadline)))
                if len(chunks) <= place:
                    break
                chunk = chunks[place]
            yield from self._values(chunk, deadline)
            place += 1
            if isinstance(chunks, deque):
                with self._news.lock:
                    chunks.popleft()
                    place = 0
                    self._unread -= 1
                    self._unread_items -= len(chunk._span)
                    self._news.notify_all()
        if self._failed is not None:
            self._failed.result()
        if self._feed_error is not None:
            raise self._feed_error

    def _values(self, chunk: TaskFuture, deadline: float | None) -> list[Any]:
        if not chunk.done() and not chunk.wait(None if deadline is None else _left(deadline)):
            raise TimeoutError(f"{self._describe()} did not end in time")
        if chunk.was_ended_early:
            # Given up because of another one's failure, which is what the user wants to see.
            if self._failed is not None:
                self._failed.result()
            if self._feed_error is not None:
                raise self._feed_error
        values: list[Any] = chunk.result()
        return values

    def stream(self) -> Iterator[Any]:
        """Yield results and forget them; leaving early gives up the rest."""
        # Only now: a stream that nobody reads must not run.
        self._feed_from_thread()
        try:
            yield from self
        finally:
            self.cancel()

    def _load(self) -> tuple[Any, BaseException | None]:
        if self._failed is not None:
            return None, self._failed.exception()
        if self._feed_error is not None:
            return None, self._feed_error
        values: list[Any] = []
        for chunk in self._chunks:
            values += chunk.result()
        return values, None

    def _describe(self) -> str:
        return f"map of {self._name} ({self._done_items} of {'?' if self.total is None else self.total} items done)"


def _check_outstanding(count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"max_outstanding is a number of items, not {count!r}")
    if count < 1:
        raise ValueError(f"max_outstanding is at least 1, not {count}")


def _left(deadline: float | None) -> float:
    if deadline is None:
        return _LOOK_AGAIN
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the map did not end in time")
    return left

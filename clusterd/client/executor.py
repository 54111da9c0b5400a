"""A cluster as a `concurrent.futures.Executor`: for code that was written for a process pool."""

from __future__ import annotations

import threading
import time
import weakref
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from clusterd.client.future import LightFuture
    from clusterd.client.maps import MapFuture
    from clusterd.client.task import TaskFuture
    from clusterd.client.view import LoadBalancedView


class ClusterExecutor(Executor):
    """Submits to a load-balanced view.

    Args:
        view: where tasks run.
    """

    def __init__(self, view: LoadBalancedView) -> None:
        self.view = view
        self._lock = threading.Lock()
        self._is_shut_down = False
        # What `shutdown` has to wait for: a user that drops a future does not wait for it, but the task still runs.
        self._pending: set[TaskFuture] = set()
        self._maps: weakref.WeakSet[MapFuture] = weakref.WeakSet()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskFuture:
        """Call `fn(*args, **kwargs)` on any engine.

        Raises:
            RuntimeError: after `shutdown`.
            TaskNotSendable: function or argument cannot be pickled; says which.
        """
        with self._lock:
            self._check()
            future: TaskFuture = self.view.apply_async(fn, *args, **kwargs)
            self._pending.add(future)
        future._parent = self  # noqa: SLF001
        if future.done():
            self.child_ended(future)
        return future

    def child_ended(self, future: TaskFuture) -> None:
        """A task has ended."""
        self._pending.discard(future)

    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
    ) -> Iterator[Any]:
        """The results of `fn` for the items, in order.

        Args:
            fn: what to call.
            iterables: consumed lazily, unlike in a process pool.
            timeout: seconds from now after which the next result raises TimeoutError.
            chunksize: items in a task; None measures.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            self._check()
            future = self.view.map_async(fn, *iterables, chunksize=chunksize)
            self._maps.add(future)
        return _results(future, deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Take no more tasks; the client stays open.

        Args:
            wait: return only when all that was submitted has ended.
            cancel_futures: cancel what has not begun.
        """
        with self._lock:
            self._is_shut_down = True
            pending, maps = list(self._pending), list(self._maps)
        if cancel_futures:
            for each in maps:
                each.cancel()
            waiting = [future for future in pending if not future.done()]
            if waiting:
                self.view.client._connection.end_early(waiting, is_cancelling=True)  # noqa: SLF001
        if wait:
            everything: list[LightFuture] = [*pending, *maps]
            for future in everything:
                future.wait()

    def _check(self) -> None:
        if self._is_shut_down:
            raise RuntimeError("this executor is shut down")


def _results(future: MapFuture, deadline: float | None) -> Iterator[Any]:
    # As the standard library has it: who stops reading, or is late, cancels the rest.
    try:
        yield from future.results(deadline)
    finally:
        future.cancel()

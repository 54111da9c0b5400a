"""Views: on which engines, and how, functions are called. What both kinds share, and the load-balanced one.

A view is cheap and holds no connection of its own; its attributes are defaults that `temp_flags` changes for a while.
"""

from __future__ import annotations

import copy
import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from clusterd.client.arguments import pack_call
from clusterd.client.maps import MapFuture
from clusterd.client.options import Options, check_timeout
from clusterd.core.wire.messages import APPLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from clusterd.client.book import Target
    from clusterd.client.client import Client
    from clusterd.client.future import LightFuture
    from clusterd.client.task import TaskFuture


class View:
    """Base of both views.

    Attributes:
        client: the client that it belongs to.
        block: True makes `apply`, `map`, `execute`, `push` and `pull` wait for their result.
    """

    _FLAGS: frozenset[str] = frozenset({"block"})

    def __init__(self, client: Client, *, block: bool = False) -> None:
        self.client = client
        self.block = block

    # --- for the two kinds ---

    def _target(self) -> Target:
        """What a task that may run anywhere in the view has as its target."""
        raise NotImplementedError

    def _width(self) -> int:
        """How many engines the view has now."""
        raise NotImplementedError

    def _options(self) -> Options:
        return Options()

    def _apply(self, function: Callable[..., Any], args: Any, kwargs: Any, *, is_attended: bool) -> LightFuture:
        raise NotImplementedError

    # --- calls ---

    def apply(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `function(*args, **kwargs)`; a future, or with `block` the result."""
        return self.apply_sync(function, *args, **kwargs) if self.block else self.apply_async(function, *args, **kwargs)

    def apply_async(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call without waiting; a future.

        Arrays among the arguments are copied, so they may be changed afterwards.

        Raises:
            TaskNotSendable: the function or an argument cannot be pickled; says which.
            NoEngines: the view has none.
        """
        return self._apply(function, args, kwargs, is_attended=False)

    def apply_sync(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call and wait for the result. Arrays are sent from where they are, without a copy."""
        future = self._apply(function, args, kwargs, is_attended=True)
        return result_or_abort(future)

    def map(
        self,
        function: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        block: bool | None = None,
        ordered: bool = True,
        chunksize: int | None = None,
    ) -> Any:
        """Call `function` for each item (each tuple of items, up to the shortest, of several iterables).

        Args:
            function: what to call.
            iterables: consumed lazily: no more is taken than a few chunks for each engine.
            block: wait, and return the list; default: the view's `block`.
            ordered: False gives results as they come.
            chunksize: items in a task; None measures, and aims at tasks of some 20 ms. Say 1 where the iterable waits for
                something between items: an item may otherwise wait for the next ones of its chunk.

        Returns:
            A MapFuture, which is iterable; or with `block` the list of results.
        """
        if self.block if block is None else block:
            return self.map_sync(function, *iterables, ordered=ordered, chunksize=chunksize)
        return self.map_async(function, *iterables, ordered=ordered, chunksize=chunksize)

    def map_async(
        self,
        function: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        chunksize: int | None = None,
    ) -> MapFuture:
        """`map` without waiting."""
        return self._new_map(function, iterables, ordered=ordered, chunksize=chunksize).begin()

    def map_sync(
        self,
        function: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        chunksize: int | None = None,
    ) -> list[Any]:
        """`map`, and wait for the list."""
        future = self._new_map(function, iterables, ordered=ordered, chunksize=chunksize)
        future.feed()
        results: list[Any] = result_or_abort(future)
        return results

    def imap(
        self,
        function: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        chunksize: int | None = None,
        max_outstanding: int | None = None,
    ) -> Iterator[Any]:
        """Yield results as they are wanted, and forget them: for streams longer than memory.

        Args:
            function: as for `map`, with the next three.
            iterables: as there.
            ordered: as there.
            chunksize: as there.
            max_outstanding: items that may be taken from the iterables and not yet given out, whether they wait, run or are
                done; chunks are kept so small that all engines get some. None: a few chunks for each engine.
        """
        future = self._new_map(
            function,
            iterables,
            ordered=ordered,
            chunksize=chunksize,
            is_streaming=True,
            max_outstanding=max_outstanding,
        )
        return future.begin().stream()

    def _new_map(self, function: Callable[..., Any], iterables: tuple[Iterable[Any], ...], **how: Any) -> MapFuture:
        return MapFuture(self, self.client._pack_function(function), iterables, **how)  # noqa: SLF001

    # --- sugar ---

    def remote(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: each call of the function is an `apply` on this view."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self.apply(function, *args, **kwargs)

        return call

    def parallel(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: each call of the function is a `map` over its arguments on this view."""

        @functools.wraps(function)
        def call(*iterables: Iterable[Any]) -> Any:
            return self.map(function, *iterables)

        return call

    def with_options(self, **flags: Any) -> Self:
        """A view of the same engines with other attributes: `view.with_options(label="fit", after=loaded).apply(fit)`.

        Unlike `temp_flags` it changes nothing that another thread may be using.

        Raises:
            AttributeError: the view has no such flag; says which there are.
            TypeError, ValueError: a value is none for it.
        """
        self._check_flags(flags)
        other = copy.copy(self)
        other.__dict__.update(flags)
        other._options().message()  # noqa: SLF001 - its own class
        return other

    def _check_flags(self, flags: dict[str, Any]) -> None:
        unknown = set(flags) - self._FLAGS
        if unknown:
            raise AttributeError(f"no flag {min(unknown)!r}; there are {', '.join(sorted(self._FLAGS))}")

    @contextmanager
    def temp_flags(self, **flags: Any) -> Iterator[None]:
        """Set attributes of the view for the length of a `with` block.

        Raises:
            AttributeError: the view has no such flag; says which there are.
        """
        self._check_flags(flags)
        before = {name: getattr(self, name) for name in flags}
        try:
            for name, value in flags.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)


class LoadBalancedView(View):
    """Each call runs on whichever engine is free.

    Attributes:
        retries: further attempts after a failure of any kind.
        timeout: seconds that a task may run, None for no limit.
        after: futures that must have ended well before a task begins, or a `Dependency`, which can say other things: any of them
            is enough, failures count too.
        follow: futures on whose engine it must run, or a `Dependency`: of any of several that ran in different places. A task
            whose dependencies can never be met fails with TaskUnschedulable, which says why.
        label: text that goes with each task into the history (`client.task_records`).
        max_wait: seconds that a task may wait for its dependencies, and then for an engine, before it fails with TaskTimeout;
            None: as long as it takes.
    """

    _FLAGS = frozenset({"block", "retries", "timeout", "after", "follow", "label", "max_wait"})

    def __init__(
        self,
        client: Client,
        targets: Any = None,
        *,
        retries: int = 0,
        timeout: float | None = None,
        block: bool = False,
        label: str = "",
    ) -> None:
        super().__init__(client, block=block)
        self._targets = None if targets is None else client._select(targets)[0]  # noqa: SLF001
        self.retries = retries
        self.timeout = timeout
        self.after: Any = None
        self.follow: Any = None
        self.label = label
        self.max_wait: float | None = None
        # Mistakes should come here, not with the first call.
        self._options().message()

    @property
    def targets(self) -> list[int] | None:
        """Wire ids that it is limited to, None for all there are."""
        return None if self._targets is None else list(self._targets)

    def _target(self) -> Target:
        return self._targets

    def _width(self) -> int:
        return len(self._targets) if self._targets is not None else max(1, len(self.client.ids))

    def _options(self) -> Options:
        return Options(
            self.retries, check_timeout(self.timeout), self.label, self.after, self.follow, check_timeout(self.max_wait)
        )

    def _apply(self, function: Callable[..., Any], args: Any, kwargs: Any, *, is_attended: bool) -> TaskFuture:
        client = self.client
        packed = client._pack_function(function)  # noqa: SLF001
        call = pack_call(args, kwargs, name=packed.message.name, is_copying=not is_attended)
        options = None
        if (
            self.retries
            or self.timeout is not None
            or self.after
            or self.follow
            or self.label
            or self.max_wait is not None
        ):
            options = self._options().message()
        return client._connection.tasks.submit(  # noqa: SLF001
            APPLY, packed, self._targets, call, options, is_attended=is_attended
        )

    def __repr__(self) -> str:
        where = "all engines" if self._targets is None else f"engines {self._targets}"
        return f"<LoadBalancedView of {where}>"


def result_or_abort(future: LightFuture) -> Any:
    """The result; a KeyboardInterrupt gives up what has not begun, and leaves the client usable."""
    try:
        return future.result()
    except KeyboardInterrupt:
        if not future.done():
            future.cancel()
        raise

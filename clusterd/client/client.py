"""The client: what a user holds of a cluster. It finds the controller, gives views, and asks about engines and queues."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from clusterd.client import discovery
from clusterd.client.asking import Asking
from clusterd.client.connection import Connection
from clusterd.client.direct import DirectView
from clusterd.client.executor import ClusterExecutor
from clusterd.client.future import LightFuture
from clusterd.client.options import check_label
from clusterd.client.progress import Progress
from clusterd.client.task import TaskFuture
from clusterd.client.view import LoadBalancedView
from clusterd.errors import ControllerLost

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from clusterd.client.functions import PackedFunction
    from clusterd.core.wire.messages import EngineInfo

# A controller that is being restarted is back within this; one that is not there at all should not cost the whole timeout.
GRACE = 1.0


class Client(Asking):
    """A connection to one cluster; thread-safe, to be closed (`with`, or `close`).

    Args:
        profile_or_file: name of a profile, path of a connection file or of a profile directory; None means the only running
            instance, else `$CLUSTERD_PROFILE`.
        timeout: seconds to wait for the controller.
        label: free text by which `clusterctl status` calls this client.
        controller_timeout: seconds that a controller may be away before what is unfinished fails.

    Raises:
        ConnectionFileError: there is no usable connection file; says where it was looked for.
        ControllerLost: there is one, but nobody answers.
        ClusterdError: the controller refuses, and says why.
    """

    def __init__(
        self,
        profile_or_file: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 10.0,
        label: str = "",
        controller_timeout: float = 30.0,
    ) -> None:
        _check_seconds("timeout", timeout)
        _check_seconds("controller_timeout", controller_timeout)
        deadline = time.monotonic() + timeout
        whereabouts = discovery.find(profile_or_file)
        # Read once here, so that a file that is missing or not to be trusted is told at once.
        endpoints = whereabouts.read()
        _await_listener(endpoints, min(deadline, time.monotonic() + GRACE))
        self._connection = Connection(whereabouts.read, label=check_label(label), controller_timeout=controller_timeout)
        self._connection.start()
        try:
            self._await_ready(deadline, timeout)
        except BaseException:
            self._connection.close()
            raise

    def _await_ready(self, deadline: float, timeout: float) -> None:
        connection = self._connection
        if not connection.loop.ready.wait(max(0.0, deadline - time.monotonic())):
            raise ControllerLost(
                f"the controller did not answer within {timeout:g} s: {connection.loop.problem}",
                hint="See `clusterctl status` and `clusterctl logs controller`; a slow machine may need a longer `timeout`.",
            )
        if connection.loop.fatal is not None:
            raise connection.loop.fatal

    # --- engines ---

    @property
    def submitted(self) -> int:
        """How many tasks were submitted here in all."""
        return self._connection.tasks._number  # noqa: SLF001

    @property
    def acknowledged(self) -> int:
        """How many of them the controller has acknowledged, or have ended; in a durable profile these are in its store."""
        connection = self._connection
        connection.look()
        tasks = connection.tasks
        unsent = sum(not future._is_sent for future in list(tasks.pending.values()))  # noqa: SLF001
        return max(0, tasks._number - unsent - len(tasks.receipts.awaited()))  # noqa: SLF001

    @property
    def cluster(self) -> str:
        """Name of the cluster."""
        return self._connection.loop.cluster

    @property
    def ids(self) -> list[int]:
        """Wire ids of the registered engines, in order. An id is never used for another engine."""
        self._check()
        return list(self._connection.engines.ids)

    @property
    def engines(self) -> list[EngineInfo]:
        """What is known of each engine: id, engine_set, slot, host, pid, python, state, ..."""
        self._check()
        return self._connection.engines.infos()

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[DirectView]:
        for engine in self.ids:
            yield self[engine]

    def wait_for_engines(
        self, n: int | None = None, timeout: float | None = 60.0, *, progress: bool = True
    ) -> list[int]:
        """Wait until at least `n` engines are registered.

        Args:
            n: how many; None means one.
            timeout: seconds; None waits for ever.
            progress: show a bar, where stderr is a terminal.

        Returns:
            Their ids.

        Raises:
            TimeoutError: there were not so many in time; says how many there are.
        """
        wanted = 1 if n is None else n
        if isinstance(wanted, bool) or not isinstance(wanted, int):
            raise TypeError(f"n is a number of engines, not {n!r}")
        if wanted < 0:
            raise ValueError(f"n is a number of engines from 0, not {n}")
        if timeout is not None:
            _check_seconds("timeout", timeout, least=0.0)
        with Progress("engines", wanted, unit="ready") as bar:
            there = self._connection.engines.wait(
                wanted, timeout, self._check, bar.show if progress else lambda _count: None
            )
        if not there:
            raise TimeoutError(
                f"{len(self.ids)} of {wanted} engines were registered within {timeout:g} s; "
                f"`clusterctl status` says why the others are not"
            )
        return self.ids

    # --- views ---

    def __getitem__(self, targets: Any) -> DirectView:
        return DirectView(self, targets)

    def direct_view(
        self, targets: Any = "all", *, block: bool = False, timeout: float | None = None, label: str = ""
    ) -> DirectView:
        """A view of engines by name.

        Args:
            targets: a wire id (-1: the last), a slice, a list of ids, or "all": those that there are at each call.
            block: make calls wait.
            timeout: seconds that a task may run.
            label: text that goes with each task into the history.

        Raises:
            NoEngines: there are none. IndexError: an id is unknown; says which there are.
        """
        return DirectView(self, targets, block=block, timeout=timeout, label=label)

    def load_balanced_view(
        self,
        targets: Any = None,
        *,
        retries: int = 0,
        timeout: float | None = None,
        block: bool = False,
        label: str = "",
    ) -> LoadBalancedView:
        """A view that gives each task to whichever engine is free.

        Args:
            targets: limit it to some engines; None means all there are, also those that come later.
            retries: further attempts after a failure.
            timeout: seconds that a task may run.
            block: make calls wait.
            label: text that goes with each task into the history.

        Raises:
            NoEngines: none is registered.
        """
        self._select("all")
        return LoadBalancedView(self, targets, retries=retries, timeout=timeout, block=block, label=label)

    def activate(self, targets: Any = "all", *, suffix: str = "") -> None:
        """Have `%px` and its family (in IPython and Jupyter) run on engines of this client; see `%px?`.

        Args:
            targets: as for `direct_view`.
            suffix: of the magics' names: `_gpu` makes `%px_gpu`.
        """
        self.direct_view(targets).activate(suffix=suffix)

    def executor(self, targets: Any = None, *, retries: int = 0, timeout: float | None = None) -> ClusterExecutor:
        """A `concurrent.futures.Executor` on these engines; arguments as for `load_balanced_view`."""
        return ClusterExecutor(self.load_balanced_view(targets, retries=retries, timeout=timeout))

    # --- tasks ---

    def wait(self, futures: Iterable[LightFuture] | None = None, timeout: float | None = None) -> bool:
        """Wait until these (None: all of this client's) tasks have ended; False when `timeout` seconds have passed."""
        waiting = list(self._connection.tasks.pending.values()) if futures is None else list(futures)
        deadline = None if timeout is None else time.monotonic() + timeout
        return all(
            future.wait(None if deadline is None else max(0.0, deadline - time.monotonic())) for future in waiting
        )

    def abort(self, futures: Any = None, *, targets: Any = None) -> int:
        """End tasks of this client that have not begun; their results raise TaskAborted.

        Args:
            futures: a future or several; None (with `targets` None) means all.
            targets: end direct tasks for these engines instead.

        Returns:
            How many that were, of those that the controller knew.
        """
        self._check()
        connection = self._connection
        if futures is not None:
            chosen = [futures] if isinstance(futures, LightFuture) else list(futures)
            # A map or a call on several engines aborts its parts; single tasks go in one request.
            count = sum(bool(future.abort()) for future in chosen if not isinstance(future, TaskFuture))
            single = [future for future in chosen if isinstance(future, TaskFuture) and not future.done()]
            return count + (connection.end_early(single, is_cancelling=False) if single else 0)
        engines = None if targets is None else self._select(targets)[0]
        if engines is None:
            return connection.end_early(list(connection.tasks.pending.values()), is_cancelling=False)
        wanted = set(engines)
        return connection.end_early(
            [
                future
                for future in list(connection.tasks.pending.values())
                if future._submit is not None and _is_within(future._submit.target, wanted)  # noqa: SLF001
            ],
            is_cancelling=False,
        )

    # --- the end ---

    def close(self) -> None:
        """Leave the cluster; what is unfinished is given up. Closing twice is fine."""
        self._connection.close()

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._connection.is_closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Futures may outlive the client: the connection ends with the last of them. `_connection` is missing where __init__ failed.
        connection = self.__dict__.get("_connection")
        if connection is not None:
            connection.release()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._connection.engines)} engines"
        return f"<Client of {self.cluster!r}: {state}>"

    # --- for views ---

    def _pack_function(self, function: Callable[..., Any]) -> PackedFunction:
        return self._connection.tasks.functions.pack(function)


def _await_listener(endpoints: Any, deadline: float) -> None:
    while True:
        problem = discovery.nobody_listens(endpoints)
        if problem is None:
            return
        if time.monotonic() >= deadline:
            name = endpoints.cluster
            raise ControllerLost(
                f"the controller of {name!r} is not running: {problem}",
                hint=f"`clusterctl -p {name} status` says what happened; `clusterctl -p {name} start` starts it.",
            )
        # There is nothing to be woken by: the socket is what appears.
        time.sleep(0.02)


def _is_within(target: int | list[int] | None, wanted: set[int]) -> bool:
    return target in wanted if isinstance(target, int) else False


def _check_seconds(name: str, value: float, least: float = 1e-9) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {value!r}")
    if not value >= least:
        raise ValueError(f"{name} is a number of seconds above 0, not {value!r}")

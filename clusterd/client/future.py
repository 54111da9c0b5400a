"""Futures that cost little: `concurrent.futures.Future`s whose locks and lists exist only once somebody needs them.

A stdlib Future makes a Condition, an RLock and two lists when it is born; a client that submits a million tasks waits on few of
them. Here they are made by the first waiter or callback. Values are unpickled by the thread that asks for them, once: the I/O
thread runs no code of users but their callbacks. Invariants: `_end` is called once, by whoever took the task out of the
book of pending ones; `_state` changes under the connection's lock while there is no gate, else under the gate.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Protocol

from clusterd.client.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

log = logging.getLogger("clusterd.client")
# The words of concurrent.futures._base, whose wait() and as_completed() read `_state`.
PENDING = "PENDING"
FINISHED = "FINISHED"
CANCELLED = "CANCELLED_AND_NOTIFIED"


class Owner(Protocol):
    """What a future needs of the connection it lives on."""

    lock: threading.Lock

    def check_may_wait(self) -> None:
        """Raise where waiting could never end: in a callback, in a forked child."""

    def attend(self, future: LightFuture, deadline: float | None) -> None:
        """Carry messages from this thread until the future has ended; may return before."""

    def look(self) -> None:
        """Somebody wants to know of an end without waiting for it: read what has come."""


class Parent(Protocol):
    """What a future tells of its end."""

    def child_ended(self, child: Any) -> None:
        """One of the parts has ended; called in the I/O thread, must be quick."""


class LightFuture(Future[Any]):
    """Base of all futures of a client. It cannot be made by users."""

    # Defaults live in the class: most futures never set most of these.
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    # Made by the first waiter or callback.
    _gate: Gate | None = None
    _watchers: list[Any] | None = None
    _callbacks: list[Callable[[Future[Any]], object]] | None = None
    # True once _result and _exception are what result() returns or raises.
    _is_loaded: bool = False
    # How `_end` reports to waiters of the standard library.
    _is_error: bool = False
    _parent: Parent | None = None

    def __init__(self, owner: Owner) -> None:
        # Not super().__init__(): it makes what this class exists to avoid.
        self._owner = owner

    # --- what concurrent.futures.wait, as_completed and asyncio.wrap_future reach for ---

    @property
    def _condition(self) -> Gate:  # type: ignore[override]
        gate = self._gate
        if gate is None:
            with self._owner.lock:
                gate = self._gate
                if gate is None:
                    gate = self._gate = Gate()
            # Whoever comes here is about to watch it, from wherever it may be.
            self._owner.look()
        return gate

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        if self._watchers is None:
            self._watchers = []
        return self._watchers

    # --- questions ---

    def done(self) -> bool:
        """True when there is a result, an error, or it was cancelled."""
        if self._state == PENDING:
            self._owner.look()
        return self._state != PENDING

    def cancelled(self) -> bool:
        """True when it was cancelled."""
        return self._state == CANCELLED

    def running(self) -> bool:
        """False: whether an engine has begun is known to the controller (`client.queue_status()`), not here."""
        return False

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the value.

        Args:
            timeout: seconds; None waits as long as it takes, or until the controller is given up.

        Raises:
            TimeoutError: not within `timeout`; the task goes on.
            CancelledError: it was cancelled.
            ControllerLost: the controller vanished and did not come back in time.
            Exception: what the task raised, with its own type; its cause is the traceback of the engine.
        """
        self._settle(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                # Breaks the cycle exception -> traceback -> frame -> self.
                self = None  # type: ignore[assignment]  # noqa: PLW0642
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait, and return the error instead of raising it; None when there is a value. Raises as `result` for the rest."""
        self._settle(timeout)
        return self._exception

    def get(self, timeout: float | None = None) -> Any:
        """`result`, by the name that users of ipyparallel know."""
        return self.result(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end whatever it is; False when `timeout` seconds have passed."""
        if self._state == PENDING:
            self._wait(timeout)
        return self._state != PENDING

    def abort(self) -> bool:
        """As `cancel`, but `result` raises TaskAborted."""
        raise NotImplementedError

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Call `fn(future)` at the end, in the client's I/O thread; at once when it has ended already."""
        with self._condition.lock:
            if self._state == PENDING:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(fn)
                return
        self._call(fn)

    def __await__(self) -> Generator[Any, None, Any]:
        # Imported by who awaits, and asyncio is loaded then: the client itself does without.
        import asyncio  # noqa: PLC0415

        return asyncio.wrap_future(self).__await__()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._describe()} {self._state_word()}>"

    # --- inside ---

    def _describe(self) -> str:
        return f"at {id(self):#x}"

    def _state_word(self) -> str:
        if self._state != FINISHED:
            return "pending" if self._state == PENDING else "cancelled"
        return "failed" if self._is_error else "finished"

    def _settle(self, timeout: float | None) -> None:
        if self._state == PENDING:
            self._wait(timeout)
            if self._state == PENDING:
                raise TimeoutError(f"{self._describe()} has not ended within {timeout:g} s")
        if self._state == CANCELLED:
            raise CancelledError(f"{self._describe()} was cancelled")
        if not self._is_loaded:
            value, error = self._load()
            # Two threads may both have loaded: they must see one and the same object.
            with self._owner.lock:
                if not self._is_loaded:
                    self._result, self._exception, self._is_loaded = value, error, True
                    self._loaded()

    def _wait(self, timeout: float | None) -> None:
        self._owner.check_may_wait()
        deadline = None if timeout is None else time.monotonic() + timeout
        self._owner.attend(self, deadline)
        if self._state != PENDING:
            return
        gate = self._condition
        with gate.lock:
            while self._state == PENDING:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return
                gate.wait(left if left is None or left < threading.TIMEOUT_MAX else None)

    def _load(self) -> tuple[Any, BaseException | None]:
        """(value, error) of what has ended; called at most once by each thread that asks."""
        return self._result, self._exception

    def _loaded(self) -> None:
        """The value is there: let go of what it was made of. Called once, under the owner's lock."""

    def _end(self, state: str) -> None:
        """Make the end known. The caller has set what `_load` needs."""
        with self._owner.lock:
            gate = self._gate
            if gate is None:
                self._state = state
        if gate is not None:
            with gate.lock:
                self._state = state
                for watcher in self._watchers or ():
                    if state == CANCELLED:
                        watcher.add_cancelled(self)
                    elif self._is_error:
                        watcher.add_exception(self)
                    else:
                        watcher.add_result(self)
                gate.notify_all()
                callbacks, self._callbacks = self._callbacks, None
            for callback in callbacks or ():
                self._call(callback)
        parent = self._parent
        if parent is not None:
            self._parent = None
            parent.child_ended(self)

    def _call(self, callback: Callable[[Future[Any]], object]) -> None:
        try:
            callback(self)
        except Exception:
            log.exception("a callback of %r raised", self)

    # Only executors set results; here that is the controller's word alone.
    def set_result(self, result: Any) -> None:  # noqa: ARG002
        """Refused: the result comes from the engine."""
        raise RuntimeError("the result of a task comes from its engine")

    def set_exception(self, exception: BaseException | None) -> None:  # noqa: ARG002
        """Refused: the result comes from the engine."""
        raise RuntimeError("the result of a task comes from its engine")

    def set_running_or_notify_cancel(self) -> bool:
        """False when it was cancelled."""
        return self._state != CANCELLED

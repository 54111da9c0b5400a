"""Runs one task and tells how it went: value or failure, output, times. Knows nothing of the wire's sessions.

Invariants: nothing that user code does leaves `run` as an exception; a KeyboardInterrupt is raised at most once a task and
only while user code runs; what a task printed is in its own outcome. The cost of an empty call is the product's floor:
measure before adding a line to `run` or `_apply`.
"""

from __future__ import annotations

import time
from pickle import dumps as _pickle_dumps
from typing import TYPE_CHECKING, Any

import cloudpickle
from msgspec import Struct

from clusterd.core.wire import messages as m
from clusterd.core.wire import payload
from clusterd.engine import links
from clusterd.engine.sources import format_traceback
from clusterd.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from clusterd.engine.functions import HeldFunction
    from clusterd.engine.namespace import Namespace
    from clusterd.engine.output import Output

_NONE = _pickle_dumps(None, 5)


class Stopped(BaseException):
    """Raised in user code by SIGTERM: the engine ends, and the task that runs with it. Derived as SystemExit is."""


class Outcome(Struct, gc=False):
    """How a task went; the fields are those of `messages.Result`.

    Attributes:
        status: STATUS_OK or STATUS_ERROR.
        body: pickled value, or a packed `payload.RemoteFailure`.
        frames: its out-of-band buffers.
        started, finished: wall time in seconds; their difference is measured by a clock that does not jump.
        stdout, stderr: what it printed, the last MiB.
        display: rich output, null where there is none.
    """

    status: int
    body: bytes
    frames: Any
    started: float
    finished: float
    stdout: str = ""
    stderr: str = ""
    display: list[dict[str, Any]] | None = None


class Executor:
    """The one of this process.

    Args:
        namespace: where tasks run.
        output: where their output is caught; installed by the caller.
        name: "local/engines/3", for tracebacks.
    """

    def __init__(self, namespace: Namespace, output: Output, name: str) -> None:
        self.namespace = namespace
        self.output = output
        self.name = name
        # Position in the chunk of the item that runs, -1 outside of a map.
        self._index = -1
        # True while user code runs and has not been interrupted: only then does SIGINT raise.
        self._is_interruptible = False
        # True between `hold` and `release`, and what they kept back.
        self._is_holding = False
        self._held: KeyboardInterrupt | Stopped | None = None
        self._run_by_kind: dict[int, Callable[[HeldFunction | None, Any, Sequence[Any]], Any]] = {
            m.APPLY: self._apply,
            m.MAP: self._map,
            m.EXECUTE: self._execute,
            m.PUSH: self._push,
            m.PULL: self._pull,
            m.CLEAR: self._clear,
        }

    @property
    def is_running(self) -> bool:
        """True while user code runs that can be interrupted, or will be as soon as what it shows is on its way."""
        return self._is_interruptible or self._is_holding

    def on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        """Handler of SIGINT: ends the running task; between tasks it does nothing."""
        if self._is_interruptible:
            # Cleared before it raises: a second signal cannot hit the handling of the first.
            self._is_interruptible = False
            raise KeyboardInterrupt
        if self._is_holding and self._held is None:
            self._held = KeyboardInterrupt()

    def on_stop(self, _number: int, _frame: FrameType | None) -> None:
        """Handler of SIGTERM: ends the running task in such a way that `run` raises Stopped."""
        if self._is_interruptible:
            self._is_interruptible = False
            raise Stopped
        if self._is_holding:
            self._held = Stopped()

    def hold(self) -> None:
        """Until `release` no signal raises in user code, which is in the middle of something of ours."""
        self._is_holding = self._is_interruptible
        self._is_interruptible = False

    def release(self) -> None:
        """The reverse; what came meanwhile is raised here."""
        if self._is_holding:
            self._is_holding = False
            held, self._held = self._held, None
            if held is not None:
                raise held
            self._is_interruptible = True

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call what runs user code: signals reach it."""
        try:
            self._is_interruptible = True
            return function(*args)
        finally:
            self._is_interruptible = False
            self._held = None

    def run(self, kind: int, function: HeldFunction | None, body: Any, frames: Sequence[Any]) -> Outcome:
        """Run one task to its end.

        Args:
            kind: APPLY, MAP, EXECUTE, PUSH, PULL or CLEAR of `core.wire.messages`.
            function: what to call, for APPLY and MAP.
            body: the task's body.
            frames: its out-of-band buffers.

        Raises:
            Stopped: `on_stop` ended it; there is no outcome.
        """
        started = time.time()
        clock = time.perf_counter()
        status = m.STATUS_OK
        packed: Sequence[Any] = ()
        try:
            try:
                self._is_interruptible = True
                value = self._run_by_kind[kind](function, body, frames)
                # Pickling runs user code too, and may take as long.
                if value is None:
                    result = _NONE
                else:
                    result, packed = payload.pack(value, cloudpickle.dumps, "the result")
            finally:
                self._is_interruptible = False
        except Stopped:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the task's
            status, packed = m.STATUS_ERROR, ()
            result = self.failure(error)
        self._index = -1
        # Not time.time() again: a step of the wall clock must not make a duration negative.
        finished = started + (time.perf_counter() - clock)
        output = self.output
        stdout, stderr = (
            output.take() if output.stdout.is_dirty or output.stderr.is_dirty else ("", "")
        )  # the condition is repeated here because the call alone costs as much as the rest of this line
        display = self.namespace.shell.take_displayed() if self.namespace.shell.displayed else None
        return Outcome(status, result, packed, started, finished, stdout, stderr, display)

    # --- the kinds ---

    def _apply(self, function: HeldFunction | None, body: Any, frames: Sequence[Any]) -> Any:
        call, tied = self._callable(function)
        (args, kwargs), more = links.load(body, frames)
        if more:
            self.namespace.keep(more)
        if tied or self.namespace.kept:
            with self.namespace.linked(tied):
                return call(*args, **kwargs)
        return call(*args, **kwargs)

    def _map(self, function: HeldFunction | None, body: Any, frames: Sequence[Any]) -> list[Any]:
        """The body is a tuple of columns, one for each parameter: shorter and faster to pickle than a tuple for each item."""
        call, tied = self._callable(function)
        columns, more = links.load(body, frames)
        if more:
            self.namespace.keep(more)
        values: list[Any] = []
        append = values.append
        try:
            with self.namespace.linked(tied):
                if len(columns) == 1:
                    for item in columns[0]:
                        append(call(item))
                else:
                    for items in zip(*columns, strict=True):
                        append(call(*items))
        except BaseException:
            self._index = len(values)
            raise
        return values

    def _execute(self, _function: HeldFunction | None, body: Any, frames: Sequence[Any]) -> str | None:
        text = payload.unpack(body, frames)
        with self.namespace.linked(()):
            shown, error = self.namespace.shell.run_text(text)
        if error is not None:
            raise error
        return shown

    def _push(self, _function: HeldFunction | None, body: Any, frames: Sequence[Any]) -> None:
        values, more = links.load(body, frames)
        if more:
            self.namespace.keep(more)
        self.namespace.push(values)

    def _pull(self, _function: HeldFunction | None, body: Any, frames: Sequence[Any]) -> list[Any]:
        return self.namespace.pull(payload.unpack(body, frames))

    def _clear(self, _function: HeldFunction | None, _body: Any, _frames: Sequence[Any]) -> None:
        self.namespace.clear()

    @staticmethod
    def _callable(function: HeldFunction | None) -> tuple[Callable[..., Any], Sequence[links.Link]]:
        if function is None:
            raise TaskError("the task names no function", hint="The client that sent it is not one of clusterd's.")
        return function.call or function.load(), function.links

    # --- failures ---

    def failure(self, error: BaseException) -> bytes:
        """The body of a failed task's result; never raises."""
        where = f"engine {self.name}" if self._index < 0 else f"engine {self.name}, item {self._index} of the chunk"
        text = format_traceback(error, where)
        if isinstance(error, SystemExit):
            # With its own type it would end the client that asks for the result.
            error = TaskError(f"the task called sys.exit({'' if error.code is None else repr(error.code)})")
        try:
            message = str(error)
        except Exception as problem:  # noqa: BLE001 - user code
            message = f"(its text cannot be had: {type(problem).__name__})"
        pickled = payload.pack_exception(error, cloudpickle.dumps)
        # The traceback names all locals of the task: arguments and values would live until the next failure.
        error.__traceback__ = None
        return payload.pack_failure(
            payload.RemoteFailure(type(error).__qualname__, message, text, self.name, self._index, pickled)
        )

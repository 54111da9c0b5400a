"""The future of one task: what was sent, where it stands, and what came back.

It holds the Submit until the end, because a new controller is offered everything that has no result; then it lets go of it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from clusterd import errors
from clusterd.client.future import CANCELLED, FINISHED, PENDING, LightFuture, Owner
from clusterd.core.wire import payload
from clusterd.core.wire.frames import find_body
from clusterd.core.wire.messages import STATUS_OK, Deliver, Failed
from clusterd.errors import ClusterdError, TaskAborted, TaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.client.functions import PackedFunction
    from clusterd.core.wire.messages import Submit

# By code of a Failed. Codes without a class of their own become a TaskError with that code.
_CLASSES: Final[dict[str, type[ClusterdError]]] = {
    cls.code: cls
    for cls in vars(errors).values()
    if isinstance(cls, type)
    and issubclass(cls, (TaskError, errors.ControllerLost))
    and cls is not errors.CompositeError
}


class TaskOwner(Owner, Protocol):
    """What a task needs of the connection it lives on."""

    def is_acknowledged(self, future: TaskFuture) -> bool:
        """See `TaskFuture`; asked of one that has not ended."""

    def end_early(self, futures: Sequence[TaskFuture], *, is_cancelling: bool, is_waiting: bool = True) -> int:
        """Cancel or abort what has not begun; the number that is known to have ended."""


class TaskFuture(LightFuture):
    """One task. Made by views; a `concurrent.futures.Future`, also awaitable.

    Attributes:
        submitted: wall time of the submission, in seconds since the epoch.
    """

    _owner: TaskOwner
    # All but `submitted` is set by the book. The request; None once it has ended.
    _submit: Submit | None = None
    _frames: Sequence[Any] = ()
    _function: PackedFunction | None = None
    # Bytes that count against queue and credit.
    _cost: int = 0
    # True from when it was handed to the link until it is offered again.
    _is_sent: bool = False
    # True when the user cancelled it: its end is CANCELLED then, not TaskAborted.
    _is_cancelling: bool = False
    # What came back, without the body once that is unpacked.
    _answer: Deliver | Failed | None = None
    _answer_frames: Sequence[Any] = ()
    _error: BaseException | None = None
    # Turns the raw value into what the user gets.
    _convert: Callable[[TaskFuture, Any], Any] | None = None
    # What it was told to wait for, as far as this client knows it.
    _waits_for: Sequence[TaskFuture] = ()
    # One object for all tasks of a call on several engines, whose payload is sent once.
    _cast: object | None = None
    # Of a task that the controller makes of its records: the id of what is run once more.
    _original: bytes = b""
    # The items of a map that it runs.
    _span: range = range(0)
    _id: bytes = b""

    def __init__(self, owner: TaskOwner) -> None:
        self._owner = owner
        self.submitted = time.time()

    # --- what the user may know ---

    @property
    def task_id(self) -> str:
        """The id under which controller, logs and `queue_status` know it (hex)."""
        return self._id.hex()

    @property
    def is_acknowledged(self) -> bool:
        """True once the controller has it: in a durable profile it is in the store, and runs whatever becomes of this process."""
        return self._state != PENDING or self._owner.is_acknowledged(self)

    @property
    def engine_id(self) -> int | None:
        """Wire id of the engine that ran it (last); None before the end, or where none was involved."""
        answer = self._answer
        return answer.engine if answer is not None and answer.engine >= 0 else None

    @property
    def attempt(self) -> int | None:
        """Number of the execution that ended it, from 0; None before the end."""
        return self._answer.attempt if self._answer is not None else None

    @property
    def started(self) -> float | None:
        """Wall time on the engine when it began; None where there was no execution to its end."""
        return self._answer.started if isinstance(self._answer, Deliver) else None

    @property
    def finished(self) -> float | None:
        """Wall time on the engine when it ended."""
        return self._answer.finished if isinstance(self._answer, Deliver) else None

    @property
    def elapsed(self) -> float | None:
        """Seconds that it ran."""
        answer = self._answer
        return answer.finished - answer.started if isinstance(answer, Deliver) else None

    @property
    def stdout(self) -> str:
        """What the task printed; complete when it has ended."""
        return self._answer.stdout if isinstance(self._answer, Deliver) else ""

    @property
    def stderr(self) -> str:
        """What it wrote to stderr."""
        return self._answer.stderr if isinstance(self._answer, Deliver) else ""

    @property
    def display(self) -> list[dict[str, Any]]:
        """Rich output: dicts with `kind`, `data` (by MIME type) and `metadata`."""
        return (self._answer.display or []) if isinstance(self._answer, Deliver) else []

    # --- ending it early ---

    def cancel(self) -> bool:
        """Cancel it if it has not begun to run.

        Asks the controller, which takes a round trip, where it has been sent already; in a callback or in an event loop it
        asks without waiting and returns False, and the future is cancelled a moment later.

        Returns:
            True when it will never run.
        """
        if self._state == FINISHED:
            return False
        return self._state == CANCELLED or self._owner.end_early([self], is_cancelling=True) == 1

    def abort(self) -> bool:
        """As `cancel`, but `result` raises TaskAborted."""
        return not self.done() and self._owner.end_early([self], is_cancelling=False) == 1

    @property
    def was_ended_early(self) -> bool:
        """True when it was cancelled or aborted before it ran."""
        return (
            self._state == CANCELLED
            or isinstance(self._error, TaskAborted)
            or (isinstance(self._answer, Failed) and self._answer.code == TaskAborted.code)
        )

    # --- for the book ---

    def _answered(self, answer: Deliver | Failed, frames: Sequence[Any]) -> None:
        self._answer = answer
        self._submit = self._function = None
        self._frames = self._waits_for = ()
        if type(answer) is Deliver:
            self._answer_frames = frames
            self._is_error = answer.status != STATUS_OK
            self._end(FINISHED)
        elif self._is_cancelling and isinstance(answer, Failed) and answer.code == "aborted":
            self._end(CANCELLED)
        else:
            self._is_error = True
            self._end(FINISHED)

    def _fail(self, error: BaseException | None) -> None:
        """End it with an error of the client's own; None cancels it."""
        self._submit = self._function = None
        self._frames = self._waits_for = ()
        self._error = error
        self._is_error = True
        self._end(FINISHED if error is not None else CANCELLED)

    # --- loading ---

    def _load(self) -> tuple[Any, BaseException | None]:
        answer = self._answer
        if self._error is not None:
            return None, self._error
        if type(answer) is Failed:
            return None, _failed(answer)
        if type(answer) is not Deliver:
            return None, ClusterdError("the task ended without an answer")
        # Kept by this thread: another one may load at the same moment, and the first to finish lets go of the bytes.
        packed, packed_frames = answer.body, self._answer_frames
        if self._is_loaded:
            return self._result, self._exception
        try:
            body, frames = find_body(packed, packed_frames) if packed_frames else (packed, ())
            return self._unpacked(answer, body, frames)
        except Exception as problem:  # noqa: BLE001 - unpickling runs code of users
            problem.add_note(f"[while the result of task {self._id.hex()} was unpickled in this process]")
            return None, problem

    def _unpacked(self, answer: Deliver, body: Any, frames: Sequence[Any]) -> tuple[Any, BaseException | None]:
        if answer.status == STATUS_OK:
            value = payload.unpack(body, frames)
            return (value if self._convert is None else self._convert(self, value)), None
        failure = payload.unpack_failure(body)
        error = failure.to_exception()
        item = f"item {self._span.start + failure.index}, " if failure.index >= 0 else ""
        error.add_note(
            f"[{item}task {self._id.hex()}, engine {answer.engine} ({failure.engine}), attempt {answer.attempt}]"
        )
        return None, error

    def _loaded(self) -> None:
        """Let go of the bytes: the value is there."""
        if type(self._answer) is Deliver:
            self._answer.body = b""
        self._answer_frames = ()

    def _describe(self) -> str:
        return f"task {self._id.hex()}"


def forgotten(answer: Failed) -> Failed:
    """What is said for "this id is another client's" where that client is this one, before the controller forgot it."""
    text = (
        "the controller has given this client up, which was away for minutes, and with it this task: it may have run or not, "
        "and its result was dropped"
    )
    return Failed(answer.task, 0, errors.ControllerLost.code, text, "Submit it anew, if it may run twice.")


def _failed(answer: Failed) -> ClusterdError:
    cls = _CLASSES.get(answer.code)
    error: ClusterdError = (cls or TaskError)(answer.message, hint=answer.hint)
    if cls is None:
        error.code = answer.code
    return error

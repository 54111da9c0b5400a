"""Questions and commands on the control connection, each with its answer.

What only asks, or may be carried out twice without harm, is asked again when the connection was lost before the answer; another
command is not, because nobody can say whether it was carried out.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from clusterd.core.wire import messages as m
from clusterd.errors import BadQuery, ClusterdError, ControllerLost, NoRecords, UnknownTask

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterd.client.wake import Alarm
    from clusterd.link import Link

_REPEATABLE: Final = (m.Abort, m.QueueStatus, m.ControllerStatus, m.ListEngines, m.QueryTasks, m.Resubmit)
# By code of an ErrorReply; all other codes are told by a plain ClusterdError.
_CLASSES: Final[dict[str, type[ClusterdError]]] = {cls.code: cls for cls in (BadQuery, NoRecords)}


# A request that costs the connection so often does so because the controller does not understand it.
_MAX_SENT: Final = 3


class _Open:
    __slots__ = ("answer", "message", "sent")

    def __init__(self, message: Any, answer: Future[Any]) -> None:
        self.message = message
        self.answer = answer
        # How often it was sent.
        self.sent = 0


class Requests:
    """The open requests of one connection."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        # Not yet sent.
        self.outbox: deque[_Open] = deque()
        # By number: all and only those sent on the present connection and not answered.
        self._sent: dict[int, _Open] = {}
        self.refusal: Callable[[], ClusterdError] | None = None

    def ask(self, kind: Callable[..., Any], *fields: Any) -> Future[Any]:
        """Ask; `kind` is a message type whose first field is the number of the request.

        The future's result is the value of the Reply, or it raises what the ErrorReply says.
        """
        with self._lock:
            if self.refusal is not None:
                raise self.refusal()
            answer = self.ask_anyway(kind, *fields)
        self._alarm.ring()
        return answer

    def renew_lock(self) -> None:
        """In a forked child: a lock that no vanished thread holds."""
        self._lock = threading.Lock()

    # --- the I/O thread ---

    @property
    def is_quiet(self) -> bool:
        """True while no answer is expected."""
        return not self._sent and not self.outbox

    def ask_anyway(self, kind: Callable[..., Any], *fields: Any) -> Future[Any]:
        """`ask`, also while users may not."""
        answer: Future[Any] = Future()
        self.outbox.append(_Open(kind(next(self._numbers), *fields), answer))
        return answer

    def open_reruns(self) -> set[bytes]:
        """New ids of tasks that are to be run once more, as far as the answer has not come."""
        messages = [request.message for request in (*self.outbox, *self._sent.values())]
        return {new_id for message in messages if isinstance(message, m.Resubmit) for new_id in message.new_ids}

    def pump(self, link: Link) -> None:
        """Send what waits."""
        while self.outbox and link.is_attached:
            request = self.outbox.popleft()
            self._sent[request.message.request] = request
            request.sent += 1
            try:
                link.send([request.message])
            except ClusterdError as error:
                self._finish(request.message.request, None, error)

    def receive(self, message: m.Reply | m.ErrorReply) -> None:
        """An answer came."""
        if type(message) is m.Reply:
            self._finish(message.request, message.value, None)
        elif type(message) is m.ErrorReply:
            self._finish(message.request, None, _error_of(message))

    def disconnected(self, reason: str) -> None:
        """Ask again, or tell that it is not known."""
        sent, self._sent = list(self._sent.values()), {}
        for request in reversed(sent):
            if request.answer.cancelled():
                continue
            if isinstance(request.message, _REPEATABLE) and request.sent < _MAX_SENT:
                if isinstance(request.message, m.Resubmit):
                    request.message.is_asked_again = True
                self.outbox.appendleft(request)
            else:
                _set(
                    request.answer,
                    None,
                    ControllerLost(
                        f"the controller was lost during {type(request.message).__name__}: {reason}",
                        hint="It may have been carried out or not; look before you repeat it.",
                    ),
                )

    def end_all(self, error: Callable[[], ClusterdError], *, is_final: bool) -> None:
        """Fail all that is open, and what comes (until `refusal` is reset, unless final)."""
        with self._lock:
            if is_final or self.refusal is None:
                self.refusal = error
        while self.outbox:
            _set(self.outbox.popleft().answer, None, error())
        for request in self._sent.values():
            _set(request.answer, None, error())
        self._sent.clear()

    def _finish(self, number: int, value: Any, error: ClusterdError | None) -> None:
        request = self._sent.pop(number, None)
        if request is not None:
            _set(request.answer, value, error)


def _error_of(message: m.ErrorReply) -> ClusterdError:
    if message.code == UnknownTask.code:
        return UnknownTask(message.message.removeprefix("no record of task "))
    error = _CLASSES.get(message.code, ClusterdError)(message.message, hint=message.hint)
    error.code = message.code
    return error


def _set(answer: Future[Any], value: Any, error: ClusterdError | None) -> None:
    # False when whoever asked has stopped waiting and cancelled it.
    if answer.set_running_or_notify_cancel():
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(value)

"""The daemon's connection to the controller, in the event loop: an operator's Link, its descriptors watched, its requests answered.

ZeroMQ's descriptor is edge-triggered: it tells once that something came, and not again for what is still there. So after every
receive and every send all that is ready is taken, until the link and its sockets say that nothing is left. The descriptors
are watched as copies: the Link closes its own by itself, and a number that is reused must not be ours to watch.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import select
import socket as sockets
from typing import TYPE_CHECKING, Any, Final

from clusterd.core.model import connection as connection_file
from clusterd.core.wire.messages import AttachClient, ErrorReply, Ping, Reply
from clusterd.errors import ConnectionFileError, ControlError, ControllerLost
from clusterd.link import Down, Link, Received, Refusal, Up
from clusterd.system import clock, files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clusterd.core.model.connection import NativeEndpoints
    from clusterd.link import Event

__all__ = ["ControllerLink"]

SILENT_INTERVALS: Final = 3


class ControllerLink:
    """One operator's link.

    Args:
        file: the client's connection file; it may not exist yet.
        label: what the controller's status calls us.

    Attributes:
        on_up: called when attached.
        on_messages: called with what comes unasked.
        on_down: called with the reason when the connection is gone.
    """

    def __init__(self, file: Path, label: str) -> None:
        self.on_up: Callable[[], None] = lambda: None
        self.on_messages: Callable[[list[Any]], None] = lambda _messages: None
        self.on_down: Callable[[str], None] = lambda _reason: None
        self._loop = asyncio.get_running_loop()
        self._file = file
        self._label = label
        self._uuid = os.urandom(16)
        # Made when the controller is on another host.
        self._context: Any = None
        self._link = Link(self._zmq_context, self._endpoints, "operator", "control", self._attach)
        # What the link wants to be watched, as it last said, and our copies of these descriptors.
        self._pollables: list[tuple[Any, int]] = []
        self._copies: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._ping_timer: asyncio.TimerHandle | None = None
        self._next_request = 0
        # Requests without an answer: who awaits it, or what is called with its value.
        self._requests: dict[int, asyncio.Future[Any] | Callable[[Any], None]] = {}
        self._last_sent = 0.0

    @property
    def is_up(self) -> bool:
        """Whether the controller has taken us in."""
        return self._link.is_attached

    @property
    def problem(self) -> str:
        """Why it is not up, in a sentence."""
        return self._link.problem

    @property
    def last_heard(self) -> float:
        """Monotonic time of the last word of the controller."""
        return self._link.last_heard

    def open(self) -> None:
        """Begin to dial."""
        self._link.open()
        self._pump()

    def close(self) -> None:
        """End the link; requests under way fail."""
        self._link.close("the daemon ends")
        self._fail_requests("the daemon ends")
        for timer in (self._timer, self._ping_timer):
            if timer is not None:
                timer.cancel()
        self._watch()
        if self._context is not None:
            self._context.term()

    def dial_now(self) -> None:
        """Dial at once if there is no connection: a new connection file was written."""
        if self._link.state == "waiting":
            self._link.close()
            self.open()

    def send(self, message: Any) -> None:
        """Send a message, now or when there is a connection."""
        self._last_sent = clock.monotonic()
        self._link.send([message])
        self._loop.call_soon(self._pump)

    async def request(self, make: Callable[[int], Any]) -> Any:
        """Send a request and return the value of its reply.

        Args:
            make: makes the message from the request's number.

        Raises:
            ControllerLost: there is no connection, or it was lost meanwhile.
            ControlError: the controller refused; the error has its code.
        """
        if not self.is_up:
            raise ControllerLost(f"there is no connection to the controller: {self.problem}")
        number = self._new_number()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._requests[number] = future
        try:
            self.send(make(number))
            return await future
        finally:
            self._requests.pop(number, None)

    def ask(self, make: Callable[[int], Any], on_value: Callable[[Any], None]) -> None:
        """Send a request and have `on_value` called with its reply's value, in its place among the notices around it.

        Without an answer (refused, connection lost) it is not called: the next connection asks anew.
        """
        number = self._new_number()
        self._requests[number] = on_value
        self.send(make(number))

    # --- inside ---

    def _new_number(self) -> int:
        self._next_request += 1
        return self._next_request

    def _endpoints(self) -> NativeEndpoints:
        try:
            data = files.read_private(self._file, is_shared=True)
        except FileNotFoundError:
            raise ConnectionFileError(f"the controller has not written {self._file} yet") from None
        except OSError as error:
            raise ConnectionFileError(f"{self._file} cannot be read: {error.strerror}") from error
        return connection_file.decode(data, str(self._file)).clusterd

    def _attach(self, token: bytes) -> AttachClient:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a uid without an entry in passwd
            user = str(os.geteuid())
        return AttachClient(self._uuid, token, os.getpid(), sockets.gethostname(), user, self._label)

    def _zmq_context(self) -> Any:
        import zmq  # noqa: PLC0415 - 30 ms that a controller on this host does not cost

        if self._context is None:
            self._context = zmq.Context()
        return self._context

    def _pump(self) -> None:
        link = self._link
        while True:
            received = link.receive()
            self._handle(received)
            self._handle(link.tick())
            if not received and not any(_has_input(pollable) for pollable, _ in link.pollables()):
                break
        self._watch()
        self._plan()

    def _handle(self, happened: list[Event]) -> None:
        for event in happened:
            match event:
                case Up():
                    self._plan_ping()
                    self.on_up()
                case Received():
                    self._received(event.messages)
                case Down():
                    self._fail_requests(event.reason)
                    self.on_down(event.reason)
                case Refusal():
                    self._fail_requests(event.error.message)
                    self.on_down(event.error.message)

    def _received(self, messages: list[Any]) -> None:
        unasked: list[Any] = []
        for message in messages:
            if not isinstance(message, Reply | ErrorReply):
                unasked.append(message)
                continue
            waiting = self._requests.pop(message.request, None)
            if isinstance(waiting, asyncio.Future):
                _settle(waiting, message)
            elif waiting is not None and isinstance(message, Reply):
                # What came before the reply is older than it, and must not be taken for news.
                if unasked:
                    self.on_messages(unasked)
                    unasked = []
                waiting(message.value)
        if unasked:
            self.on_messages(unasked)

    def _fail_requests(self, reason: str) -> None:
        requests, self._requests = self._requests, {}
        for future in requests.values():
            if isinstance(future, asyncio.Future) and not future.done():
                future.set_exception(ControllerLost(f"the connection to the controller was lost: {reason}"))

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._link.next_deadline()
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._pump)

    def _plan_ping(self) -> None:
        welcome = self._link.welcome
        interval = welcome.limits.ping_interval if welcome is not None else 1.0
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        self._ping_timer = self._loop.call_later(interval, self._ping, interval)

    def _ping(self, interval: float) -> None:
        if not self.is_up:
            return  # planned again with the next Up
        now = clock.monotonic()
        if now - self.last_heard > SILENT_INTERVALS * interval:
            self._handle(self._link.redial(f"the controller was silent for {now - self.last_heard:.0f} s"))
            self._pump()
        elif now - self._last_sent >= interval / 2:
            self.send(Ping())
        self._plan_ping()

    def _watch(self) -> None:
        wanted = self._link.pollables()
        if wanted == self._pollables:
            return
        for copy in self._copies:
            self._loop.remove_reader(copy)
            self._loop.remove_writer(copy)
            os.close(copy)
        self._pollables = wanted
        self._copies = [os.dup(_descriptor(pollable)) for pollable, _ in wanted]
        for copy, (_, flags) in zip(self._copies, wanted, strict=True):
            if flags & select.POLLIN:
                self._loop.add_reader(copy, self._pump)
            if flags & select.POLLOUT:
                self._loop.add_writer(copy, self._pump)


def _settle(future: asyncio.Future[Any], message: Reply | ErrorReply) -> None:
    if future.done():
        return
    if isinstance(message, Reply):
        future.set_result(message.value)
    else:
        future.set_exception(ControlError(message.message, code=message.code, hint=message.hint))


def _descriptor(pollable: Any) -> int:
    """Return the descriptor to watch: of a ZeroMQ socket, its signal; it becomes readable whatever happened."""
    if isinstance(pollable, int):
        return pollable
    import zmq  # noqa: PLC0415 - loaded: it is one of its sockets

    return int(pollable.getsockopt(zmq.FD))


def _has_input(pollable: Any) -> bool:
    """Say whether a ZeroMQ socket holds more; a plain descriptor will say so itself."""
    if isinstance(pollable, int):
        return False
    import zmq  # noqa: PLC0415 - as above

    return bool(int(pollable.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

"""One turn of a client's I/O: send what waits, poll both links, deal with what came, watch whether the controller lives.

It has no thread of its own: `helm` says whose turn it is. Invariant: nobody else touches a socket.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import select
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from clusterd.client import reruns
from clusterd.client.patience import Patience
from clusterd.core.wire import messages as m
from clusterd.errors import ClusterdError, ControllerLost, KeyChanged
from clusterd.link import Down, Link, Received, Refusal, Up

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterd.client.book import TaskBook
    from clusterd.client.engines import EngineBook
    from clusterd.client.requests import Requests
    from clusterd.client.wake import Alarm
    from clusterd.core.model.connection import NativeEndpoints
    from clusterd.link import Event

log = logging.getLogger("clusterd.client")
# Deadlines, pings and the controller's silence are looked at so often while messages come.
LOOK_SECONDS = 0.02
# A new client gives up when the key in its file was refused so often.
OUTDATED = 3
# A poll is at first so short.
SHORTLY = 0.005


class Loop:
    """Both links of one client, and the books that they serve.

    Args:
        endpoints: called at each dial for the connection file as it is then.
        tasks, requests, engines: the books.
        alarm: rung when a book has work.
        uuid: 16 random bytes, who this client is.
        label: free text for `status`.
        controller_timeout: seconds without a controller after which all that is unfinished fails.
    """

    def __init__(
        self,
        endpoints: Callable[[], NativeEndpoints],
        tasks: TaskBook,
        requests: Requests,
        engines: EngineBook,
        alarm: Alarm,
        *,
        uuid: bytes,
        label: str,
        controller_timeout: float,
    ) -> None:
        self._tasks = tasks
        self._requests = requests
        self._engines = engines
        self._alarm = alarm
        self._uuid = uuid
        self._label = label
        self.cluster = ""
        # True once it must not be turned any more.
        self.is_over = False
        # See `helm.Turner`.
        self.is_claimed = False
        self.is_polling = False
        # Why that is so, when nobody asked for it.
        self.fatal: ClusterdError | None = None
        # Nobody holds the client any more: it is over when the last task has ended.
        self.is_orphan = False
        # Set when the first attach is complete, or cannot be.
        self.ready = threading.Event()
        # Of ZeroMQ; made when a controller on another host needs it.
        self._context: Any = None
        self._data = Link(self._zmq_context, endpoints, "client", "data", self._attach_message)
        self._control = Link(self._zmq_context, endpoints, "client", "control", self._attach_message)
        self._handlers = ((self._data, self._on_data), (self._control, self._on_control))
        # True after the controller was given up, until it is back.
        self._is_lost = False
        # A controller has taken us in before.
        self._has_been_up = False
        # Monotonic times.
        self._patience = Patience(controller_timeout, time.monotonic())
        self._ping_at = 0.0
        # When the control connection was given up for its silence, None when it was not: data is then not trusted either.
        self._silent_since: float | None = None
        # When `_look` is due, though there is always something to read.
        self._look_at = 0.0
        self._poller: Any = None
        # What the poller was made for: generation and is_sending of data and control; and who reads what.
        self._polled: tuple[Any, ...] = ()
        self._readers: dict[Any, tuple[Link, Callable[[Event], None]]] = {}

    def open(self) -> None:
        """Begin to dial."""
        self._patience = Patience(self._patience.limit, time.monotonic())
        self._data.open()
        self._control.open()

    def close(self) -> None:
        """Say goodbye and let go of everything; the books are not touched."""
        self.is_over = True
        for link in (self._control, self._data):
            link.close("the client was closed")
        if self._context is not None:
            # Linger is bounded by the links: what is not sent within it is dropped.
            self._context.term()

    @property
    def is_quiet(self) -> bool:
        """True while no answer is expected."""
        return not self._tasks.in_flight and not self._tasks.queue and self._requests.is_quiet

    @property
    def problem(self) -> str:
        """Why there is no connection, in a sentence."""
        return self._data.problem or self._control.problem or "it does not answer"

    # --- a turn ---

    def send(self) -> bool:
        """Send what waits, as far as that goes without a wait; see `helm.Turner`."""
        tasks = self._tasks
        if tasks.queue and self._data.is_clear:
            tasks.pump(self._data)
        if self._requests.outbox:
            self._requests.pump(self._control)
        return not tasks.queue

    def turn(self, longest: float, *, is_yielding: bool) -> None:
        """Poll for at most `longest` seconds and deal with what there is; see `helm.Turner`."""
        if self._tasks.queue or self._requests.outbox:
            self.send()
        readable = self._poll(longest, is_yielding=is_yielding)
        is_eventful = False
        for source, _ in readable:
            reader = self._readers.get(source)
            if reader is None:
                self._alarm.clear()
                continue
            link, handle = reader
            for event in link.receive():
                is_eventful = is_eventful or type(event) is not Received
                handle(event)
        now = time.monotonic()
        if is_eventful or not readable or now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._look(now)
        if self.is_orphan and not self._tasks.pending:
            self.is_over = True

    def _look(self, now: float) -> None:
        """See to what time asks for."""
        for link, handle in self._handlers:
            deadline = link.next_deadline()
            if deadline is not None and now >= deadline:
                for event in link.tick():
                    handle(event)
        self._watch(now)

    def _poll(self, longest: float, *, is_yielding: bool) -> list[tuple[Any, int]]:
        alarm, data, control = self._alarm, self._data, self._control
        polled = (data.generation, data.is_sending, control.generation, control.is_sending)
        if polled != self._polled:
            self._register()
            self._polled = polled
        alarm.is_needed = True
        has_reason = self._tasks.queue or self._requests.outbox or self.is_over or self.is_orphan
        if (is_yielding and self.is_claimed) or (has_reason and self._has_work()):
            longest = 0.0
        # Most answers come sooner than it takes to work out what else is due when.
        shortly = min(longest, SHORTLY)
        self.is_polling = True
        try:
            readable: list[tuple[Any, int]] = self._poller.poll(int(shortly * 1000 + 0.999))
            if not readable and longest > shortly:
                readable = self._poller.poll(int(min(longest, self._seconds_left()) * 1000 + 0.999))
        finally:
            self.is_polling = False
            alarm.is_needed = False
        return readable

    def _has_work(self) -> bool:
        tasks = self._tasks
        return (
            self.is_over
            or (self.is_orphan and not tasks.pending)
            or bool(self._requests.outbox and self._control.is_attached)
            or bool(tasks.queue and self._data.is_clear and tasks.has_credit)
        )

    def _seconds_left(self) -> float:
        now = time.monotonic()
        due = self._ping_at if self._control.is_attached else now + 1.0
        for at in (self._data.next_deadline(), self._control.next_deadline(), self._patience.next_look(now)):
            if at is not None and at < due:
                due = at
        return max(0.0, due - now)

    def _register(self) -> None:
        data, control = self._data.pollables(), self._control.pollables()
        wanted = [*data, *control]
        if all(type(source) is int for source, _ in wanted) and hasattr(select, "poll"):
            self._poller = select.poll()
        else:
            import zmq  # noqa: PLC0415 - loaded by the link already, where it is needed

            self._poller = zmq.Poller()
        self._poller.register(self._alarm.descriptor, select.POLLIN if hasattr(select, "POLLIN") else 1)
        for source, flags in wanted:
            self._poller.register(source, flags)
        self._readers = {source: self._handlers[0] for source, _ in data}
        self._readers.update({source: self._handlers[1] for source, _ in control})

    def _zmq_context(self) -> Any:
        if self._context is None:
            import zmq  # noqa: PLC0415 - 30 ms that nobody on the controller's host needs

            self._context = zmq.Context()
        return self._context

    # --- what arrives ---

    def _on_data(self, event: Event) -> None:
        match event:
            case Received():
                self._tasks.receive(event, self._data)
            case Up():
                self._tasks.limits = event.welcome.limits
                self._tasks.is_new_controller |= self._has_been_up and event.is_new_controller
                self._has_been_up = True
                if event.is_new_controller or not event.attached.is_resumed:
                    reruns.ask_again(self._tasks, self._requests)
                self._attached(event)
            case Down():
                self._tasks.disconnected()
            case Refusal():
                self._end(event.error)

    def _on_control(self, event: Event) -> None:
        match event:
            case Received():
                for message in event.messages:
                    if isinstance(message, (m.Reply, m.ErrorReply)):
                        self._requests.receive(message)
                    elif isinstance(message, m.EnginesChanged):
                        self._engines.change(message)
            case Up():
                self._attached(event)
                self._requests.ask_anyway(m.ListEngines).add_done_callback(self._engines_listed)
            case Down():
                self._requests.disconnected(event.reason)
            case Refusal():
                self._end(event.error)

    def _end(self, error: ClusterdError) -> None:
        self.fatal = error
        self.is_over = True

    def _attached(self, event: Up) -> None:
        self.cluster = event.welcome.cluster
        if self._silent_since is not None and self._data.is_attached and self._data.last_heard < self._silent_since:
            # Half-open: it would never say so by itself.
            for lost in self._data.redial("the control connection was silent, and so was this one"):
                self._on_data(lost)
        if self._control.is_attached:
            self._silent_since = None
        self._check_ready()

    def _engines_listed(self, answer: Any) -> None:
        if answer.exception() is None:
            self._engines.replace(answer.result())
            self._check_ready()

    def _check_ready(self) -> None:
        if self._engines.is_known and self._data.is_attached:
            self.ready.set()

    # --- liveness ---

    def _watch(self, now: float) -> None:
        control, patience = self._control, self._patience
        is_attached = control.is_attached and self._data.is_attached
        if control.is_attached:
            if now >= self._ping_at:
                self._ping_at = now + self._tasks.limits.ping_interval
                control.send([m.Ping()])
            if not is_attached:
                # One token proves both connections; a link drops it when it is refused, but what the other one has is right.
                self._data.token = control.token
        elif self._data.is_attached:
            control.token = self._data.token
        patience.turn(now, is_attached=is_attached, last_heard=control.last_heard)
        if control.is_attached and patience.is_silent(self._tasks.limits.ping_interval):
            self._silent_since = control.last_heard
            for event in control.redial("the controller has said nothing for a while"):
                self._on_control(event)
        if len(outdated := self._data.outdated) >= OUTDATED and not self.ready.is_set():
            # The file was read anew each time: it is a copy that nobody keeps.
            self._end(KeyChanged(outdated[-1].message, hint=outdated[-1].hint))
        if patience.trouble:
            self._suffer()
        elif self._is_lost:
            # It came back after it was given up: what failed has failed, but there may be new work.
            self._is_lost = False
            self._tasks.refusal = self._requests.refusal = None

    def _suffer(self) -> None:
        patience = self._patience
        if patience.is_over and not self._is_lost:
            self._is_lost = True
            self._tasks.end_all(self._lost, is_final=False)
            self._requests.end_all(self._lost, is_final=False)
            self._engines.wake()
        elif self.ready.is_set() and patience.must_warn() and sys.stderr is not None:
            text = (
                f"clusterd: no word from the controller of {self.cluster!r} for {patience.trouble:.0f} s ({self.problem}); "
                f"{len(self._tasks.pending)} unfinished tasks wait up to {patience.limit:.0f} s for it\n"
            )
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(text)

    def _lost(self) -> ClusterdError:
        return ControllerLost(
            f"the controller of {self.cluster!r} has not answered for {self._patience.trouble:.0f} s: {self.problem}",
            hint="See `clusterctl status` and its log (`clusterctl logs controller`). This client goes on dialling.",
        )

    def _attach_message(self, token: bytes) -> m.AttachClient:
        try:
            user = getpass.getuser()
        except (OSError, KeyError, ImportError):  # a uid without a name, as in many containers
            user = ""
        return m.AttachClient(self._uuid, token, os.getpid(), socket.gethostname(), user, self._label)

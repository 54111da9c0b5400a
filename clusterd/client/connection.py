"""The I/O thread of a client: one daemon thread that owns both links; nobody else touches a socket.

Users' threads leave work in the books (tasks, requests) and ring; this thread sends, receives, pings, notices when the controller
is gone and dials again. Invariants: whatever ends this thread, every future is ended first, so nobody waits for ever;
in a forked child nothing of it is used.
"""

from __future__ import annotations

import atexit
import contextlib
import getpass
import logging
import os
import socket
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import zmq

from clusterd.client.book import TaskBook
from clusterd.client.engines import EngineBook
from clusterd.client.patience import Patience
from clusterd.client.requests import Requests
from clusterd.client.wake import Alarm
from clusterd.core.wire import messages as m
from clusterd.errors import ClusterdError, ControllerLost, TaskAborted
from clusterd.link import Down, Link, Received, Refusal, Up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.client.task import TaskFuture
    from clusterd.core.model.connection import NativeEndpoints
    from clusterd.link.dealer import Event

log = logging.getLogger("clusterd.client")
# close() waits for the thread, which says goodbye and ends in milliseconds.
CLOSE_TIMEOUT = 5.0
CANCEL_TIMEOUT = 5.0
_open: weakref.WeakSet[Connection] = weakref.WeakSet()


class Connection:
    """One client's place at the controller.

    Args:
        endpoints: called at each dial for the connection file as it is then.
        label: free text for `status`.
        controller_timeout: seconds without a controller after which all that is unfinished fails.
    """

    def __init__(self, endpoints: Callable[[], NativeEndpoints], *, label: str, controller_timeout: float) -> None:
        self.lock = threading.Lock()
        self.alarm = Alarm()
        self.tasks = TaskBook(self, self.alarm)
        self.requests = Requests(self.alarm)
        self.engines = EngineBook()
        self.uuid = os.urandom(16)
        self.cluster = ""
        # Set when the first attach is complete, or cannot be.
        self.ready = threading.Event()
        # Why there is no connection for good; None while there is one, or hope.
        self.fatal: ClusterdError | None = None
        # Nobody holds the client any more: end when the last task has.
        self.is_orphan = False
        self._label = label
        self._limit = controller_timeout
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.data = Link(self._context, endpoints, "client", "data", self._attach_message)
        self.control = Link(self._context, endpoints, "client", "control", self._attach_message)
        self._is_closing = False
        self._is_lost = False
        # Monotonic times.
        self._patience = Patience(controller_timeout, time.monotonic())
        self._ping_at = 0.0
        # When the control connection was given up for its silence, None when it was not: data is then not trusted either.
        self._silent_since: float | None = None
        self._poller = zmq.Poller()
        self._polled: tuple[Any, ...] = ()
        self._thread = threading.Thread(target=self._run, name="clusterd-client", daemon=True)
        _open.add(self)

    # --- users' threads ---

    def start(self) -> None:
        """Begin to dial."""
        self._thread.start()

    @property
    def is_io_thread(self) -> bool:
        """True in callbacks."""
        return threading.get_ident() == self._thread.ident

    @property
    def is_closed(self) -> bool:
        """True after `close`, or when the connection has ended for good."""
        return self._is_closing or self.fatal is not None or not self._thread.is_alive()

    def check_may_wait(self) -> None:
        """Raise where waiting could never end."""
        if self.is_io_thread:
            raise RuntimeError(
                "a callback of a client cannot wait for another result: it would wait for itself. Chain callbacks, or "
                "hand the work to a thread."
            )
        refusal = self.tasks.refusal
        if refusal is _forked:
            raise refusal()

    def end_early(self, futures: Sequence[TaskFuture], *, is_cancelling: bool, is_waiting: bool = True) -> int:
        """Cancel or abort what has not begun; the number that is known to have ended.

        Args:
            futures: which.
            is_cancelling: they end as cancelled, else with TaskAborted.
            is_waiting: wait for the controller's answer; never done in a callback or an event loop.
        """
        for future in futures:
            future._is_cancelling = is_cancelling  # noqa: SLF001 - one machine
        queued = self.tasks.take_queued(futures)
        for future in queued:
            future._fail(None if is_cancelling else TaskAborted("the task was aborted before it was sent"))  # noqa: SLF001
        known = set(map(id, queued))
        names = [future._id for future in futures if id(future) not in known and not future.done()]  # noqa: SLF001
        if not names:
            return len(queued)
        answer = self.requests.ask(m.Abort, names, None)
        if not is_waiting or self.is_io_thread or is_in_event_loop():
            return len(queued)
        try:
            return len(queued) + int(answer.result(CANCEL_TIMEOUT).get("aborted", 0))
        except (TimeoutError, ControllerLost):
            return len(queued)

    def close(self) -> None:
        """Say goodbye and end; what is unfinished fails. Idempotent, from any thread."""
        if self.tasks.refusal is _forked:
            return
        self._is_closing = True
        self.alarm.ring()
        if self._thread.ident is None:
            self._end()
        elif not self.is_io_thread:
            self._thread.join(CLOSE_TIMEOUT)

    def release(self) -> None:
        """The client was dropped: end as soon as nothing is unfinished."""
        self.is_orphan = True
        self.alarm.ring()

    def forked(self) -> None:
        """In a forked child, before anything else: sockets, thread and locks belong to the parent."""
        self.lock = threading.Lock()
        self.tasks.refusal = self.requests.refusal = _forked
        self.fatal = _forked()

    # --- the thread ---

    def _run(self) -> None:
        self.tasks.room.exempt = threading.get_ident()
        self._patience = Patience(self._limit, time.monotonic())
        try:
            self.data.open()
            self.control.open()
            while not self._is_closing and self.fatal is None:
                self._turn()
                if self.is_orphan and not self.tasks.pending:
                    break
        except Exception as error:
            log.exception("the I/O thread of a client failed")
            self.fatal = ClusterdError(f"the client failed inside: {type(error).__name__}: {error}")
        finally:
            self._end()

    def _turn(self) -> None:
        if self.data.is_clear:
            self.tasks.pump(self.data)
        self.requests.pump(self.control)
        now = time.monotonic()
        timeout = self._timeout(now)
        alarm = self.alarm
        alarm.is_needed = True
        if self._has_work():
            timeout = 0.0
        self._register()
        try:
            readable = {source for source, _ in self._poller.poll(int(timeout * 1000 + 0.999))}
        finally:
            alarm.is_needed = False
        if alarm.descriptor in readable:
            alarm.clear()
        for link, handle in ((self.data, self._on_data), (self.control, self._on_control)):
            if link.socket in readable or link.monitor in readable:
                for event in link.receive():
                    handle(event)
        now = time.monotonic()
        for link, handle in ((self.data, self._on_data), (self.control, self._on_control)):
            deadline = link.next_deadline()
            if deadline is not None and now >= deadline:
                for event in link.tick():
                    handle(event)
        self._watch(now)

    def _has_work(self) -> bool:
        tasks = self.tasks
        return (
            self._is_closing
            or (self.is_orphan and not tasks.pending)
            or bool(self.requests.outbox and self.control.is_attached)
            or bool(tasks.queue and self.data.is_clear and tasks.has_credit)
        )

    def _timeout(self, now: float) -> float:
        due = [self._ping_at, now + 1.0] if self.control.is_attached else [now + 1.0]
        due += [at for at in (self.data.next_deadline(), self.control.next_deadline()) if at is not None]
        look = self._patience.next_look(now)
        if look is not None:
            due.append(look)
        return max(0.0, min(due) - now)

    def _register(self) -> None:
        wanted = (self.data.socket, self.data.monitor, self.control.socket, self.control.monitor)
        if wanted != self._polled:
            self._poller = zmq.Poller()
            self._poller.register(self.alarm.descriptor, zmq.POLLIN)
            for source in wanted:
                if source is not None:
                    self._poller.register(source, zmq.POLLIN)
            self._polled = wanted

    # --- what arrives ---

    def _on_data(self, event: Event) -> None:
        match event:
            case Received():
                self.tasks.receive(event, self.data)
            case Up():
                self.tasks.limits = event.welcome.limits
                self._attached(event)
            case Down():
                self.tasks.disconnected()
            case Refusal():
                self.fatal = event.error

    def _on_control(self, event: Event) -> None:
        match event:
            case Received():
                for message in event.messages:
                    self._take(message)
            case Up():
                self._attached(event)
                self.requests.ask_anyway(m.ListEngines).add_done_callback(self._engines_listed)
            case Down():
                self.requests.disconnected(event.reason)
            case Refusal():
                self.fatal = event.error

    def _attached(self, event: Up) -> None:
        self.cluster = event.welcome.cluster
        if self._silent_since is not None and self.data.is_attached and self.data.last_heard < self._silent_since:
            # Half-open: it would never say so by itself.
            for lost in self.data.redial("the control connection was silent, and so was this one"):
                self._on_data(lost)
        if self.control.is_attached:
            self._silent_since = None
        self._check_ready()

    def _check_ready(self) -> None:
        if self.engines.is_known and self.data.is_attached:
            self.ready.set()

    def _engines_listed(self, answer: Any) -> None:
        if answer.exception() is None:
            self.engines.replace(answer.result())
            self._check_ready()

    def _take(self, message: Any) -> None:
        if isinstance(message, (m.Reply, m.ErrorReply)):
            self.requests.receive(message)
        elif isinstance(message, m.EnginesChanged):
            self.engines.change(message)

    # --- liveness ---

    def _watch(self, now: float) -> None:
        control, patience = self.control, self._patience
        is_attached = control.is_attached and self.data.is_attached
        if control.is_attached and now >= self._ping_at:
            limits = self.tasks.limits
            self._ping_at = now + limits.ping_interval
            control.send([m.Ping()])
        if control.is_attached != self.data.is_attached:
            # One token proves both connections; a link drops it when it is refused, but what the other one has is right.
            if control.is_attached:
                self.data.token = control.token
            else:
                control.token = self.data.token
        patience.turn(now, is_attached=is_attached, last_heard=control.last_heard)
        if control.is_attached and patience.is_silent(self.tasks.limits.ping_interval):
            self._silent_since = control.last_heard
            for event in control.redial("the controller has said nothing for a while"):
                self._on_control(event)
        if patience.trouble:
            self._suffer()
        elif self._is_lost:
            # It came back after it was given up: what failed has failed, but there may be new work.
            self._is_lost = False
            self.tasks.refusal = self.requests.refusal = None

    def _suffer(self) -> None:
        patience = self._patience
        if patience.is_over and not self._is_lost:
            self._is_lost = True
            self.tasks.end_all(self._lost, is_final=False)
            self.requests.end_all(self._lost, is_final=False)
            self.engines.wake()
        elif self.ready.is_set() and patience.must_warn() and sys.stderr is not None:
            count = len(self.tasks.pending)
            text = (
                f"clusterd: no word from the controller of {self.cluster!r} for {patience.trouble:.0f} s ({self._problem()}); "
                f"{count} unfinished tasks wait up to {patience.limit:.0f} s for it\n"
            )
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(text)

    def _problem(self) -> str:
        return self.data.problem or self.control.problem or "it does not answer"

    def _lost(self) -> ClusterdError:
        return ControllerLost(
            f"the controller of {self.cluster!r} has not answered for {self._patience.trouble:.0f} s: {self._problem()}",
            hint="See `clusterctl status` and its log (`clusterctl logs controller`). This client goes on dialling.",
        )

    # --- the end ---

    def _end(self) -> None:
        fatal = self.fatal
        final = _closed if fatal is None else lambda: fatal
        self.tasks.end_all(final, is_final=True)
        self.requests.end_all(final, is_final=True)
        self.ready.set()
        self.engines.wake()
        for link in (self.control, self.data):
            link.close("the client was closed")
        # Linger is bounded by the links: what is not sent within it is dropped.
        self._context.term()
        self.alarm.close()
        _open.discard(self)

    def _attach_message(self, token: bytes) -> m.AttachClient:
        try:
            user = getpass.getuser()
        except (OSError, KeyError, ImportError):  # a uid without a name, as in many containers
            user = ""
        return m.AttachClient(self.uuid, token, os.getpid(), socket.gethostname(), user, self._label)


def is_in_event_loop() -> bool:
    """True when this thread runs an asyncio loop right now."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001 - documented as for such use


def _closed() -> ClusterdError:
    return TaskAborted("the client was closed", hint="Results have to be fetched before close(), or within `with`.")


def _forked() -> ClusterdError:
    return ClusterdError(
        "this client belongs to the parent process", hint="Make a new clusterd.Client in the child, or use spawn."
    )


def _after_fork() -> None:
    for connection in list(_open):
        connection.forked()


def _at_exit() -> None:
    for connection in list(_open):
        connection.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)

"""The engine's life after its start: receive, run, send, in the main thread; nothing else runs beside user code.

A result is sent before the next task begins, because any task may be long, also one whose function was short a thousand
times: what is finished would wait behind it, and nobody could fetch it. What was sent stays in the link until the controller
has acknowledged it; what a lost connection leaves unacknowledged is sent again. Invariants: a dispatch is in exactly one of
`_queue`, `_parked`, running, or answered; nothing that is finished waits behind a task while the link takes it.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from clusterd.core.model.page import epoch_of
from clusterd.core.wire import messages as m
from clusterd.core.wire import payload
from clusterd.core.wire.frames import find_body, place_body
from clusterd.core.wire.session import check_payload
from clusterd.engine.executor import Stopped
from clusterd.errors import AuthenticationError, TaskNotSendable
from clusterd.link import Down, Received, Refusal, Up, Waiter
from clusterd.system import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from clusterd.core.model.page import PageWriter
    from clusterd.engine.executor import Executor, Outcome
    from clusterd.engine.functions import Functions, HeldFunction
    from clusterd.engine.stock.runner import StockRunner
    from clusterd.link import Link

# Results that had to wait travel together: at most about this much in one header, and this many frames (of 1,024 that a
# controller takes).
_BATCH_BYTES = 256 * 1024
_BATCH_FRAMES = 512
# How long an engine that is told to end waits for the answer to its Attach, in order to say goodbye.
_ATTACH_SECONDS = 1.0
# Results that wait for a controller: beyond this no further task is begun.
OUTBOX_BYTES = 64 * 1024 * 1024


class Loop:
    """One engine.

    Args:
        link: not yet opened; its `attach` is `self.attach`.
        executor, functions: what runs tasks.
        page: where the agent looks.
        identity: what AttachEngine says, without what changes.
        orphan_timeout: seconds without a controller after which an idle engine ends; None: never.
        join_timeout: seconds within which it must have registered for the first time, or it ends in failure; None: it waits.
        on_registered: called with its wire id when it has one, and when that changes.
    """

    def __init__(
        self,
        link: Link,
        executor: Executor,
        functions: Functions,
        page: PageWriter,
        identity: Callable[..., m.AttachEngine],
        orphan_timeout: float | None = None,
        join_timeout: float | None = None,
        on_registered: Callable[[int], None] | None = None,
    ) -> None:
        self._link = link
        self._executor = executor
        self._functions = functions
        self._page = page
        self._identity = identity
        self._orphan_timeout = orphan_timeout
        # None once it has registered.
        self._join_timeout = join_timeout
        self._on_registered = on_registered
        # Dispatches not begun, in order, with body and frames.
        self._queue: deque[tuple[m.Dispatch, Any, Sequence[Any]]] = deque()
        # Those that wait for a function that was asked for, by its digest.
        self._parked: dict[bytes, list[tuple[m.Dispatch, Any, Sequence[Any]]]] = {}
        # Answers (messages, frames, bytes) that the link cannot take now: no connection, or no window.
        self._outbox: deque[tuple[Sequence[Any], Sequence[Any], int]] = deque()
        # Sum of their bytes.
        self._outbox_bytes = 0
        # Incarnation of the controller that the queue came from.
        self._controller = b""
        # What clients call us; -1 before the first controller has said.
        self._wire_id = -1
        # Ours, which the identity knows.
        self._uuid = b""
        self._completed = 0
        self._alone_since = time.monotonic()
        # What runs tasks of stock clients, from the first one on.
        self._stock: StockRunner | None = None
        # Why the loop ends, and the exit status.
        self._is_stopping = False
        self.problem = ""
        self.status = 0
        # A poll is restarted after a signal; a byte in this pipe makes it return.
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._waiter = Waiter()

    def on_terminate(self, number: int, frame: FrameType | None) -> None:
        """Handler of SIGTERM: end after what runs was ended."""
        self._is_stopping = True
        os.write(self._wake_write, b"\0")
        self._executor.on_stop(number, frame)

    def run(self) -> int:
        """Work until told to stop; the exit status."""
        fault.point("engine.start.before_attach")
        self._link.open()
        try:
            while not self._is_stopping:
                if self._queue and self._may_begin():
                    self._run_next()
                else:
                    self._flush()
                    self._wait()
        except Stopped:
            pass  # the task that ran has no result: the agent's report of our end tells the controller
        self._page.stop(time.time())
        end = time.monotonic() + _ATTACH_SECONDS
        while self._link.state == "attaching" and time.monotonic() < end:
            # The controller may have registered us already: a connection that just breaks would leave a suspect behind.
            self._handle(self._link.wait(end - time.monotonic()))
        for dispatch, _, _ in [*self._queue, *(held for parked in self._parked.values() for held in parked)]:
            self._answer(m.NotRun(dispatch.task, dispatch.attempt, "dropped"), (), 0)
        self._link.close(goodbye=self.problem or "stopped")
        os.close(self._wake_read)
        os.close(self._wake_write)
        return self.status

    def attach(self, token: bytes) -> m.AttachEngine:
        """What the link says on each new connection."""
        welcome = self._link.welcome
        if welcome is not None and welcome.controller != self._controller:
            # Another controller places these tasks anew; what has begun is reported by the agent, what is finished by us.
            self._queue.clear()
            self._parked.clear()
            self._forget_not_run()
            self._controller = welcome.controller
        held = [(dispatch.task, dispatch.attempt) for dispatch, _, _ in self._queue]
        held += [(dispatch.task, dispatch.attempt) for parked in self._parked.values() for dispatch, _, _ in parked]
        unsent = [message for messages, _, _ in self._outbox for message in messages]
        held += [(message.task, message.attempt) for message in unsent if isinstance(message, m.Result)]
        about = {"token": token, "controller": self._controller, "held": held, "completed": self._completed}
        if self._wire_id >= 0:
            # Another controller takes us in under the id that clients know us by.
            about["wanted_id"] = self._wire_id
        attach = self._identity(**about)
        self._uuid = attach.uuid
        return attach

    def _forget_not_run(self) -> None:
        # The same attempt may be dispatched to us again by the new controller: what was not run of the old one's would pass for that.
        outbox = [(*_results_of(messages, frames), size) for messages, frames, size in self._outbox]
        self._outbox = deque(batch for batch in outbox if batch[0])
        self._outbox_bytes = sum(size for _, _, size in self._outbox)

    # --- running ---

    def _may_begin(self) -> bool:
        if self._link.is_clear and not self._outbox:
            return True
        self._flush()
        if self._link.is_attached or self._outbox_bytes >= OUTBOX_BYTES:
            return False
        # Disconnected: go on with what is here, and keep dialling.
        self._handle(self._link.receive() + self._link.tick())
        return bool(self._queue)

    def _run_next(self) -> None:
        dispatch, body, frames = self._queue.popleft()
        function: HeldFunction | None = None
        if dispatch.function:
            function = self._functions.get(dispatch.function)
            if function is None:
                self._park(dispatch, body, frames)
                return
        has_results = bool(self._outbox) or self._link.has_unacked
        if not self._page.begin(dispatch.order, dispatch.task, dispatch.attempt, time.time(), has_results=has_results):
            self._answer(m.NotRun(dispatch.task, dispatch.attempt, "recalled"), (), 0)
            return
        fault.point("engine.task.before_run")
        if dispatch.kind == m.STOCK:
            outcome = self._run_stock(dispatch, body, frames)
        else:
            outcome = self._executor.run(dispatch.kind, function, body, frames)
        del body, frames  # arguments go before the result waits
        self._completed += 1
        self._page.end(outcome.finished, is_failed=outcome.status == m.STATUS_ERROR)
        fault.point("engine.task.after_run")
        self._answer_with(dispatch, outcome)

    def _run_stock(self, dispatch: m.Dispatch, body: Any, frames: Sequence[Any]) -> Outcome:
        if self._stock is None:
            from clusterd.engine.stock.runner import StockRunner  # noqa: PLC0415 - of no use without stock clients

            self._stock = StockRunner(self._executor, self._link, self._uuid)
        outcome, unsent = self._stock.run(dispatch, self._wire_id, body, frames)
        # The link was used meanwhile: what it said comes before what is said now.
        self._handle(self._stock.take_events())
        for published, own in unsent:
            # Not the live way any more, but still before the result.
            self._answer(published, own, len(published.content) + 64)
        return outcome

    def _answer_with(self, dispatch: m.Dispatch, outcome: Outcome) -> None:
        limits = self._link.welcome.limits if self._link.welcome is not None else m.Limits()
        size = len(outcome.body)
        if outcome.frames:
            size = max(size, *(frame.nbytes for frame in outcome.frames))
        if size > limits.max_message:
            refusal = TaskNotSendable(
                f"the result has a part of {size} bytes, the controller takes {limits.max_message}",
                hint="Return it in parts, write it to a shared file system, or raise `max_message` in the profile.",
            )
            if dispatch.kind == m.STOCK and self._stock is not None:
                outcome = self._stock.refuse(refusal, outcome)
            else:
                outcome.status, outcome.body, outcome.frames = m.STATUS_ERROR, self._executor.failure(refusal), ()
        body, frames = place_body(outcome.body, outcome.frames)
        self._answer(
            m.Result(
                dispatch.task,
                dispatch.attempt,
                outcome.status,
                outcome.started,
                outcome.finished,
                outcome.stdout,
                outcome.stderr,
                body,
                len(frames),
                outcome.display,
            ),
            frames,
            # Of rich output nobody has counted the bytes: it travels alone.
            len(body) + len(outcome.stdout) + len(outcome.stderr) + (_BATCH_BYTES if outcome.display else 64),
        )

    def _answer(self, message: m.Result | m.NotRun | m.Published, frames: Sequence[Any], size: int) -> None:
        """Send it, or keep it behind what waits."""
        if frames:
            size += sum(map(len, frames))
        self._outbox.append(([message], frames, size))
        self._outbox_bytes += size
        self._flush()

    def _flush(self) -> None:
        """Send what waits, as far as the link takes it."""
        outbox = self._outbox
        while outbox and self._link.is_clear:
            messages, frames, size = outbox.popleft()
            self._outbox_bytes -= size
            if outbox:
                messages, frames = self._join(messages, frames, size)
            fault.point("engine.result.before_send")
            self._link.send(messages, frames)
            fault.point("engine.result.after_send")

    def _join(self, messages: Sequence[Any], frames: Sequence[Any], size: int) -> tuple[list[Any], list[Any]]:
        """What goes in one message with the first that waits: as much as follows and fits."""
        outbox, batch, batch_frames = self._outbox, [*messages], [*frames]
        while outbox and size + outbox[0][2] <= _BATCH_BYTES and len(batch_frames) + len(outbox[0][1]) <= _BATCH_FRAMES:
            more, more_frames, more_size = outbox.popleft()
            self._outbox_bytes -= more_size
            size += more_size
            batch += more
            batch_frames += more_frames
        return batch, batch_frames

    def _park(self, dispatch: m.Dispatch, body: Any, frames: Sequence[Any]) -> None:
        """Keep it until its function comes; ask once."""
        parked = self._parked.setdefault(dispatch.function, [])
        parked.append((dispatch, body, frames))
        if len(parked) == 1 and self._link.is_attached:
            self._link.send([m.NeedFunction(dispatch.function)])

    # --- receiving ---

    def _wait(self) -> None:
        """Block until something happens."""
        link = self._link
        deadline = link.next_deadline()
        patience = self._orphan_timeout if self._join_timeout is None else self._join_timeout
        if patience is not None and not link.is_attached:
            end = self._alone_since + patience
            if time.monotonic() >= end:
                self._is_stopping = True
                self.status = 0 if self._join_timeout is None else 1
                self.problem = f"no controller for {patience:g} s: {link.problem}"
                if self.status:
                    self.problem += (
                        "\nIs its controller running, and is this file the newest? A wrong key gets no answer."
                    )
                return
            deadline = end if deadline is None else min(deadline, end)
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        # Nobody reads the pipe: a byte in it means the end.
        self._waiter.wait([*link.pollables(), (self._wake_read, select.POLLIN)], timeout)
        self._handle(link.receive())
        if deadline is not None and time.monotonic() >= deadline:
            self._handle(link.tick())

    def _handle(self, events: Sequence[Any]) -> None:
        for event in events:
            match event:
                case Received():
                    self._take(event)
                case Up():
                    self._attached(event)
                case Down():
                    self._alone_since = time.monotonic()
                    self._keep_unacknowledged(event)
                case Refusal():
                    self._is_stopping = True
                    self.problem = str(event.error)
                    self.status = 1

    def _keep_unacknowledged(self, event: Down) -> None:
        for sent, payload_frames in reversed(event.unacked):
            # What was asked for, refused or shown on the old connection has no meaning on a new one; results have.
            results, frames = _results_of(sent, payload_frames)
            if results:
                size = sum(len(message.body) + 64 for message in results) + sum(len(frame) for frame in frames)
                self._outbox.appendleft((results, frames, size))
                self._outbox_bytes += size

    def _attached(self, event: Up) -> None:
        self._join_timeout = None
        if self._on_registered is not None and self._wire_id != event.attached.id:
            self._on_registered(event.attached.id)
        self._wire_id = event.attached.id
        self._page.attach(epoch_of(event.welcome.controller), event.attached.id, time.time())
        if self._parked:
            self._link.send([m.NeedFunction(digest) for digest in self._parked])

    def _take(self, received: Received) -> None:
        frames: Sequence[Any] = ()
        if received.payload:
            try:
                check_payload(received.digests, received.payload)
            except AuthenticationError as error:
                self._handle(self._link.redial(error.message))
                return
            frames = payload.writable(received.payload)
        position = 0
        for message in received.messages:
            if isinstance(message, m.Goodbye):
                continue  # the connection's end follows, and we dial again
            body: Any = message.body
            own: Sequence[Any] = ()
            if message.frames:
                own = frames[position : position + message.frames]
                position += message.frames
                body, own = find_body(body, own)
            if isinstance(message, m.Dispatch):
                self._queue.append((message, body, own))
            elif isinstance(message, m.Function):
                self._functions.add(message.digest, message.name, body, own)
                for parked in reversed(self._parked.pop(message.digest, [])):
                    self._queue.appendleft(parked)


def _results_of(messages: Sequence[Any], frames: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The results among `messages`, and their frames."""
    results: list[Any] = []
    own: list[Any] = []
    position = 0
    for message in messages:
        count = getattr(message, "frames", 0)
        if isinstance(message, m.Result):
            results.append(message)
            own += frames[position : position + count]
        position += count
    return results, own

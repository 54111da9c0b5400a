"""All tasks of a client that have no result: queued here, or at the controller within the credit that it gives.

Users' threads append, the I/O thread sends and receives. Invariants: `pending` holds all and only tasks without an end, and who
takes one out of it ends it, so each ends once whatever comes twice; `in_flight` holds all and only tasks that the
present connection carried and that have no answer; a task is in `queue` or sent, in the order of submission.
"""

# ruff: noqa: SLF001 - the book and its futures are one machine in two files
from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from clusterd.client import casts, dependencies
from clusterd.client.functions import FunctionBook
from clusterd.client.receipts import Receipts
from clusterd.client.room import Room
from clusterd.client.task import TaskFuture, forgotten
from clusterd.core.wire.frames import BATCH_HEADER_BYTES
from clusterd.core.wire.messages import Deliver, Failed, Limits, NeedFunction, Submit
from clusterd.core.wire.session import check_payload
from clusterd.errors import AuthenticationError, ClusterdError, LimitExceeded
from clusterd.system import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from clusterd.client.arguments import Packed
    from clusterd.client.functions import PackedFunction
    from clusterd.client.future import Parent
    from clusterd.client.task import TaskOwner
    from clusterd.client.wake import Alarm
    from clusterd.core.wire.messages import TaskOptions
    from clusterd.link import Link, Received

Target = int | list[int] | None
# Ids, times and array heads of a Submit beside its body, on the wire: measured 62 bytes, with options more.
_SUBMIT_BYTES: Final = 80
# Payload frames of one message together: a small message behind them should not wait for all of them.
_BATCH_PAYLOAD_BYTES: Final = 8 * 1024 * 1024


class TaskBook:
    """The tasks of one connection.

    Args:
        owner: what futures hold on to.
        alarm: wakes the I/O thread.
    """

    def __init__(self, owner: TaskOwner, alarm: Alarm) -> None:
        self._owner = owner
        self._alarm = alarm
        self.functions = FunctionBook()
        self.limits = Limits()
        self.pending: dict[bytes, TaskFuture] = {}
        # Not sent, oldest first; may hold cancelled ones. Users append on the right, only the I/O thread takes from the left.
        self.queue: deque[TaskFuture] = deque()
        # Sends what is queued from the calling thread where it can; set by the owner (`helm.Helm.post`).
        self.post: Callable[[], bool] = bool
        self.refusal: Callable[[], ClusterdError] | None = None  # closed, forked, controller given up: nothing is taken
        # Not the one that this client began with: it knows nothing that ended before.
        self.is_new_controller = False
        # By task id: bytes that count against the credit. Only the I/O thread touches it.
        self.in_flight: dict[bytes, int] = {}
        self.in_flight_bytes = 0
        self.receipts = Receipts()
        self.room = Room()
        # Functions that the present connection has carried.
        self._told: set[bytes] = set()
        self._lock = threading.Lock()
        self._prefix = os.urandom(8)
        self._number = 0
        self._is_throttled = False  # "overloaded", and nothing has ended since: our idea of the credit was wrong

    # --- users' threads ---

    def submit(
        self,
        kind: int,
        function: PackedFunction | None,
        target: Target,
        packed: Packed,
        options: TaskOptions | None = None,
        *,
        parent: Parent | None = None,
        convert: Callable[[TaskFuture, Any], Any] | None = None,
        span: range | None = None,
        is_attended: bool = False,
    ) -> TaskFuture:
        """Take one task; blocks while the queue is full. `is_attended`: the caller waits for it now, nobody need be woken.

        Raises:
            LimitExceeded: a buffer is larger than the controller takes.
            ClusterdError: the client is closed, or the controller was given up.
        """
        body, frames = packed
        future = TaskFuture(self._owner)
        cost = len(body)
        if frames:
            cost += self._measure(frames)
            future._frames = frames
        digest = b""
        if function is not None:
            digest = function.digest
            future._function = function
        future._cost = cost
        if parent is not None:
            future._parent = parent
        if convert is not None:
            future._convert = convert
        if span is not None:
            future._span = span
        future._waits_for = () if options is None else dependencies.waited_for(options)
        room = self.room
        if room.is_full:
            room.wait(lambda: self.refusal is not None)
        with self._lock:
            # Looked at under the lock: after `end_all` nothing may enter any more.
            if self.refusal is not None:
                raise self.refusal()
            self._number = number = self._number + 1
            task = future._id = self._prefix + number.to_bytes(8, "big")
            future._submit = Submit(task, kind, digest, target, body, len(frames), options)
            self.queue.append(future)
            room.enter(cost)
            # Last: a KeyboardInterrupt may come between any two lines, and what is queued but not pending is not sent.
            self.pending[task] = future
        alarm = self._alarm
        if not is_attended and (alarm.is_needed or alarm.is_awaited):
            # A lone call is sent from here; what comes in numbers is batched by the I/O thread. A map wants the answers at once.
            is_lone = not alarm.is_needed and not self.in_flight and parent is None
            if not (is_lone and self.post()):
                alarm.ring()
        return future

    def broadcast(
        self,
        kind: int,
        function: PackedFunction | None,
        targets: Sequence[int],
        packed: Packed,
        options: TaskOptions | None,
        *,
        parent: Parent,
        convert: Callable[[TaskFuture, Any], Any] | None = None,
    ) -> list[TaskFuture]:
        """Take one and the same task for each of several engines; otherwise as `submit`."""
        body, frames = packed
        cost = len(body) + (self._measure(frames) if frames else 0)
        digest = b"" if function is None else function.digest
        futures = casts.members(self._owner, len(targets), cost, frames, function, parent, convert)
        room = self.room
        if room.is_full:
            room.wait(lambda: self.refusal is not None)
        with self._lock:
            if self.refusal is not None:
                raise self.refusal()
            for target, future in zip(targets, futures, strict=True):
                task = future._id = self.next_id()
                future._submit = Submit(task, kind, digest, target, body, len(frames), options)
                self.queue.append(future)
                room.enter(future._cost)
                self.pending[task] = future
        self._alarm.ring()
        return futures

    def next_id(self) -> bytes:
        """A new task's id; callers hold the lock."""
        self._number = number = self._number + 1
        return self._prefix + number.to_bytes(8, "big")

    def expect(self, futures: Iterable[TaskFuture]) -> None:
        """Give ids to futures whose tasks others submit, and take their ends in."""
        with self._lock:
            if self.refusal is not None:
                raise self.refusal()
            for future in futures:
                future._id = self.next_id()
                self.pending[future._id] = future

    def withdraw(self, futures: Iterable[TaskFuture], error: BaseException) -> None:
        """End what has not ended otherwise."""
        for future in futures:
            if self.pending.pop(future._id, None) is not None:
                future._fail(error)

    def renew_lock(self) -> None:
        """In a forked child: a lock that no vanished thread holds."""
        self._lock = threading.Lock()

    def _measure(self, frames: Sequence[Any]) -> int:
        total = 0
        for frame in frames:
            size = frame.nbytes if type(frame) is memoryview else len(frame)
            if size > self.limits.max_message:
                raise LimitExceeded(
                    f"one buffer has {size} bytes, the controller takes {self.limits.max_message}",
                    hint="Send it in parts, put it into a shared file system, or raise `max_message` in the profile.",
                )
            total += size
        return total

    def take_queued(self, futures: Iterable[TaskFuture]) -> list[TaskFuture]:
        """Take those of `futures` out of the book that are still queued here; the caller ends them."""
        with self._lock:
            return [
                future for future in futures if not future._is_sent and self.pending.pop(future._id, None) is not None
            ]

    # --- the I/O thread ---

    @property
    def has_credit(self) -> bool:
        """True when the first of the queue may be sent, as far as the credit goes."""
        return not self.in_flight or self._fits(self.queue[0]._cost if self.queue else 0)

    def _fits(self, cost: int) -> bool:
        limits = self.limits
        return (
            not self._is_throttled
            and len(self.in_flight) < limits.max_tasks
            and self.in_flight_bytes + cost <= limits.max_task_bytes
        )

    def pump(self, link: Link) -> None:
        """Send what is queued, as far as connection, window and credit allow."""
        while self.queue and link.is_clear:
            # Under the lock, so that a task is either cancelled here or sent, never both.
            with self._lock:
                batch, messages, payload = self._next_batch()
            if not messages:
                return
            fault.point("client.submit.before_send")
            try:
                link.send(messages, payload)
                self.receipts.note(link.session, batch)
            except LimitExceeded as error:
                # A new controller may take less than the one that was there when these were submitted.
                for future in batch:
                    self._release(future._id)
                    if self.pending.pop(future._id, None) is not None:
                        future._fail(error)
            fault.point("client.submit.after_send")

    def _next_batch(self) -> tuple[list[TaskFuture], list[Any], list[Any]]:  # noqa: C901, PLR0915 - calls would cost more
        queue, in_flight, limits, told = self.queue, self.in_flight, self.limits, self._told
        batch: list[TaskFuture] = []
        messages: list[Any] = []
        payload: list[Any] = []
        size = payload_size = left = left_bytes = 0
        while queue:
            future = queue[0]
            submit, cost = future._submit, future._cost
            if submit is None or submit.task not in self.pending:
                queue.popleft()
                left += 1
                left_bytes += cost
                continue
            if in_flight and not self._fits(cost):
                break
            function = future._function
            is_new = function is not None and function.digest not in told
            length = len(submit.body) + _SUBMIT_BYTES + (function.size if is_new and function is not None else 0)
            frames = len(future._frames) + (len(function.frames) if is_new and function is not None else 0)
            if messages and (
                size + length > BATCH_HEADER_BYTES
                or (frames and (payload_size > _BATCH_PAYLOAD_BYTES or len(payload) + frames > limits.max_frames))
            ):
                break
            if future._waits_for:
                dependencies.leave_out_unknown(submit, future._waits_for, is_new_controller=self.is_new_controller)
            if is_new and function is not None:
                told.add(function.digest)
                messages.append(function.message)
                payload.extend(function.frames)
            if future._frames:
                payload.extend(future._frames)
                payload_size += cost
            if future._cast is None:
                queue.popleft()
                left += 1
                left_bytes += cost
                messages.append(submit)
                batch.append(future)
                future._is_sent = True
                in_flight[submit.task] = cost
                self.in_flight_bytes += cost
            else:
                taken = casts.head(self)
                messages.append(casts.message(submit, taken))
                batch += taken
                length += casts.TARGET_BYTES * len(taken)
                payload_size += cost * (len(taken) - 1)
                for one in taken:
                    queue.popleft()
                    one._is_sent = True
                    in_flight[one._id] = cost
                left += len(taken)
                left_bytes += cost * len(taken)
                self.in_flight_bytes += cost * len(taken)
            size += length
        if left:
            self.room.leave(left, left_bytes)
        return batch, messages, payload

    def receive(self, received: Received, link: Link) -> None:
        """Deal with what came on the data link."""
        fault.point("client.result.received")
        payload, at, digests = received.payload, 0, received.digests
        self._is_throttled = False
        self.receipts.prune()
        for message in received.messages:
            kind = type(message)
            if kind is Deliver:
                frames: Sequence[Any] = ()
                if message.frames:
                    frames = payload[at : at + message.frames]
                self.in_flight_bytes -= self.in_flight.pop(message.task, 0)
                future = self.pending.pop(message.task, None)
                if future is not None:
                    if digests and message.frames:
                        self._deliver_checked(future, message, frames, digests[at : at + message.frames])
                    else:
                        future._answered(message, frames)
                at += message.frames
            elif kind is Failed:
                self._failed(message)
            elif kind is NeedFunction:
                function = self.functions.by_digest(message.digest)
                if function is not None:
                    link.send([function.message], function.frames)

    def _deliver_checked(
        self, future: TaskFuture, message: Deliver, frames: Sequence[Any], digests: list[bytes]
    ) -> None:
        try:
            check_payload(digests, frames)
        except AuthenticationError as error:
            future._fail(error)
        else:
            future._answered(message, frames)

    def _failed(self, message: Failed) -> None:
        self._release(message.task)
        future = self.pending.get(message.task)
        if future is None:
            return
        if message.code == "malformed" and future._submit is not None and future._submit.is_offered_again:
            # The id is that of a client that the controller has forgotten: of this one, before it was away for so long.
            message = forgotten(message)
        if message.code == "overloaded" and future._submit is not None:
            # It was over the credit: it waits here until something has ended.
            self._is_throttled = bool(self.in_flight)
            with self._lock:
                self._put_back(future)
            return
        if self.pending.pop(message.task, None) is not None:
            future._answered(message, ())

    def _put_back(self, future: TaskFuture) -> None:
        future._is_sent = False
        self.queue.appendleft(future)
        self.room.enter(future._cost)

    def _release(self, task: bytes) -> None:
        self.in_flight_bytes -= self.in_flight.pop(task, 0)

    def disconnected(self) -> None:
        """The connection is gone: all that it carried and that has no answer is sent again on the next one."""
        self._told.clear()
        self.receipts.clear()
        with self._lock:
            for future in reversed([future for future in self.pending.values() if future._is_sent]):
                if future._submit is not None:
                    # Known to the controller or not: it acts once, and a new one must know that this may be running already.
                    future._submit.is_offered_again = True
                    dependencies.tell_anew(future._submit, future._waits_for)
                    self._put_back(future)
        self.in_flight.clear()
        self.in_flight_bytes = 0
        self._is_throttled = False

    def end_all(self, error: Callable[[], ClusterdError], *, is_final: bool) -> int:
        """End every task with an error, and take no new ones (until `refusal` is reset, unless final)."""
        with self._lock:
            if is_final or self.refusal is None:
                self.refusal = error
            waiting = list(self.pending.items())
        count = 0
        for task, future in waiting:
            if self.pending.pop(task, None) is not None:
                future._fail(error())
                count += 1
        self.in_flight.clear()
        self.in_flight_bytes = 0
        self.room.wake()
        return count

"""Carries work between clients, the scheduler and engines: messages in, events to `core.scheduler`; its actions go to `dispatch`.

It keeps the payload of every task until its end and never looks into it. Invariants: a task has an entry in `payloads` from its
acceptance until Deliver, Fail or Forget; a function is referred to by exactly the tasks that have an entry; a result
is held only between its event and the action that says what to do with it, or while the scheduler says Keep.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from clusterd.controller.functions import FunctionStore
from clusterd.core.model.task import Dependency, Status
from clusterd.core.scheduler import actions, events
from clusterd.core.wire.messages import Failed, Function, Goodbye, NeedFunction, NotRun, Result, Submit
from clusterd.system import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.controller.peers import Client, Engine, Loss
    from clusterd.controller.recovery import Recovery
    from clusterd.core.scheduler import Scheduler
    from clusterd.core.scheduler.actions import AnyAction
    from clusterd.core.wire.messages import AttachEngine, EngineState, Limits

log = logging.getLogger(__name__)
# Function digests are 16 bytes: a kind alone keys the run times of tasks without a function (cells, push, pull).
_KEY_OF_KIND = [bytes([kind]) for kind in range(256)]


class Payload:
    """The request of one task, as it arrived."""

    __slots__ = ("body", "client", "digests", "frames", "function", "kind")

    def __init__(self, message: Submit, client: int, frames: Sequence[Any], digests: Sequence[bytes]) -> None:
        self.kind = message.kind
        self.function = message.function
        self.body = message.body
        self.client = client
        self.frames = frames
        self.digests = digests


class Frames:
    """Hands out the payload frames of one message in order."""

    __slots__ = ("_at", "_digests", "_payload")

    def __init__(self, payload: Sequence[Any], digests: list[bytes] | None) -> None:
        self._payload = payload
        self._digests = digests
        self._at = 0

    def take(self, count: int) -> tuple[Sequence[Any], Sequence[bytes]]:
        """The next `count` frames and their digests (empty where the link has none)."""
        if not count:
            return (), ()
        start, self._at = self._at, self._at + count
        return self._payload[start : self._at], self._digests[start : self._at] if self._digests else ()


class Tasks:
    """The keeper of the tasks.

    Args:
        scheduler: decides.
        perform: performs a list of its actions (`dispatch.Performer`).
        limits: what clients may have unfinished.
        recovery: until it is over, what clients offer again waits.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        perform: Callable[[list[AnyAction], float], None],
        limits: Limits,
        recovery: Recovery,
    ) -> None:
        self.scheduler = scheduler
        self.functions = FunctionStore()
        # All and only tasks that have been accepted and have not ended.
        self.payloads: dict[bytes, Payload] = {}
        # Results whose fate the scheduler has not yet said, or has said Keep to, by task.
        self.results: dict[bytes, tuple[Result, Sequence[Any], Sequence[bytes]]] = {}
        self.completed = 0
        self._perform = perform
        # True while the scheduler has taken events since it last placed tasks.
        self._is_unsettled = False
        self._limits = limits
        # Submits whose function is being asked for: digest -> [(client, message, frames, digests)].
        self._parked: dict[bytes, list[tuple[Client, Submit, Sequence[Any], Sequence[bytes]]]] = {}
        # Offers that wait for the end of the recovery.
        self._offers: list[tuple[Client, Submit, Sequence[Any], Sequence[bytes]]] = []
        self._recovery = recovery

    # --- from clients ---

    def receive_client(
        self, client: Client, messages: list[Any], payload: Any, digests: list[bytes] | None, now: float
    ) -> bool:
        """Handle messages of a client's data connection; True when it said goodbye."""
        fault.point("controller.submit.received")
        client.last_heard = now
        client.has_spoken = True
        frames = Frames(payload, digests)
        out: list[AnyAction] = []
        self._is_unsettled = True
        is_leaving = False
        for message in messages:
            if type(message) is Submit:
                taken, taken_digests = frames.take(message.frames)
                self._submit(client, message, taken, taken_digests, now, out)
            elif type(message) is Function:
                self.functions.add(message, *frames.take(message.frames))
                for parked in self._parked.pop(message.digest, ()):
                    self._submit(*parked, now, out)
            elif type(message) is Goodbye:
                is_leaving = True
        self._perform(out, now)
        return is_leaving

    def _submit(
        self,
        client: Client,
        message: Submit,
        frames: Sequence[Any],
        digests: Sequence[bytes],
        now: float,
        out: list[AnyAction],
    ) -> None:
        waits = message.is_offered_again or message.target is not None or (self._offers and message.options)
        if waits and not self._recovery.is_over(now):
            # With a target: its engine may not be back yet, and must get the work in the order in which it was asked for.
            # With options: it may depend on one that waits here.
            self._offers.append((client, message, frames, digests))
            return
        function = message.function
        if function and self.functions.get(function) is None:
            waiting = self._parked.setdefault(function, [])
            if not waiting and client.data is not None:
                client.data.say(NeedFunction(function), 16)
            waiting.append((client, message, frames, digests))
            return
        task = message.task
        if not 1 <= len(task) <= 64:
            self._refuse(client, message, "malformed", f"a task id of {len(task)} bytes")
            return
        is_known = task in self.payloads
        if not is_known:
            self.payloads[task] = Payload(message, client.handle, frames, digests)
            if function:
                self.functions.refer(function)
        self.scheduler.handle_into(_submitted(message, client.handle, frames), now, out)

    def _refuse(self, client: Client, message: Submit, code: str, text: str) -> None:
        if client.data is not None:
            client.data.say(Failed(message.task, 0, code, text), 64 + len(text))

    def end(self, task: bytes) -> None:
        """The task has ended: its request is not needed any more."""
        payload = self.payloads.pop(task, None)
        if payload is not None and payload.function:
            self.functions.release(payload.function)

    # --- from engines ---

    def receive_engine(
        self, engine: Engine, messages: list[Any], payload: Any, digests: list[bytes] | None, now: float
    ) -> str | None:
        """Handle messages of an engine's connection; the reason when it said goodbye."""
        fault.point("controller.result.received")
        engine.has_spoken = True
        frames = Frames(payload, digests)
        out: list[AnyAction] = []
        handle_into = self.scheduler.handle_into
        self._is_unsettled = True
        goodbye: str | None = None
        for message in messages:
            if type(message) is Result:
                taken = frames.take(message.frames)
                task = message.task
                self.results[task] = (message, *taken)
                engine.completed += 1
                handle_into(
                    events.TaskFinished(
                        task,
                        engine.id,
                        message.attempt,
                        Status(message.status) if message.status else Status.OK,
                        message.finished - message.started,
                        len(message.body) + (sum(map(len, taken[0])) if taken[0] else 0),
                    ),
                    now,
                    out,
                )
                if len(self.results) > 1:
                    # Two results of one task in one message would overwrite each other; and memory is bounded by acting at once.
                    self._perform(out, now)
                    out.clear()
            elif type(message) is NotRun:
                handle_into(events.TaskNotRun(message.task, engine.id, message.attempt), now, out)
            elif type(message) is NeedFunction:
                self._resend_function(engine, message.digest)
            elif type(message) is Goodbye:
                goodbye = message.reason
        self._perform(out, now)
        return goodbye

    def _resend_function(self, engine: Engine, digest: bytes) -> None:
        engine.functions.discard(digest)
        stored = self.functions.get(digest)
        if stored is not None and engine.connection is not None:
            engine.functions.add(digest)
            engine.connection.say(stored.message, len(stored.message.body), stored.payload, stored.digests)

    # --- from the hub: who comes and goes ---

    def client_attached(self, client: Client, now: float) -> None:
        """See `work.Work`."""
        self._handle(events.ClientAttached(client.handle, self._limits.max_tasks, self._limits.max_task_bytes), now)
        self._handle(events.ClientReturned(client.handle), now)

    def client_disconnected(self, client: Client, now: float) -> None:
        """See `work.Work`."""
        self._handle(events.ClientDetached(client.handle), now)

    def client_gone(self, client: Client, reason: str, now: float) -> None:
        """See `work.Work`."""
        log.debug("%s: %s", client.name, reason)
        self._handle(events.ClientForgotten(client.handle), now)
        for waiting in (*self._parked.values(), self._offers):
            waiting[:] = [entry for entry in waiting if entry[0] is not client]

    def engine_attached(self, engine: Engine, message: AttachEngine, *, is_new: bool, now: float) -> None:
        """See `work.Work`."""
        self._recovery.engine_settled(engine.id)
        if is_new:
            self._handle(events.EngineAttached(engine.id, engine.uuid, engine.engine_set, engine.slot), now)
        else:
            self._handle(events.EngineReturned(engine.id), now)
        if message.held or not is_new:
            self._handle(events.EngineInventory(engine.id, tuple(message.held)), now)

    def engine_expected(self, engine: Engine, state: EngineState, now: float) -> None:
        """See `work.Work`."""
        self._recovery.engine_listed(engine.id, state)
        self._handle(events.EngineAttached(engine.id, engine.uuid, engine.engine_set, engine.slot), now)
        self._handle(events.EngineSuspected(engine.id), now)
        if state.state == "running" and state.task:
            self._handle(events.EngineInventory(engine.id, ((state.task, state.attempt),)), now)

    def engine_suspect(self, engine: Engine, now: float) -> None:
        """See `work.Work`."""
        self._handle(events.EngineSuspected(engine.id), now)

    def engine_lost(self, engine: Engine, end: Loss, now: float) -> None:
        """See `work.Work`."""
        self._recovery.engine_settled(engine.id)
        self._handle(events.EngineLost(engine.id, *end), now)

    def agent_attached(self, place: str) -> None:
        """See `work.Work`."""
        self._recovery.agent_attached(place)

    def is_busy(self, engine: Engine) -> bool:
        """See `work.Work`."""
        load = self.scheduler.engine_load(engine.id)
        return load is not None and load.running + load.prefetched + load.queued > 0

    # --- recovery and time ---

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        deadline = self.scheduler.next_deadline()
        if self._offers:
            return self._recovery.deadline if deadline is None else min(deadline, self._recovery.deadline)
        return deadline

    def tick(self, now: float) -> None:
        """Let time pass."""
        if self._offers and self._recovery.is_over(now):
            fault.point("controller.recovery.before_release")
            offers, self._offers = self._offers, []
            out: list[AnyAction] = []
            self._is_unsettled = True
            for offer in offers:
                self._submit(*offer, now, out)
            self._perform(out, now)
        deadline = self.scheduler.next_deadline()
        if deadline is not None and now >= deadline:
            self._handle(events.Tick(), now)

    def settle(self, now: float) -> None:
        """Place what this turn's events made placeable; once a turn, because a batch known in full is spread better."""
        # Performing may bring new events (a client that becomes blocked), so it goes on until nothing is left.
        while self._is_unsettled:
            self._is_unsettled = False
            out: list[AnyAction] = []
            self.scheduler.settle(now, out)
            if out:
                self._perform(out, now)

    def abort(self, event: events.AbortRequested, now: float) -> int:
        """End what has not begun; returns how many tasks that were."""
        return sum(type(action) is actions.Fail for action in self._handle(event, now))

    def handle(self, event: events.AnyEvent, now: float) -> None:
        """Give the scheduler any event and perform what it says."""
        self._handle(event, now)

    def _handle(self, event: events.AnyEvent, now: float) -> list[AnyAction]:
        out: list[AnyAction] = []
        self._is_unsettled = True
        self.scheduler.handle_into(event, now, out)
        if out:
            self._perform(out, now)
        return out


def _submitted(message: Submit, client: int, frames: Sequence[Any]) -> events.TaskSubmitted:
    function = message.function or _KEY_OF_KIND[message.kind & 255]
    size = len(message.body) + (sum(map(len, frames)) if frames else 0)
    target = message.target
    options = message.options
    if options is None and not isinstance(target, list):
        return events.TaskSubmitted(message.task, client, function, size, target)
    if isinstance(target, list):
        target = tuple(target)  # type: ignore[assignment]
    if options is None:
        return events.TaskSubmitted(message.task, client, function, size, target)  # type: ignore[arg-type]
    return events.TaskSubmitted(
        message.task,
        client,
        function,
        size,
        target,  # type: ignore[arg-type]
        options.retries,
        options.timeout,
        options.label,
        _dependency(options.after),
        _dependency(options.follow),
    )


def _dependency(wire: Any) -> Dependency | None:
    if wire is None:
        return None
    return Dependency(tuple(wire.tasks), wire.is_all, wire.on_success, wire.on_failure)

"""Carries work between clients, the scheduler and engines: messages in, events to `core.scheduler`; its actions go to `dispatch`.

It keeps the payload of every task until its end and never looks into it. Invariants: a task has an entry in `payloads` from its acceptance
until Deliver, Fail or Forget, so what follows from one message is performed before the next is looked at; a function is referred to by
exactly the tasks that have an entry.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from clusterd.controller.functions import FunctionStore
from clusterd.controller.parking import Parked, Parking
from clusterd.controller.results import Results
from clusterd.controller.submits import Frames, Payload, parts_of, size_of, submitted
from clusterd.core.model.task import Status
from clusterd.core.scheduler import actions, events
from clusterd.core.wire.messages import Failed, Function, Goodbye, NeedFunction, NotRun, Published, Result, Submit
from clusterd.errors import WireError
from clusterd.system import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.controller.ledger import Ledger
    from clusterd.controller.peers import Client, Engine, Loss
    from clusterd.controller.recorder import Recorder
    from clusterd.controller.recovery import Recovery
    from clusterd.core.scheduler import Scheduler
    from clusterd.core.scheduler.actions import AnyAction
    from clusterd.core.wire.messages import AttachEngine, EngineState, Limits

log = logging.getLogger(__name__)
DIGEST_SIZE = 16
# By `Result.status`: the wire checks its range.
_STATUS = (Status.OK, Status.ERROR, Status.UNMET)
ABORTED = "aborted before it ran"
# Tasks beyond its credit that a client may submit while it reads nothing: each is answered, and the answers wait here.
MAX_REFUSED = 10_000


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
        self._results = Results()
        self.take_result, self.keep_result = self._results.take, self._results.keep
        self._parking = Parking(limits)
        self.is_parked = self._parking.has
        self._perform = perform
        # True while the scheduler has taken events since it last placed tasks.
        self._is_unsettled = False
        self._limits = limits
        self.recovery = recovery
        # Writes down what becomes of tasks; None where nothing is kept.
        self.recorder: Recorder | None = None
        # What is promised to outlive this controller; None where nothing is.
        self.ledger: Ledger | None = None
        # Takes what tasks of stock clients show while they run.
        self.on_published: Callable[[Engine, Published, Sequence[Any], Sequence[bytes], float], None] = lambda *_: None

    # --- from clients ---

    def receive_client(
        self, client: Client, messages: list[Any], payload: Any, digests: list[bytes] | None, now: float
    ) -> bool:
        """Handle messages of a client's data connection; True when it said goodbye."""
        fault.point("controller.submit.received")
        client.last_heard = now
        client.has_spoken = True
        if client.refused > MAX_REFUSED and messages:
            raise WireError(f"{client.refused} tasks beyond its credit, and it does not read what became of them")
        frames = Frames(payload, digests)
        out: list[AnyAction] = []
        self._is_unsettled = True
        is_leaving = False
        for message in messages:
            if type(message) is Submit:
                self._submit(client, message, *frames.take(message.frames), now, out)
            elif type(message) is Function:
                self._learn(message, *frames.take(message.frames), now, out)
            elif type(message) is Goodbye:
                is_leaving = True
            else:
                parts, taken = parts_of(message, frames)
                for part in parts:
                    self._submit(client, part, *taken, now, out)
        if payload:
            frames.check_taken()
        return is_leaving

    def _submit(  # noqa: C901 - calls would cost more
        self,
        client: Client,
        message: Submit,
        frames: Sequence[Any],
        digests: Sequence[bytes],
        now: float,
        out: list[AnyAction],
    ) -> None:
        """Give a task to the scheduler, or park it; `out` is empty before and after: a list is not made for each."""
        if self.ledger is not None and not self.ledger.admits(client, message, now):
            return
        waits = message.is_offered_again or message.target is not None or (self._parking.has_offers and message.options)
        if waits and not self.recovery.is_over(now):
            # With a target: its engine may not be back, and gets its work in order. With options: it may depend on one that waits here.
            parked = Parked(client, message, frames, digests, size_of(message, frames))
            if not self._parking.offer(parked):
                self._refuse(parked, "overloaded", "too many tasks wait already for the controller's recovery")
            return
        if client.unwanted and message.task in client.unwanted:
            del client.unwanted[message.task]
            self._refuse(Parked(client, message, (), (), 0), "aborted", ABORTED)
            return
        stored = self.functions.get(message.function) if message.function else None
        if message.function and stored is None:
            self._await_function(Parked(client, message, frames, digests, size_of(message, frames)))
            return
        task = message.task
        if self.ledger is not None and self.ledger.has_deferred(message, frames, digests, client, stored, now):
            return
        if task not in self.payloads:
            payload = self.payloads[task] = Payload(message, client.handle, frames, digests)
            if message.function:
                self.functions.refer(message.function)
            if self.recorder is not None and not self.scheduler.has_ended(task):
                self.recorder.accepted(payload, message, client, now, "" if stored is None else stored.name)
        self.scheduler.handle_into(submitted(message, client.handle, frames), now, out)
        if out:
            self._perform(out, now)
            out.clear()

    def accept(
        self,
        client: Client,
        message: Submit,
        frames: Sequence[Any],
        event: events.TaskSubmitted,
        origin: Any,
        now: float,
        digests: Sequence[bytes] = (),
    ) -> None:
        """Take a task that came through a door; `event` is what the scheduler is to be told of it.

        One that is known already is not taken again: whoever sent it has its answer, or will.
        """
        if message.task not in self.payloads:
            payload = self.payloads[message.task] = Payload(message, client.handle, frames, digests, origin)
            if self.recorder is not None and not self.scheduler.has_ended(message.task):
                self.recorder.accepted_stock(payload, event.target, now)
        self.handle(event, now)

    def _await_function(self, parked: Parked) -> None:
        digest, client = parked.message.function, parked.client
        if len(digest) != DIGEST_SIZE:
            self._refuse(parked, "malformed", f"a function digest of {len(digest)} bytes")
            return
        is_asked = self._parking.is_awaited_by(digest, client)
        if not self._parking.await_function(parked):
            self._refuse(parked, "overloaded", "too many tasks wait already for functions that are not here")
        elif not is_asked and client.data is not None:
            client.data.say(NeedFunction(digest), 16)

    def _learn(
        self, message: Function, frames: Sequence[Any], digests: Sequence[bytes], now: float, out: list[AnyAction]
    ) -> None:
        has_room = self.functions.add(message, frames, digests)
        for parked in self._parking.take_function(message.digest):
            if has_room:
                self._submit(parked.client, parked.message, parked.frames, parked.digests, now, out)
            else:
                text = f"unfinished tasks name functions of {self.functions.bytes} bytes: there is no room for another"
                self._refuse(parked, "overloaded", text)

    def _refuse(self, parked: Parked, code: str, text: str) -> None:
        client = parked.client
        client.refused += client.is_blocked
        if client.data is not None:
            client.data.say(Failed(parked.message.task, 0, code, text), 64 + len(text))

    def end(self, task: bytes) -> Payload | None:
        """The task has ended: its request, which is not needed any more; None where there is none."""
        payload = self.payloads.pop(task, None)
        if payload is not None and payload.function:
            self.functions.release(payload.function)
        return payload

    # --- from engines ---

    def receive_engine(
        self, engine: Engine, messages: list[Any], payload: Any, digests: list[bytes] | None, now: float
    ) -> str | None:
        """Handle messages of an engine's connection; the reason when it said goodbye."""
        fault.point("controller.result.received")
        engine.has_spoken = True
        engine.last_heard = now
        frames = Frames(payload, digests)
        out: list[AnyAction] = []
        handle_into = self.scheduler.handle_into
        self._is_unsettled = True
        goodbye: str | None = None
        for message in messages:
            if type(message) is Result:
                taken = frames.take(message.frames)
                duration = message.finished - message.started
                self._results.in_hand = (message, *taken)
                handle_into(
                    events.TaskFinished(
                        message.task,
                        engine.id,
                        message.attempt,
                        _STATUS[message.status],
                        max(0.0, duration),  # in this order: NaN is no duration either
                        len(message.body) + (sum(map(len, taken[0])) if taken[0] else 0),
                    ),
                    now,
                    out,
                )
            elif type(message) is Published:
                if self.recorder is not None:
                    self.recorder.published(self.payloads.get(message.task), message)
                self.on_published(engine, message, *frames.take(message.frames), now)
            elif type(message) is NotRun:
                handle_into(events.TaskNotRun(message.task, engine.id, message.attempt), now, out)
            elif type(message) is NeedFunction:
                self._resend_function(engine, message.digest)
            elif type(message) is Goodbye:
                goodbye = message.reason
            else:
                raise WireError(f"{type(message).__name__} from an engine that is attached")
            if out:
                self._perform(out, now)
                out.clear()
        if payload:
            frames.check_taken()
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
        self.handle(events.ClientAttached(client.handle, self._limits.max_tasks, self._limits.max_task_bytes), now)
        self.handle(events.ClientReturned(client.handle), now)
        if client.data is not None:
            for digest in self._parking.needed_by(client):
                client.data.say(NeedFunction(digest), 16)
        if self.ledger is not None:
            self.ledger.client_attached(client)

    def client_disconnected(self, client: Client, now: float) -> None:
        """See `work.Work`."""
        self.handle(events.ClientDetached(client.handle), now)
        if self.ledger is not None:
            self.ledger.client_disconnected(client)

    def keeps(self, client: Client) -> bool:
        """See `work.Work`."""
        return self.ledger is not None and self.ledger.keeps(client)

    def client_gone(self, client: Client, reason: str, now: float) -> None:
        """See `work.Work`."""
        log.debug("%s: %s", client.name, reason)
        self.handle(events.ClientForgotten(client.handle), now)
        self._parking.forget(client.handle)

    def engine_attached(self, engine: Engine, message: AttachEngine, *, is_new: bool, now: float) -> None:
        """See `work.Work`."""
        self.recovery.engine_settled(engine.id)
        if is_new:
            self.handle(events.EngineAttached(engine.id, engine.uuid, engine.engine_set, engine.slot), now)
        if message.held or not is_new:
            self.handle(events.EngineInventory(engine.id, tuple(message.held)), now)

    def engine_admitted(self, engine: Engine, now: float) -> None:
        """See `work.Work`. It holds one task at a time: what waits can still be aborted, moved on, or given to another engine."""
        self.handle(events.EngineAttached(engine.id, engine.uuid, engine.engine_set, engine.slot, max_held=1), now)
        if self.ledger is not None:
            self.ledger.engine_admitted(engine, now)
        self.recovery.engine_settled(engine.id)

    def engine_expected(self, engine: Engine, state: EngineState, now: float) -> None:
        """See `work.Work`."""
        self.recovery.engine_listed(engine.id, state)
        self.handle(events.EngineAttached(engine.id, engine.uuid, engine.engine_set, engine.slot), now)
        if state.state == "running" and state.task:
            self.handle(events.EngineInventory(engine.id, ((state.task, state.attempt),)), now)

    def engine_suspect(self, engine: Engine, now: float) -> None:
        """See `work.Work`."""
        self.handle(events.EngineSuspected(engine.id), now)

    def engine_returned(self, engine: Engine, now: float) -> None:
        """See `work.Work`."""
        self.handle(events.EngineReturned(engine.id), now)

    def engine_lost(self, engine: Engine, end: Loss, now: float) -> None:
        """See `work.Work`."""
        self.recovery.engine_settled(engine.id)
        self.handle(events.EngineLost(engine.id, *end), now)

    def agent_reported(self, place: str) -> None:
        """See `work.Work`."""
        self.recovery.agent_reported(place)

    def is_busy(self, engine: Engine) -> bool:
        """See `work.Work`."""
        load = self.scheduler.engine_load(engine.id)
        return load is not None and load.running + load.prefetched + load.queued > 0

    # --- recovery and time ---

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        deadline = self.scheduler.next_deadline()
        if self._parking.has_offers or (self.ledger is not None and self.ledger.is_waiting):
            return self.recovery.deadline if deadline is None else min(deadline, self.recovery.deadline)
        return deadline

    def tick(self, now: float) -> None:
        """Let time pass."""
        if self._parking.has_offers and self.recovery.is_over(now):
            fault.point("controller.recovery.before_release")
            out: list[AnyAction] = []
            self._is_unsettled = True
            for parked in self._parking.take_offers():
                self._submit(parked.client, parked.message, parked.frames, parked.digests, now, out)
        if self.ledger is not None:
            self.ledger.tick(now)
        deadline = self.scheduler.next_deadline()
        if deadline is not None and now >= deadline:
            self.handle(events.Tick(), now)

    def settle(self, now: float) -> None:
        """Place what this turn's events made placeable; once a turn, because a batch known in full is spread better."""
        # Performing may bring new events (a client that becomes blocked), so it goes on until nothing is left.
        while self._is_unsettled:
            self._is_unsettled = False
            out: list[AnyAction] = []
            self.scheduler.settle(now, out)
            if out:
                self._perform(out, now)

    def abort(self, client: Client, tasks: list[bytes] | None, targets: list[int] | None, now: float) -> int:
        """End what has not begun: the tasks named, those for `targets`, or (both None) all; returns how many tasks that were.

        A task that is named and not known is on its way: data and control are two connections. It ends when it comes.
        """
        parked = self._parking.abort(
            client.handle, None if tasks is None else set(tasks), None if targets is None else set(targets)
        )
        for entry in parked:
            self._refuse(entry, "aborted", ABORTED)
        known = {entry.message.task for entry in parked}
        for task in tasks or ():
            if task not in known and self.scheduler.record(task) is None:
                client.unwanted[task] = None
        while len(client.unwanted) > self._limits.max_tasks:
            del client.unwanted[next(iter(client.unwanted))]
        named, aimed = None if tasks is None else tuple(tasks), None if targets is None else tuple(targets)
        out = self.handle(events.AbortRequested(client.handle, named, aimed), now)
        return len(parked) + sum(type(action) is actions.Fail for action in out)

    @property
    def parked(self) -> int:
        """How many tasks wait for their function or for the end of the recovery."""
        return len(self._parking)

    def handle(self, event: events.AnyEvent, now: float) -> list[AnyAction]:
        """Give the scheduler any event and perform what it says."""
        out: list[AnyAction] = []
        self._is_unsettled = True
        self.scheduler.handle_into(event, now, out)
        if out:
            self._perform(out, now)
        return out

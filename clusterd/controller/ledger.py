"""What a durable controller has promised, and what it finds again: tasks that it took, and outcomes that it owes.

It adds to each row how the task is to be run, knows which outcomes are not acknowledged by their clients, and, at the start, takes up
what an earlier controller left: tasks that had gone to no engine at once, others when the engine that had them has said what it
holds (`recovery`). Invariants: a task is in `_waiting`, in the scheduler, or has an outcome; an outcome is told to a client that
attaches until that has acknowledged it (`receipts`); what is offered again and known here is not taken a second time.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec

from clusterd.controller.compat.accounts import is_aimed, needs_of
from clusterd.controller.functions import DurableFunctions
from clusterd.controller.receipts import Receipts
from clusterd.controller.restoring import named_by, rest_of
from clusterd.controller.submits import Payload, submitted
from clusterd.core.model.task import Reason
from clusterd.core.scheduler import actions, events
from clusterd.core.wire.jupyter import task_id
from clusterd.core.wire.messages import STOCK, Failed, Submit, TaskOptions
from clusterd.errors import StorageError, UnknownTask, WireError
from clusterd.storage.taskstore.row import PART, WHOLE
from clusterd.system import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from clusterd.controller.compat.arrears import Arrears
    from clusterd.controller.compat.origin import Origin
    from clusterd.controller.functions import StoredFunction
    from clusterd.controller.gate import Gate
    from clusterd.controller.hub import Hub
    from clusterd.controller.peers import Client, Engine, Loss
    from clusterd.controller.recovery import Recovery
    from clusterd.controller.tasks import Tasks
    from clusterd.core.scheduler.actions import AnyAction
    from clusterd.storage.taskstore.durable import DurableStore
    from clusterd.storage.taskstore.row import TaskRow

log = logging.getLogger(__name__)
# What a client that is not here may have: it was within its credit when these tasks were taken.
_ANY = 2**62


class _Wish(msgspec.Struct, array_like=True):
    """Where and how a task is to be run."""

    target: int | list[int] | None = None
    options: TaskOptions | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode_wish = msgspec.msgpack.Decoder(_Wish).decode


class Ledger:
    """The ledger of one controller.

    Args:
        store: where it lies.
        gate: knows whether something can be promised.
        hub, tasks: who is there, and what they want.
        recovery: when enough is known of engines to place what they may hold.
        perform: performs actions.
    """

    def __init__(
        self,
        store: DurableStore,
        gate: Gate,
        *,
        hub: Hub,
        tasks: Tasks,
        recovery: Recovery,
        perform: Callable[[Sequence[AnyAction], float], None],
    ) -> None:
        self._store = store
        self.gate = gate
        self._hub = hub
        self._tasks = tasks
        self._recovery = recovery
        self._perform = perform
        # Takes up what stock clients want; None where they are not served.
        self.stock: Arrears | None = None
        self._since = time.time()
        # Tasks of an earlier controller that the scheduler has not been told of; of some of them, what they depend on.
        self._waiting: dict[bytes, TaskRow] = {}
        self._needs: dict[bytes, Collection[bytes]] = {}
        # Those of them whose function is not here; the others refer to theirs.
        self._without_function: set[bytes] = set()
        self._receipts = Receipts(store)

    # --- each task ---

    def inscribe(self, row: TaskRow, message: Submit) -> None:
        """A task is taken: its row gets what another controller will need."""
        row.is_owed = True
        if message.target is not None or message.options is not None:
            row.wish = _encode(_Wish(message.target, message.options))

    def inscribe_stock(self, row: TaskRow, origin: Origin, target: object) -> None:
        """Likewise of a stock client's task."""
        if self.stock is not None:
            self.stock.inscribe(row, origin, target)

    def knows(self, task: bytes, msg_id: str, date: float | None) -> bool:
        """Say whether a stock client's task, sent at `date`, was taken by an earlier controller."""
        if task in self._waiting:
            return True
        if date is not None and date >= self._since:
            return False
        try:
            self._store.get(msg_id, buffers=False)
        except (UnknownTask, StorageError):
            return False
        return True

    def defers(self, needs: Collection[bytes]) -> bool:
        """Say whether some of these tasks are still to be taken up: what depends on them has to wait here, too."""
        return bool(self._waiting) and not self._waiting.keys().isdisjoint(needs)

    def defer(
        self, message: Submit, frames: Sequence[Any], client: Client, target: object, origin: Origin, now: float
    ) -> None:
        """Take a stock client's task that has to wait."""
        payload, recorder = Payload(message, client.handle, frames, (), origin), self._tasks.recorder
        if recorder is not None:
            recorder.accepted_stock(payload, target, now)
        if payload.row is not None:
            self._expect(payload.row)

    def has_deferred(
        self,
        message: Submit,
        frames: Sequence[Any],
        digests: Sequence[bytes],
        client: Client,
        stored: StoredFunction | None,
        now: float,
    ) -> bool:
        """Say whether a native task, whose function is `stored`, has to wait; then it is taken."""
        if message.options is None or not self.defers(named_by(message.options)):
            return False
        payload, recorder = Payload(message, client.handle, frames, digests), self._tasks.recorder
        if recorder is not None:
            recorder.accepted(payload, message, client, now, "" if stored is None else stored.name)
        if payload.row is not None:
            self._expect(payload.row)
        return True

    def admits(self, client: Client, message: Submit, now: float) -> bool:
        """Say whether a task is to be taken. Not one that is here, or has its outcome; none while nothing can be promised."""
        task = message.task
        if task in self._receipts or task in self._waiting:
            return False
        trouble = self.gate.trouble
        if not trouble or task in self._tasks.payloads:
            return True
        if client.data is not None:
            text = f"the controller cannot write it down: {trouble}"
            client.data.say(Failed(task, 0, StorageError.code, text, "Submit it again when that is over."), 128)
        log.debug("refused a task of %s at %g: %s", client.name, now, trouble)
        return False

    def ended(self, task: bytes, row: TaskRow, client: Client | None) -> None:
        """A task has its outcome, and its client, if it is attached, is being told."""
        if client is not None and client.data is not None and row.is_owed:
            self._receipts.told(task, row.client)

    def acknowledged(self, messages: Sequence[Any]) -> None:
        """A client has dealt with what it was told."""
        self._receipts.acknowledged(messages)

    # --- engines that come through a door ---

    def engine_admitted(self, engine: Engine, now: float) -> None:
        """One is there, perhaps an earlier controller's. What it was given it may run still, or its result may be on its way."""
        held = self._held_by(engine.id)
        if held and engine.door is not None:
            self._tasks.handle(events.EngineInventory(engine.id, held), now)
            # If neither, it answers this before it says anything about them.
            engine.door.ask(engine, held, now)

    def engine_missing(self, engine: Engine, end: Loss, now: float) -> None:
        """One of an earlier controller is not there any more, and never was here."""
        held = self._held_by(engine.id)
        if held:
            for event in (
                events.EngineAttached(engine.id, engine.uuid, engine.engine_set, engine.slot),
                events.EngineSuspected(engine.id),
                events.EngineInventory(engine.id, held),
                events.EngineLost(engine.id, *end),
            ):
                self._tasks.handle(event, now)

    def _held_by(self, engine: int) -> tuple[tuple[bytes, int], ...]:
        return tuple((task, row.attempt) for task, row in self._waiting.items() if row.engine_id == engine)

    # --- clients ---

    def client_attached(self, client: Client) -> None:
        """Tell it what it has not acknowledged, wherever it ended."""
        self._receipts.attached(client)

    def client_disconnected(self, client: Client) -> None:
        """What it was told and has not acknowledged it will be told when it is back, out of the store."""
        self._receipts.disconnected(client)

    def goodbye(self, client: Client, now: float) -> None:
        """It wants nothing any more."""
        name = client.uuid.hex()
        self._receipts.goodbye(client)
        # What runs ends for nobody, and is not taken up again.
        rows = [payload.row for payload in self._tasks.payloads.values() if payload.client == client.handle]
        self._store.settle(row.msg_id for row in rows if row is not None)
        for task in [task for task, row in self._waiting.items() if row.client == name]:
            row = self._waiting.pop(task)
            payload = self._tasks.payloads[task] = Payload(_submit_of(task, row, None, None), client.handle, (), ())
            payload.row = row
            if task in self._without_function:
                payload.function = b""
                self._without_function.discard(task)
            self._perform([actions.Forget((task,))], now)

    def keeps(self, client: Client) -> bool:
        """Say whether its tasks go on though it is not there."""
        name = client.uuid.hex()
        return self._tasks.scheduler.has_tasks(client.handle) or any(
            row.client == name for row in self._waiting.values()
        )

    # --- the beginning ---

    def restore(self, now: float) -> None:
        """Take up what an earlier controller left.

        Raises:
            StorageError: the store cannot be read.
        """
        fault.point("controller.restore.before_load")
        functions = self._tasks.functions
        if isinstance(functions, DurableFunctions):
            functions.restore()
        rows = self._store.unfinished()
        clients = {row.client for row in rows if row.kind != STOCK}
        for name in sorted(clients):
            client = self._hub.expect_client(bytes.fromhex(name), now)
            self._tasks.handle(events.ClientAttached(client.handle, _ANY, _ANY), now)
            self._tasks.handle(events.ClientDetached(client.handle), now)
        for row in rows:
            if row.kind != STOCK or (self.stock is not None and row.queue != WHOLE):
                self._store.resume(row)
                self._expect(row)
        if self.stock is not None:
            present = {row.msg_id: row for row in rows if row.queue == PART}
            for row in rows:
                if row.queue == WHOLE:
                    self._store.resume(row)
                    for part in self.stock.restore(row, present, now):
                        self._expect(part)
        if self._waiting:
            log.info("%d tasks of an earlier controller are taken up again", len(self._waiting))
        self._release([task for task, row in self._waiting.items() if self._is_free(task, row)], now)
        fault.point("controller.restore.after_load")

    def _expect(self, row: TaskRow) -> None:
        task = _task_of(row)
        self._waiting[task] = row
        if row.function:
            if self._tasks.functions.get(row.function) is None:
                self._without_function.add(task)
            else:
                self._tasks.functions.refer(row.function)
        needs = needs_of(row) if row.kind == STOCK else named_by(_decode_wish(row.wish).options if row.wish else None)
        if needs:
            self._needs[task] = needs

    def _is_free(self, task: bytes, row: TaskRow) -> bool:
        """It can run anywhere, and nothing of it has been given out."""
        if row.engine_id >= 0 or task in self._needs:
            return False
        return not (is_aimed(row) if row.kind == STOCK else row.wish)

    @property
    def is_waiting(self) -> bool:
        """True while tasks wait for what engines say, for as long as all may take."""
        return bool(self._waiting) and self._recovery.goes_on

    def has_waiting(self, task: bytes) -> bool:
        """Whether this task waits for what engines say."""
        return task in self._waiting

    def tick(self, now: float) -> None:
        """Give to the scheduler what waits no longer."""
        self._receipts.tick(now)
        if not self._waiting or not self._recovery.is_over(now):
            return
        awaits, needs = self._recovery.awaits, self._needs
        ready: list[bytes] = []
        still: set[bytes] = set()
        # In order of submission: what a task depends on comes before it.
        for task, row in self._waiting.items():
            if awaits(row.engine_id) or (still and not still.isdisjoint(needs.get(task, ()))):
                still.add(task)
            else:
                ready.append(task)
        self._release(ready, now)

    def result_came(self, task: bytes, now: float) -> None:
        """A result is here before its task is: it is written down in this turn, at the end of which its engine may forget it."""
        row = self._waiting.pop(task, None)
        if row is not None:
            self._submit(task, row, now)

    def _release(self, tasks: list[bytes], now: float) -> None:
        for task in tasks:
            self._submit(task, self._waiting.pop(task), now)

    def _submit(self, task: bytes, row: TaskRow, now: float) -> None:
        self._needs.pop(task, None)
        if row.kind == STOCK:
            try:
                if self.stock is not None:
                    self.stock.take_up(task, row, self.outcome, now)
            except WireError as error:
                log.error("task %s of a stock client is left to a later controller: %s", row.msg_id, error)  # noqa: TRY400
            return
        tasks, client = self._tasks, self._hub.clients[bytes.fromhex(row.client)]
        wish = _decode_wish(row.wish) if row.wish else _Wish()
        target, options = rest_of(wish.target, wish.options, self.outcome)
        message = _submit_of(task, row, target, options)
        payload = Payload(message, client.handle, row.buffers, ())
        payload.row = row
        if task in self._without_function:
            # It is written before its tasks are, so somebody has changed the store.
            self._without_function.discard(task)
            payload.function = b""
            tasks.payloads[task] = payload
            text = "its function is not in the store any more"
            self._perform([actions.Fail(task, client.handle, Reason.UNSCHEDULABLE, text)], now)
            return
        tasks.payloads[task] = payload
        event = submitted(message, client.handle, row.buffers)
        if row.engine_id >= 0:
            event = msgspec.structs.replace(event, attempt=row.attempt + 1)
        tasks.handle(event, now)
        if client.unwanted.pop(task, 0) is None:
            tasks.handle(events.AbortRequested(client.handle, (task,)), now)

    def outcome(self, task: bytes) -> TaskRow | None:
        """The row of a task that has ended; None where it is to be waited for, or is not known."""
        if task in self._waiting or task in self._tasks.payloads:
            return None
        # Natively, and as stock clients call theirs; a longer name of theirs cannot be had from the id.
        for msg_id in (task.hex(), task.decode("utf-8", "replace")):
            try:
                row = self._store.get(msg_id, buffers=False)
            except (UnknownTask, StorageError):
                continue
            if row.outcome is not None and _task_of(row) == task:
                return row
        return None


def _task_of(row: TaskRow) -> bytes:
    return task_id(row.msg_id) if row.kind == STOCK else bytes.fromhex(row.msg_id)


def _submit_of(task: bytes, row: TaskRow, target: int | list[int] | None, options: TaskOptions | None) -> Submit:
    frames = len(row.buffers)
    return Submit(task, row.kind, row.function, target, row.body, frames, options, is_offered_again=True)

"""What a durable controller has promised, and what it finds again: tasks that it took, and outcomes that it owes.

It adds to each row how the task is to be run, knows which outcomes are not acknowledged by their clients, and, at the start, takes up
what an earlier controller left: tasks that had gone to no engine at once, others when the engine that had them has said what it
holds (`recovery`). Invariants: a task is in `_waiting`, in the scheduler, or has an outcome; an outcome is told to a client that
attaches until that has acknowledged it (`receipts`); what is offered again and known here is not taken a second time.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from clusterd.controller.functions import FunctionStore
from clusterd.controller.receipts import Receipts
from clusterd.controller.restoring import rest_of
from clusterd.controller.submits import Payload, submitted
from clusterd.core.model.task import Reason
from clusterd.core.scheduler import actions, events
from clusterd.core.wire.messages import Failed, Function, Submit, TaskOptions
from clusterd.errors import StorageError, UnknownTask
from clusterd.system import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.controller.gate import Gate
    from clusterd.controller.hub import Hub
    from clusterd.controller.peers import Client
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
_decode_function = msgspec.msgpack.Decoder(Function).decode


class DurableFunctions(FunctionStore):
    """Functions that are in the store as long as they are here."""

    def __init__(self, store: DurableStore) -> None:
        super().__init__()
        self._store = store

    def restore(self) -> None:
        """Take up those of an earlier controller."""
        for parts in self._store.functions().values():
            super().add(_decode_function(parts[0]), parts[1:], ())

    def add(self, message: Function, payload: Sequence[Any], digests: Sequence[bytes]) -> bool:
        """See `FunctionStore`."""
        is_new = self.get(message.digest) is None
        has_room = super().add(message, payload, digests)
        if has_room and is_new:
            self._store.keep_function(message.digest, [_encode(message), *payload])
        return has_room

    def _drop_oldest(self) -> bytes:
        digest = super()._drop_oldest()
        self._store.drop_function(digest)
        return digest


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
        # Tasks of an earlier controller that the scheduler has not been told of.
        self._waiting: dict[bytes, TaskRow] = {}
        self._receipts = Receipts(store)

    # --- each task ---

    def inscribe(self, row: TaskRow, message: Submit) -> None:
        """A task is taken: its row gets what another controller will need."""
        row.is_owed = True
        if message.target is not None or message.options is not None:
            row.wish = _encode(_Wish(message.target, message.options))

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
            payload.row, payload.function = row, b""
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
        clients = {row.client for row in rows}
        for name in sorted(clients):
            client = self._hub.expect_client(bytes.fromhex(name), now)
            self._tasks.handle(events.ClientAttached(client.handle, _ANY, _ANY), now)
            self._tasks.handle(events.ClientDetached(client.handle), now)
        for row in rows:
            self._store.resume(row)
            self._waiting[bytes.fromhex(row.msg_id)] = row
        if rows:
            log.info("%d tasks of %d clients are taken up again", len(rows), len(clients))
        self._release([task for task, row in self._waiting.items() if row.engine_id < 0 and not row.wish], now)
        fault.point("controller.restore.after_load")

    @property
    def is_waiting(self) -> bool:
        """True while tasks wait for what engines say."""
        return bool(self._waiting)

    def has_waiting(self, task: bytes) -> bool:
        """Whether this task waits for what engines say."""
        return task in self._waiting

    def tick(self, now: float) -> None:
        """Give to the scheduler what waits no longer."""
        self._receipts.tick(now)
        if self._waiting and self._recovery.is_over(now):
            awaits = self._recovery.awaits
            self._release([task for task, row in self._waiting.items() if not awaits(row.engine_id)], now)

    def result_came(self, task: bytes, now: float) -> None:
        """A result is here before its task is: it is written down in this turn, at the end of which its engine may forget it."""
        row = self._waiting.pop(task, None)
        if row is not None:
            self._submit(task, row, now)

    def _release(self, tasks: list[bytes], now: float) -> None:
        for task in tasks:
            self._submit(task, self._waiting.pop(task), now)

    def _submit(self, task: bytes, row: TaskRow, now: float) -> None:
        tasks, client = self._tasks, self._hub.clients[bytes.fromhex(row.client)]
        wish = _decode_wish(row.wish) if row.wish else _Wish()
        target, options = rest_of(wish.target, wish.options, self._outcome)
        message = _submit_of(task, row, target, options)
        payload = Payload(message, client.handle, row.buffers, ())
        payload.row = row
        if row.function and tasks.functions.get(row.function) is None:
            # It is written before its tasks are, so somebody has changed the store.
            payload.function = b""
            tasks.payloads[task] = payload
            text = "its function is not in the store any more"
            self._perform([actions.Fail(task, client.handle, Reason.UNSCHEDULABLE, text)], now)
            return
        tasks.payloads[task] = payload
        if row.function:
            tasks.functions.refer(row.function)
        event = submitted(message, client.handle, row.buffers)
        if row.engine_id >= 0:
            event = msgspec.structs.replace(event, attempt=row.attempt + 1)
        tasks.handle(event, now)
        if client.unwanted.pop(task, 0) is None:
            tasks.handle(events.AbortRequested(client.handle, (task,)), now)

    def _outcome(self, task: bytes) -> TaskRow | None:
        """The row of a task that has ended; None where it is to be waited for, or is not known."""
        if task in self._waiting or task in self._tasks.payloads:
            return None
        try:
            row = self._store.get(task.hex(), buffers=False)
        except (UnknownTask, StorageError):
            return None
        return row if row.outcome is not None else None


def _submit_of(task: bytes, row: TaskRow, target: int | list[int] | None, options: TaskOptions | None) -> Submit:
    frames = len(row.buffers)
    return Submit(task, row.kind, row.function, target, row.body, frames, options, is_offered_again=True)

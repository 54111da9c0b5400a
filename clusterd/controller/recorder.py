"""Writes down what becomes of tasks: when one is accepted, given to an engine, shows something, ends, is run once more.

It is on the hot path of every task: what it does there is to fill in a row that refers to what is here anyway; records are
derived when somebody asks. Invariant: each row that was put gets an outcome when its task ends, however it ends, because a store never
forgets a row without one. Where nothing is kept there is no recorder at all.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, defaultdict
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clusterd.controller.compat.names import name_of
from clusterd.controller.submits import Part
from clusterd.core.model.task import Reason, Unmet
from clusterd.core.wire import jupyter
from clusterd.core.wire.messages import STATUS_OK, STOCK
from clusterd.errors import StorageError, WireError
from clusterd.storage.taskstore.record import result_content
from clusterd.storage.taskstore.row import PART, Outcome, Output, TaskRow, place_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.controller.compat.origin import Origin
    from clusterd.controller.ledger import Ledger
    from clusterd.controller.peers import Client, Engine
    from clusterd.controller.submits import Payload
    from clusterd.core.scheduler import actions
    from clusterd.core.wire.messages import Published, Result, Submit
    from clusterd.storage.taskstore.base import TaskStore

log = logging.getLogger(__name__)
MAX_LABEL: Final = 256
MAX_NAMES: Final = 10_000
MAX_RECENT: Final = 256
"""Stock tasks that have ended and are at hand: what a stock engine publishes may come after its reply."""
MAX_SHARED: Final = 64 * 1024
"""Bytes that are recorded of the arguments of a call on many engines: each of its tasks would have them all."""
MAX_SHOWN: Final = 1024**2
"""Bytes of one execute_result or error that are recorded; a picture that is larger is not."""


class _Stream(msgspec.Struct):
    name: str = "stdout"
    text: str = ""


class _Input(msgspec.Struct):
    code: str = ""


class _Content(msgspec.Struct):
    status: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode_stream = msgspec.json.Decoder(_Stream).decode
_decode_input = msgspec.json.Decoder(_Input).decode
_decode_content = msgspec.json.Decoder(_Content).decode


class Recorder:
    """The recorder of one controller.

    Args:
        store: where rows go.

    Attributes:
        completed: how many tasks have a result, by the wire id of the engine that gave it.
    """

    def __init__(self, store: TaskStore) -> None:
        self.store = store
        # What a durable controller has promised; None where nothing is.
        self.ledger: Ledger | None = None
        self._put = store.put
        self._update = store.update
        self.completed: defaultdict[int, int] = defaultdict(int)
        self._follows = store.is_told_of_dispatch
        # Names and places of engines by wire id, which is never given twice: one text for all of their rows.
        self._names: dict[int, tuple[str, str]] = {}
        # Likewise of clients, by handle: one text for all of their rows.
        self._clients: dict[int, str] = {}
        # From the loop's time to seconds since the epoch.
        self._offset = 0.0
        self.tick(monotonic())
        self._recent: OrderedDict[str, TaskRow] = OrderedDict()

    def tick(self, now: float) -> None:
        """Let time pass: the clock on the wall may have been set."""
        self._offset = time() - now

    # --- once for each task ---

    def accepted(self, payload: Payload, message: Submit, client: Client, now: float, name: str = "") -> None:
        """A native task; `name` is that of its function."""
        options = message.options
        target = message.target
        frames = payload.frames
        is_whole = True
        if frames and not self._may_keep(message, frames):
            frames, is_whole = (), False
        payload.row = row = TaskRow(
            message.task.hex(),
            self._clients.get(client.handle) or self._called(client),
            "mux" if type(target) is int else "task",
            now + self._offset,
            message.kind,
            message.function,
            message.body,
            frames,
            "" if options is None else options.label[:MAX_LABEL],
        )
        if name:
            row.name = name
        if not is_whole:
            row.is_whole = False
        if self.ledger is not None:
            self.ledger.inscribe(row, message)
        self._put(row)

    def _called(self, client: Client) -> str:
        if len(self._clients) > MAX_NAMES:
            self._clients.clear()
        name = self._clients[client.handle] = client.uuid.hex()
        return name

    def _may_keep(self, message: Submit, frames: Sequence[Any]) -> bool:
        """Say whether the request is kept in full, for another run. Else a large one would drive out all others."""
        if self.ledger is not None:
            return True
        size = sum(map(len, frames))
        if type(message) is Part and size > MAX_SHARED:
            return False
        return self.store.max_request is None or size <= self.store.max_request

    def accepted_stock(self, payload: Payload, target: object, now: float) -> None:
        """A task of a stock client; a broadcast is not recorded, as with ipcontroller, unless it is to outlive the controller."""
        origin: Origin = payload.origin
        group = origin.group
        is_part = group is not None and group.row is not None
        if payload.kind != STOCK or origin.channel == "comm" or (origin.metadata.is_broadcast and not is_part):
            return  # (a control request, or one to a comm, is a task inside here only)
        request = jupyter.unpack_request(payload.body)
        label = origin.metadata.label
        date = jupyter.seconds_of(origin.date)
        limit = self.store.max_request
        frames = payload.frames
        # What all parts of a broadcast have is in the row of the whole.
        is_whole = not is_part and (limit is None or sum(map(len, frames)) <= limit)
        if not is_whole:
            frames = ()
        payload.row = row = TaskRow(
            origin.msg_id,
            origin.session,
            PART if is_part else "mux" if type(target) is int else "task",
            date if date is not None else now + self._offset,
            buffers=frames,
            label=label[:MAX_LABEL] if isinstance(label, str) else None,
            header=request.header,
            metadata=request.metadata,
            content=request.content,
            is_whole=is_whole,
        )
        if self.ledger is not None:
            self.ledger.inscribe_stock(row, origin, target)
        self._put(row)

    def dispatched(self, row: TaskRow, engine: Engine, attempt: int) -> None:
        """It goes to an engine."""
        row.engine_id = engine_id = engine.id
        row.attempt = attempt
        names = self._names.get(engine_id)
        if names is None:
            if len(self._names) > MAX_NAMES:
                self._names.clear()
            called = engine.name if engine.engine_set else f"id:{engine_id}"
            names = self._names[engine_id] = (name_of(engine), place_of(called, engine.pid, engine.host))
        row.engine, row.place = names
        if self._follows:
            self._update(row)

    def delivered(self, row: TaskRow, result: Result, frames: Sequence[Any], now: float) -> None:
        """It has a result."""
        self.completed[row.engine_id] += 1
        status = "ok" if result.status == STATUS_OK else "error"
        if row.kind == STOCK:
            self._reply(row, result, frames, status, now + self._offset)
            return
        if result.stdout or result.stderr:
            row.output = Output()
            row.output.write("stdout", result.stdout)
            row.output.write("stderr", result.stderr)
        outcome = Outcome(status, result.finished, now + self._offset, result.started, result.body, frames)
        if result.display and row.is_owed:
            outcome.display = _encode(result.display)
        row.outcome = outcome
        if status == "error" and self._follows:
            # Derived now: who does not ask for buffers gets rows from a database without their bodies.
            outcome.content = jupyter.json_of(result_content(row))
        self._update(row)

    def _reply(self, row: TaskRow, result: Result, frames: Sequence[Any], status: str, received: float) -> None:
        try:
            reply = jupyter.unpack_reply(result.body)
            if status == "error":
                status = "aborted" if _decode_content(reply.content).status == "aborted" else "error"
            # Of a stock engine: the date of its reply is when it was done.
            completed = jupyter.seconds_of(jupyter.header_of(reply.header).date) if reply.header else None
        except (WireError, msgspec.DecodeError) as error:
            self._end(row, "error", str(error), received)
            return
        row.outcome = Outcome(
            status,
            result.finished if completed is None else completed,
            received,
            result.started,
            b"",
            frames,
            header=reply.header,
            metadata=reply.metadata,
            content=reply.content,
        )
        self._update(row)
        self._remember(row)

    def failed(self, row: TaskRow, action: actions.Fail, now: float) -> None:
        """It has no result."""
        if action.reason is Reason.OVERLOADED and row.kind != STOCK:
            row.is_owed = False  # its client will submit it again
        reason = action.unmet if action.unmet is Unmet.INVALID else action.reason
        self._end(row, reason.value, action.text, now + self._offset)

    def forgotten(self, row: TaskRow, now: float) -> None:
        """Nobody waits for it any more: its client is gone."""
        if row.outcome is None:
            row.is_owed = False
            self._end(row, "aborted", "its client is gone", now + self._offset)

    def _end(self, row: TaskRow, status: str, message: str, when: float) -> None:
        row.outcome = Outcome(status, when, when, message=message)
        self._update(row)
        if row.kind == STOCK:
            self._remember(row)

    def _remember(self, row: TaskRow) -> None:
        recent = self._recent
        recent[row.msg_id] = row
        if len(recent) > MAX_RECENT:
            recent.popitem(last=False)

    # --- what it shows ---

    def published(self, payload: Payload | None, message: Published) -> None:
        """One of our engines shows something of a running stock task."""
        if payload is not None and payload.row is not None:
            self._shown(payload.row, message.what, message.content)

    def output(self, msg_id: str, what: str, content: bytes, row: TaskRow | None = None) -> None:
        """A stock engine has published something; `row` where the task has not ended. What nobody knows is left out."""
        if what not in _RECORDED:
            return
        row = row or self._recent.get(msg_id)
        if row is None:
            try:
                row = self.store.get(msg_id, buffers=False)
            except StorageError:
                return
        self._shown(row, what, content)

    def _shown(self, row: TaskRow, what: str, content: bytes) -> None:
        if what not in _RECORDED or len(content) > MAX_SHOWN:
            return
        output = row.output
        if output is None:
            output = row.output = Output()
        try:
            if what == "stream":
                stream = _decode_stream(content)
                output.write(stream.name, stream.text)
            elif what == "execute_input":
                output.execute_input = jupyter.json_of(_decode_input(content).code)
            elif what == "execute_result":
                output.execute_result = bytes(msgspec.Raw(content))
            else:
                output.error = bytes(msgspec.Raw(content))
        except msgspec.DecodeError as error:
            log.debug("%s of task %s is not recorded: %s", what, row.msg_id, error)
            return
        self._update(row)


_RECORDED: Final = frozenset({"stream", "execute_input", "execute_result", "error"})

"""Work from stock clients: mux (one engine), task (balanced), broadcast (several), each request made a task of the scheduler.

Whatever cannot be done is answered at once, because a stock client waits without limit. A request whose id is known has an answer
already, or will have: it is never executed twice.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clusterd.controller.compat import broadcast
from clusterd.controller.compat.names import find, no_engine
from clusterd.controller.compat.origin import Group, Metadata, Origin, metadata_of
from clusterd.controller.compat.task_options import TaskOptions, strings
from clusterd.controller.submits import Payload
from clusterd.core.scheduler import events
from clusterd.core.wire import jupyter
from clusterd.core.wire.messages import STOCK, Submit
from clusterd.core.wire.session import payload_digest
from clusterd.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.controller.compat.arrears import Arrears
    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.compat.engines import Engines
    from clusterd.controller.compat.replies import Replies
    from clusterd.controller.compat.sessions import Session, Sessions
    from clusterd.controller.peers import Engine
    from clusterd.storage.taskstore.row import TaskRow

log = logging.getLogger(__name__)
REQUESTS: Final = frozenset({"apply_request", "execute_request"})
COMMS: Final = frozenset({"comm_open", "comm_msg", "comm_close"})
"""Messages to a comm in an engine, which nobody answers."""
MAX_BUFFERS: Final = 1000
"""Of one message: the native link to an engine takes 1,024 frames."""
MAX_BODY: Final = 8 * 1024**2
"""Bytes of the four dictionaries: they travel in a native header, which may have 16 MiB."""
MAX_BYTES: Final = 2 * 1024**3 - 64 * 1024**2
MAX_PARKED: Final = 10_000
LOOK_SECONDS: Final = 0.02
MAX_LABEL: Final = 256
_HASHED_BYTES: Final = 64 * 1024
"""Of a function, for the key of its run times."""


class _Cell(msgspec.Struct):
    silent: Any = False
    stop_on_error: Any = True


_decode_cell = msgspec.json.Decoder(_Cell).decode


class Intake:
    """The ways in for work.

    Args:
        edge, sessions, replies, engines: parts of the edge.
    """

    def __init__(self, edge: Edge, sessions: Sessions, replies: Replies, engines: Engines) -> None:
        self._edge = edge
        self._sessions = sessions
        self._replies = replies
        self._engines = engines
        # By wire id: all and only requests for one engine that have no answer, oldest first.
        self.direct: dict[int, dict[bytes, Origin]] = {}
        # By the engine's name, in order: requests for engines of the controller before this one; and how many in all.
        self._parked: dict[bytes, list[tuple[Session, Origin, jupyter.Message]]] = {}
        self._parked_count = 0
        self._looked_at = 0.0
        # What is owed to clients; None where nothing is durable.
        self.arrears: Arrears | None = None
        edge.listen_to_messages("mux", self._mux, identities=2)
        edge.listen_to_messages("task", self._task, identities=1)
        edge.listen_to_messages("broadcast", self._broadcast, identities=1)

    def ended(self, task: bytes, origin: Origin, raised: Payload | None, now: float) -> None:
        """A task has its answer; `raised`: its request, where that is an exception."""
        queue = self.direct.get(origin.target)
        if queue is None:
            return
        queue.pop(task, None)
        if not queue:
            del self.direct[origin.target]
        elif (
            raised is not None
            and origin.msg_type == "execute_request"
            and _stops_others(jupyter.unpack_request(raised.body).content)
        ):
            stopped = [queued for queued, other in queue.items() if other.msg_type == "execute_request"]
            if stopped:
                self._edge.tasks.handle(events.AbortRequested(None, tuple(stopped)), now)

    def _heard(self, header: jupyter.Header, channel: str, route: bytes, now: float) -> Session:
        session = self._sessions.heard(header, now)
        if self.arrears is not None:
            self.arrears.spoke(session, channel, route)
        return session

    # --- one engine ---

    def _mux(self, message: jupyter.Message, header: jupyter.Header, now: float) -> None:
        route, name = message.identities
        engine = find(self._edge.hub, name)
        session = self._heard(header, "mux", route, now)
        if header.msg_type not in REQUESTS:
            if engine is not None and engine.door is not None:
                self._engines.pass_on(engine, message, header, now)
            elif engine is not None and header.msg_type in COMMS:
                origin = Origin("comm", route, message.header, header, Metadata(), engine.id, name)
                self._accept(session, origin, message, message.metadata, engine.id, now)
            return
        origin = Origin("mux", route, message.header, header, metadata_of(message.metadata), name=name)
        if name in self._parked or (engine is None and not self._edge.tasks.recovery.is_over(now)):
            if self._parked_count < MAX_PARKED:
                self._parked_count += 1
                self._parked.setdefault(name, []).append((session, origin, message))
                return
            engine = None
        self._direct(session, origin, message, engine, now)

    def _direct(
        self, session: Session, origin: Origin, message: jupyter.Message, engine: Engine | None, now: float
    ) -> None:
        if engine is None:
            self._replies.refuse(session, origin, "EngineError", no_engine(origin.name), now)
            return
        origin.target = engine.id
        self._accept(session, origin, message, message.metadata, engine.id, now)

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        return self._looked_at + LOOK_SECONDS if self._parked else None

    def tick(self, now: float) -> None:
        """Let go on what waits for engines that may come back: their clients know them, and do not know that we are new."""
        if not self._parked or now < self._looked_at + LOOK_SECONDS:
            return
        self._looked_at = now
        is_recovering = not self._edge.tasks.recovery.is_over(now)
        for name in list(self._parked):
            engine = find(self._edge.hub, name)
            if engine is not None or not is_recovering:
                parked = self._parked.pop(name)
                self._parked_count -= len(parked)
                for session, origin, message in parked:
                    self._direct(session, origin, message, engine, now)

    # --- any engine ---

    def _task(self, message: jupyter.Message, header: jupyter.Header, now: float) -> None:
        if header.msg_type not in REQUESTS:
            raise WireError(f"{header.msg_type} on task")
        session = self._heard(header, "task", message.identities[0], now)
        metadata = metadata_of(message.metadata)
        origin = Origin("task", message.identities[0], message.header, header, metadata)
        try:
            options = TaskOptions(metadata)
        except WireError as error:
            self._replies.refuse(session, origin, "InvalidDependency", str(error), now)
            return
        target: tuple[int, ...] | None = None
        if metadata.targets:
            names = strings(metadata.targets, "targets")
            engines = [find(self._edge.hub, name.encode("utf-8", "replace")) for name in names]
            target = tuple(engine.id for engine in engines if engine is not None)
            if not target:
                text = f"of its targets no engine is left: {', '.join(names)[:MAX_LABEL]}"
                self._replies.refuse(session, origin, "ImpossibleDependency", text, now)
                return
        ledger = self._edge.tasks.ledger
        aim = target if ledger is None else options.forget_ended(target, ledger.outcome)
        self._accept(session, origin, message, message.metadata, aim, now, options)

    # --- several engines ---

    def _broadcast(self, message: jupyter.Message, header: jupyter.Header, now: float) -> None:
        if header.msg_type not in REQUESTS:
            raise WireError(f"{header.msg_type} on broadcast")
        metadata = metadata_of(message.metadata)
        targets = broadcast.targets_of(metadata)
        session = self._heard(header, "broadcast", message.identities[0], now)
        whole = Origin("broadcast", message.identities[0], message.header, header, metadata)
        group = Group(whole, metadata.targets, is_coalescing=bool(metadata.is_coalescing))
        digests = self._digests(message.buffers)
        engines = [find(self._edge.hub, name.encode("utf-8", "replace")) for name, _ in targets]
        if self.arrears is not None and any(engines) and not self._trouble:
            if self.arrears.has_begun(header.msg_id) or self._is_known(jupyter.task_id(header.msg_id), whole):
                self._edge.counters["repeated"] += 1
                return
            self.arrears.begin(group, message, [-1 if engine is None else engine.id for engine in engines])
        copies = broadcast.copies(message, header, group, targets, metadata)
        for (origin, narrowed), engine in zip(copies, engines, strict=True):
            if engine is None:
                self._replies.refuse(session, origin, "EngineError", no_engine(origin.name), now)
                continue
            origin.target = engine.id
            self._accept(session, origin, message, narrowed, engine.id, now, digests=digests)

    # --- what is run once more ---

    def resubmit(self, session: Session, header: bytes, content: bytes, buffers: Sequence[Any], now: float) -> None:
        """Run a recorded request once more, as balanced work without options; its result goes into its record alone."""
        message = jupyter.Message((), b"", header, jupyter.EMPTY, jupyter.EMPTY, content, buffers)
        origin = Origin("hub", b"", header, jupyter.header_of(header), Metadata())
        self._accept(session, origin, message, jupyter.EMPTY, None, now)

    # --- all of them ---

    def _accept(
        self,
        session: Session,
        origin: Origin,
        message: jupyter.Message,
        metadata: bytes,
        target: int | tuple[int, ...] | None,
        now: float,
        options: TaskOptions | None = None,
        digests: Sequence[bytes] | None = None,
    ) -> None:
        task = jupyter.task_id(origin.msg_id)
        tasks = self._edge.tasks
        if self._is_known(task, origin):
            self._edge.counters["repeated"] += 1
            if self.arrears is not None and origin.group is not None and origin.group.row is not None:
                self.arrears.part_ended(session, origin.group)
            return
        buffers = message.buffers
        body = jupyter.pack_request(jupyter.Request(origin.header, message.parent, metadata, message.content))
        size = len(body) + sum(map(len, buffers))
        if len(buffers) > MAX_BUFFERS or len(body) > MAX_BODY or size > MAX_BYTES:
            text = f"a request of {size} bytes in {len(buffers)} buffers and a header of {len(body)} bytes is too large; send less at once"
            self._replies.refuse(session, origin, "EngineError", text, now)
            return
        trouble = self._trouble
        if trouble:
            text = f"the controller cannot write it down: {trouble}; submit it again when that is over"
            self._replies.refuse(session, origin, "StorageError", text, now)
            return
        client = session.client
        submit = Submit(task, STOCK, b"", None, body, len(buffers))
        is_unwanted = bool(client.unwanted) and client.unwanted.pop(task, ...) is None
        event = _event(task, session, origin, message.content, buffers, size, target, options)
        if options is not None and tasks.ledger is not None and tasks.ledger.defers(options.needs):
            tasks.ledger.defer(submit, buffers, client, target, origin, now)
            return
        session.tasks += 1
        if origin.target >= 0:
            self.direct.setdefault(origin.target, {})[task] = origin
        tasks.accept(
            client, submit, buffers, event, origin, now, self._digests(buffers) if digests is None else digests
        )
        if is_unwanted:
            # Its abort came by another socket, before it. Others may depend on it: it is a task that ended.
            tasks.handle(events.AbortRequested(client.handle, (task,)), now)

    @property
    def _trouble(self) -> str:
        ledger = self._edge.tasks.ledger
        return "" if ledger is None else ledger.gate.trouble

    def _is_known(self, task: bytes, origin: Origin) -> bool:
        tasks = self._edge.tasks
        if task in tasks.payloads or tasks.scheduler.record(task) is not None:
            return True
        ledger = tasks.ledger
        # What an earlier controller was sent may be played again: this one has not seen its signature.
        return ledger is not None and ledger.knows(task, origin.msg_id, jupyter.seconds_of(origin.date))

    def take_up(
        self,
        session: Session,
        origin: Origin,
        task: bytes,
        row: TaskRow,
        buffers: Sequence[Any],
        target: int | tuple[int, ...] | None,
        outcome_of: Callable[[bytes], TaskRow | None],
        now: float,
    ) -> None:
        """Give the scheduler a task that an earlier controller has taken."""
        options: TaskOptions | None = None
        if origin.channel == "task":
            options = TaskOptions(metadata_of(row.metadata))
            target = options.forget_ended(target, outcome_of)
        tasks, client = self._edge.tasks, session.client
        body = jupyter.pack_request(jupyter.Request(row.header, jupyter.EMPTY, row.metadata, row.content))
        size = len(body) + sum(map(len, buffers))
        event = _event(task, session, origin, row.content, buffers, size, target, options)
        if row.engine_id >= 0:
            event = msgspec.structs.replace(event, attempt=row.attempt + 1)
        submit = Submit(task, STOCK, b"", None, body, len(buffers))
        payload = Payload(submit, client.handle, buffers, self._digests(buffers), origin)
        payload.row = row
        session.tasks += 1
        if origin.target >= 0:
            self.direct.setdefault(origin.target, {})[task] = origin
        tasks.payloads[task] = payload
        tasks.handle(event, now)
        if client.unwanted.pop(task, ...) is None:
            tasks.handle(events.AbortRequested(client.handle, (task,)), now)

    def _digests(self, buffers: Sequence[Any]) -> Sequence[bytes]:
        return [payload_digest(frame) for frame in buffers] if self._edge.has_digests else ()


def _event(
    task: bytes,
    session: Session,
    origin: Origin,
    content: bytes,
    buffers: Sequence[Any],
    size: int,
    target: int | tuple[int, ...] | None,
    options: TaskOptions | None,
) -> events.TaskSubmitted:
    """What the scheduler is told of a task."""
    label = origin.metadata.label
    return events.TaskSubmitted(
        task,
        session.client.handle,
        _function_of(task, content, buffers),
        size + (options.size if options is not None else 0),
        target,
        options.retries if options is not None else 0,
        None,
        label[:MAX_LABEL] if isinstance(label, str) else "",
        options.after if options is not None else None,
        options.follow if options is not None else None,
        max_wait=options.timeout if options is not None else None,
    )


def _function_of(task: bytes, content: bytes, buffers: Sequence[Any]) -> bytes:
    """What its run time is remembered by."""
    if buffers:
        key = buffers[0]
    elif _stops_others(content):
        # Nothing is put behind a task of unknown run time: what is to be aborted when this cell raises must not be there already.
        key = task
    else:
        key = content
    return hashlib.blake2b(key[:_HASHED_BYTES], digest_size=16).digest()


def _stops_others(data: bytes) -> bool:
    """A cell that raises ends those that wait behind it, unless its client wants it otherwise; `data` is its content."""
    try:
        content = _decode_cell(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return not content.silent and bool(content.stop_on_error)

"""Stock engines as peers of the hub: work goes out to them, replies come back as native results.

All work goes by one of the three sockets that an engine's ROUTER is connected to: so it arrives in the order in which it was given out. In
front of each message stands a word of ours, which an engine repeats in front of its reply (stock engines treat what stands
there as opaque): it names task and attempt. What clients sent is passed on byte by byte, and signed as they did.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clusterd.controller.compat import errand
from clusterd.controller.compat.commands import Commands
from clusterd.controller.compat.keys import MARK_SIZE
from clusterd.controller.compat.registration import Registration
from clusterd.controller.compat.results import again, result_of
from clusterd.controller.dispatch import MAX_TOLD
from clusterd.core.wire import jupyter
from clusterd.core.wire.messages import STOCK, NotRun, Result
from clusterd.core.wire.session import payload_digest
from clusterd.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.compat.output import Output
    from clusterd.controller.peers import Engine
    from clusterd.controller.submits import Payload
    from clusterd.core.scheduler import actions

# First byte of the word in front of a message: what comes back under it is the reply to a stock task, something for the client
# whose key and routing id follow, or the reply to a native task; `commands` has one more.
TASK: Final = b"\1"
FORWARDED: Final = b"\2"
ERRAND: Final = b"\4"
ASKED: Final = b"\5"
"""Comes back when all is done that was sent before."""
RETRY_SECONDS: Final = 0.01
_SOCKETS: Final = ("mux_engine", "control_engine")
MAX_UNSENT: Final = 10_000


class Parent(msgspec.Struct):
    """Of the header of what a message belongs to; some say `{}`, and it is no header then."""

    msg_id: str = ""
    session: str = ""


_decode_parent = msgspec.json.Decoder(Parent).decode


class Engines:
    """All stock engines, and the door to them.

    Args:
        edge: what the parts of the edge share.
        output: takes what they publish.
    """

    def __init__(self, edge: Edge, output: Output) -> None:
        self._edge = edge
        self._output = output
        self._registration = Registration(edge, self)
        self._commands = Commands(edge)
        # By socket and engine: what could not be sent yet.
        self._unsent: dict[tuple[str, bytes], deque[list[Any]]] = {}
        self._next_try = 0.0
        # Outcomes that were found while the scheduler was being obeyed: it is told in the next turn. By engine's id.
        self._later: list[tuple[int, Result]] = []
        # By name: what engines of an earlier controller are asked about.
        self._asked: dict[bytes, tuple[tuple[bytes, int], ...]] = {}
        edge.listen("mux_engine", self._reply)
        edge.listen("task_engine", self._reply)
        edge.listen("broadcast_engine", self._reply)
        edge.listen("control_engine", self._control_reply)
        edge.listen("iopub_engine", self._published)

    def registration(self, message: jupyter.Message, header: jupyter.Header, now: float) -> None:
        """Somebody registers an engine, or unregisters it."""
        if header.msg_type == "registration_request":
            self._registration.request(message, now)
        else:
            self._registration.unregister(message, now)

    @property
    def known(self) -> dict[str, int]:
        """Names and ids of all that are there, or may come back: what a successor is to `expect`."""
        return self._registration.known

    @property
    def names(self) -> set[bytes]:
        """Names of all that are there, are about to be, or may come back."""
        return self._registration.names

    def expect(self, known: Mapping[str, int]) -> None:
        """Take back engines of an earlier controller when they beat: they do not register again."""
        self._registration.expect(known)

    # --- doors.EngineDoor ---

    def dispatch(self, engine: Engine, action: actions.Dispatch, payload: Payload, now: float) -> None:
        """See `doors.EngineDoor`."""
        if self._edge.gate is None:
            self._dispatch(engine, action, payload, now)
        else:
            self._edge.say("a task", lambda: self._dispatch(engine, action, payload, self._edge.operations.now))

    def _dispatch(self, engine: Engine, action: actions.Dispatch, payload: Payload, now: float) -> None:
        if self._edge.hub.engines.get(engine.uuid) is not engine:
            return  # lost since: what becomes of its work is decided
        if payload.kind != STOCK:
            self._send_errand(engine, action.task, action.attempt, payload, now)
            return
        word = TASK + action.attempt.to_bytes(4, "big") + action.task
        request = jupyter.unpack_request(payload.body)
        header = request.header
        if action.attempt:
            header = again(header, action.attempt)
        signer = self._edge.keys.of_engine(engine.uuid)
        frames = self._edge.sealed(header, request.parent, request.metadata, request.content, signer)
        self._send("mux_engine", engine.uuid, [engine.uuid, word, *frames, *payload.frames], now)

    def _send_errand(self, engine: Engine, task: bytes, attempt: int, payload: Payload, now: float) -> None:
        stored = None
        if payload.function and payload.function not in engine.functions:
            stored = self._edge.tasks.functions.get(payload.function)
            if len(engine.functions) >= MAX_TOLD:
                engine.functions.clear()
            engine.functions.add(payload.function)
        header, msg_id = self._edge.new_header("apply_request", time.time())
        try:
            buffers = errand.buffers_of(payload, stored, engine.name, msg_id)
        except WireError as error:
            self._later.append((engine.id, errand.refused(task, attempt, engine.name, error)))
            return
        word = ERRAND + attempt.to_bytes(4, "big") + task
        signer = self._edge.keys.of_engine(engine.uuid)
        frames = self._edge.sealed(header, jupyter.EMPTY, jupyter.EMPTY, jupyter.EMPTY, signer)
        self._send("mux_engine", engine.uuid, [engine.uuid, word, *frames, *buffers], now)

    def ask(self, engine: Engine, held: tuple[tuple[bytes, int], ...], now: float) -> None:
        """See `doors.EngineDoor`. An engine answers in order: what it has not sent before this answer it will never send."""
        self._asked[engine.uuid] = held
        header = self._edge.header("kernel_info_request", time.time())
        signer = self._edge.keys.of_engine(engine.uuid)
        frames = self._edge.sealed(header, jupyter.EMPTY, jupyter.EMPTY, jupyter.EMPTY, signer)
        self._send("mux_engine", engine.uuid, [engine.uuid, ASKED, *frames], now)

    def command(self, engine: Engine, command: str, number: int) -> str:
        """See `doors.EngineDoor`."""
        problem = self._commands.give(engine, command, number, self._edge.operations.now)
        if not problem and command in {"stop", "kill"}:
            self._registration.told_to_end(engine, f"a request to {command} it")
        return problem

    def lost(self, engine: Engine, now: float) -> None:
        """See `doors.EngineDoor`."""
        del now
        for socket in _SOCKETS:
            self._unsent.pop((socket, engine.uuid), None)
        self._asked.pop(engine.uuid, None)
        self._commands.forget(engine)
        self._registration.lost(engine)

    # --- for the client side ---

    def pass_on(self, engine: Engine, message: jupyter.Message, header: jupyter.Header, now: float) -> None:
        """Pass on, unchanged, what came on mux and is no task: comms, of which nothing comes back by this way."""
        del header
        self._forward("mux_engine", engine, message, now)

    def control(self, engine: Engine, message: jupyter.Message, header: jupyter.Header, now: float) -> None:
        """Pass on, unchanged, a control request to an engine that has this door; its reply finds the client by itself."""
        if header.msg_type == "shutdown_request":
            self._registration.told_to_end(engine, "a client's request to shut down")
        self._forward("control_engine", engine, message, now)

    def _forward(self, socket: str, engine: Engine, message: jupyter.Message, now: float) -> None:
        if engine.door is self:
            keys = self._edge.keys
            word = FORWARDED + keys.mark_of(self._edge.heard_with) + message.identities[0]
            frames = self._edge.relayed(message, keys.of_engine(engine.uuid))
            self._send(socket, engine.uuid, [engine.uuid, word, *frames], now)

    # --- keys ---

    def refuse(self, names: Iterable[bytes], now: float) -> None:
        """The key that these have is not accepted any more: they are lost, and cannot come back."""
        for name in names:
            self._registration.refuse(name, now)

    # --- sending ---

    def _send(self, socket: str, name: bytes, frames: list[Any], now: float) -> None:
        waiting = self._unsent.get((socket, name))
        if waiting is None:
            try:
                if self._edge.sockets.send(socket, frames):
                    return
            except ConnectionError:
                pass  # It has beaten, but this connection is not there yet, or it is being made anew.
            waiting = self._unsent[socket, name] = deque()
            self._next_try = now + RETRY_SECONDS
        if len(waiting) < MAX_UNSENT:
            waiting.append(frames)
        else:
            self._edge.counters["unsent"] += 1

    def _try_again(self, socket: str, name: bytes) -> None:
        waiting = self._unsent[socket, name]
        while waiting:
            try:
                if not self._edge.sockets.send(socket, waiting[0]):
                    return
            except ConnectionError:
                return
            waiting.popleft()
        del self._unsent[socket, name]

    # --- receiving ---

    def _reply(self, frames: list[bytes], now: float) -> None:
        message = self._edge.open(frames)
        if message is None:
            return
        name, word = _route(message.identities)
        engine = self._edge.hub.engines.get(name)
        if engine is None:
            self._registration.spoke(name, now)
            engine = self._edge.hub.engines.get(name)
        if engine is None or engine.door is not self:
            self._edge.counters["strangers"] += (
                1  # late, of one that is lost: its work is done elsewhere, or was failed
            )
            return
        engine.last_heard = now
        if word[:1] == FORWARDED:
            self._back("mux", word, name, message)
            return
        if word == ASKED:
            not_run = [NotRun(task, attempt, "dropped") for task, attempt in self._asked.pop(name, ())]
            self._edge.tasks.receive_engine(engine, not_run, (), None, now)
            return
        if word[:1] not in {TASK, ERRAND} or len(word) < 6:
            raise WireError("a reply to nothing that was sent")
        attempt, task = int.from_bytes(word[1:5], "big"), word[5:]
        if word[:1] == ERRAND:
            self._errand_done(engine, task, attempt, message, now)
            return
        tasks = self._edge.tasks
        result = result_of(task, attempt, message, tasks.payloads.get(task))
        tasks.receive_engine(engine, [result], message.buffers if result.frames else (), None, now)

    def _errand_done(self, engine: Engine, task: bytes, attempt: int, message: jupyter.Message, now: float) -> None:
        frames: Sequence[Any] = ()
        result: Result | NotRun | None
        try:
            result, frames = errand.result_of(task, attempt, engine.name, message)
        except WireError as error:
            result = errand.refused(task, attempt, engine.name, error)
        if result is not None:
            digests = [payload_digest(frame) for frame in frames] if self._edge.has_digests else None
            self._edge.tasks.receive_engine(engine, [result], frames, digests, now)
            return
        payload = self._edge.tasks.payloads.get(task)
        if payload is not None:
            engine.functions.discard(payload.function)
            self._send_errand(engine, task, attempt, payload, now)

    def _control_reply(self, frames: list[bytes], now: float) -> None:
        at = frames.index(jupyter.DELIMITER) if jupyter.DELIMITER in frames else 0
        name, word = _route(frames[:at])
        engine = self._edge.hub.engines.get(name)
        if engine is not None:
            engine.last_heard = now
        message = self._edge.open(frames)
        if message is None:
            return
        if word[:1] == FORWARDED:
            self._back("control", word, name, message)
        else:
            self._commands.answered(name, message)

    def _back(self, channel: str, word: bytes, name: bytes, message: jupyter.Message) -> None:
        signer = self._edge.keys.marked(word[1 : 1 + MARK_SIZE])
        if signer is None:
            self._edge.counters["old_key"] += 1
            return
        try:
            frames = self._edge.relayed(message, signer)
            is_sent = self._edge.sockets.send(channel, [word[1 + MARK_SIZE :], name, *frames])
        except ConnectionError:
            is_sent = False
        if not is_sent:
            self._edge.counters["client_gone"] += 1

    def _published(self, frames: list[bytes], now: float) -> None:
        message = self._edge.open(frames)
        if message is None:
            return
        header = jupyter.header_of(message.header)
        if header.msg_type == "iopub_welcome":
            self._registration.heard(header.session.encode("utf-8", "replace"), now)
        if header.msg_type == "shutdown_reply":
            engine = self._edge.hub.engines.get(header.session.encode("utf-8", "replace"))
            if engine is not None and engine.door is self:
                self._registration.left(engine, "it shut down", now)
        session: str | None = None
        if message.parent != jupyter.EMPTY:
            try:
                parent = _decode_parent(message.parent)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise WireError(f"parent header: {error}") from error
            if parent.session == self._edge.session:
                return  # of a native task or a command of ours: no stock client waits for it
            session = parent.session
            self._record(parent.msg_id, header.msg_type, message.content)
        self._output.relay(message, session)

    def _record(self, msg_id: str, what: str, content: bytes) -> None:
        recorder = self._edge.tasks.recorder
        if recorder is not None and msg_id:
            payload = self._edge.tasks.payloads.get(jupyter.task_id(msg_id))
            recorder.output(msg_id, what, content, payload.row if payload is not None else None)

    # --- time ---

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        if self._later:
            return 0.0
        due = self._registration.next_deadline()
        stops = self._commands.next_deadline()
        if stops is not None:
            due = min(due, stops)
        return min(due, self._next_try) if self._unsent else due

    def tick(self, now: float) -> None:
        """Let time pass."""
        later, self._later = self._later, []
        for wire_id, result in later:
            engine = self._edge.hub.engines_by_id.get(wire_id)
            if engine is not None:
                self._edge.tasks.receive_engine(engine, [result], (), None, now)
        if self._unsent and now >= self._next_try:
            self._next_try = now + RETRY_SECONDS
            for socket, name in list(self._unsent):
                self._try_again(socket, name)
        self._commands.tick(now)
        self._registration.tick(now)

    def close(self, now: float) -> None:
        """Nothing: engines are not told of the end of a controller, which may come back; its pings just cease."""


def _route(identities: Sequence[bytes]) -> tuple[bytes, bytes]:
    if len(identities) != 2 or not identities[1]:
        raise WireError(
            f"{len(identities)} frames before the delimiter, where the engine's name and a word of ours belong"
        )
    return identities[0], identities[1]

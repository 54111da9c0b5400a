"""The door through which outcomes of tasks reach stock clients: as replies, with errors under the names that clients know.

A reply from a stock engine keeps its header; for ours it is made here. Invariant: each task that was accepted gets one reply, with one
exception: work that was sent to an engine which has left. A client fails that itself at the notification, and takes a reply for a
stranger.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from clusterd.controller.compat import broadcast
from clusterd.controller.compat.names import name_of
from clusterd.core.model.task import Reason, Unmet
from clusterd.core.wire import jupyter
from clusterd.core.wire.messages import STATUS_ERROR, STATUS_OK, STOCK
from clusterd.core.wire.session import check_payload
from clusterd.errors import ClusterdError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.controller.compat.announcements import Announcements
    from clusterd.controller.compat.arrears import Arrears
    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.compat.origin import Echo, Group, Origin
    from clusterd.controller.compat.outbox import Outbox
    from clusterd.controller.compat.output import Output
    from clusterd.controller.compat.sessions import Session, Sessions
    from clusterd.controller.peers import Client
    from clusterd.controller.submits import Payload
    from clusterd.core.scheduler import actions
    from clusterd.core.wire.messages import Result
    from clusterd.storage.taskstore.row import TaskRow

ABORTED: Final = {"status": "aborted"}
_ENAMES: Final = {
    Reason.ENGINE_LOST.value: "EngineError",
    Reason.TIMEOUT.value: "TaskTimeout",
    Reason.OVERLOADED.value: "Overloaded",
}
_ENAMES_OF_BALANCED: Final = {
    Unmet.INVALID.value: "InvalidDependency",
    Reason.UNSCHEDULABLE.value: "ImpossibleDependency",
}
_UNANSWERED: Final = frozenset({"hub", "comm"})
# Why it ends when that happens: it had begun there, or had not.
_OF_ITS_ENGINE: Final = frozenset({Reason.ENGINE_LOST, Reason.UNSCHEDULABLE})


def error_content(ename: str, evalue: str) -> dict[str, Any]:
    """The content of an error that no engine made: an empty `engine_info` says that no output will come either."""
    return {"status": "error", "ename": ename, "evalue": evalue, "traceback": [f"{ename}: {evalue}"], "engine_info": {}}


def failure_of(reason: str, text: str, channel: str, msg_id: str, engine: str) -> tuple[dict[str, Any], str]:
    """(content, status) of the reply for a task that has no result; `reason` as its record has it."""
    if reason == Reason.ABORTED.value:
        return ABORTED, "aborted"
    ename = _ENAMES.get(reason, "EngineError")
    if channel == "task":
        ename = _ENAMES_OF_BALANCED.get(reason, ename)
    if reason == Reason.ENGINE_LOST.value:
        text = f"Engine {engine!r} died while running task {msg_id!r}: {text}"
    return error_content(ename, text), "error"


def metadata_of_ours(echo: Echo, status: str, engine: str) -> dict[str, Any]:
    """The metadata of a reply of our own making; `engine` is empty where none was involved."""
    metadata: dict[str, Any] = {
        "status": status,
        "dependencies_met": True,
        "label": echo.label,
        "is_broadcast": echo.is_broadcast,
        "is_coalescing": echo.is_coalescing,
        "original_msg_id": echo.original_msg_id,
    }
    if engine:
        metadata["engine"] = engine
    return metadata


class Replies:
    """A `doors.ClientDoor`.

    Args:
        edge, outbox, output, announcements: parts of the edge.
    """

    def __init__(self, edge: Edge, outbox: Outbox, output: Output, announcements: Announcements) -> None:
        self._edge = edge
        self._announcements = announcements
        self._outbox = outbox
        self._output = output
        self.sessions: Sessions
        # Told of each task that has ended; with its request where that raised.
        self.on_ended: Callable[[bytes, Origin, Payload | None, float], None]
        # What is owed to clients; None where nothing is durable.
        self.arrears: Arrears | None = None
        # Takes the outcome of our own tasks for control requests: what went wrong, or an empty string; None: its engine has left.
        self.on_control: Callable[[Session, Origin, str | None, float], None]

    # --- doors.ClientDoor ---

    def deliver(
        self,
        client: Client,
        payload: Payload,
        action: actions.Deliver,
        result: Result,
        frames: Sequence[Any],
        digests: Sequence[bytes],
        now: float,
    ) -> None:
        """See `doors.ClientDoor`."""
        session = self.sessions.of(client)
        if session is None:
            return
        session.tasks -= 1
        origin: Origin = payload.origin
        try:
            if payload.kind != STOCK:
                self.on_control(
                    session, origin, "" if result.status == STATUS_OK else "the engine could not do it", now
                )
            elif self.arrears is not None and payload.row is not None and payload.row.is_owed:
                self._settle(self.arrears, session, payload.row, origin, action.engine, (digests, frames))
            else:
                self._deliver(session, origin, action.engine, result, frames, digests, now)
        except ClusterdError as error:
            self.refuse(session, origin, "EngineError", f"its result cannot be read: {error}", now)
        except Exception as error:  # noqa: BLE001 - the scheduler's other decisions of this turn go on
            self._edge.fail(f"the result of {origin.msg_id}", error)
        self.on_ended(action.task, origin, payload if result.status == STATUS_ERROR else None, now)

    def fail(self, client: Client, payload: Payload, action: actions.Fail, now: float) -> None:
        """See `doors.ClientDoor`."""
        session = self.sessions.of(client)
        if session is None:
            return
        session.tasks -= 1
        origin: Origin = payload.origin
        try:
            self._fail(session, payload, origin, action, now)
        except Exception as error:  # noqa: BLE001 - as above
            self._edge.fail(f"the failure of {origin.msg_id}", error)
        self.on_ended(action.task, origin, None, now)

    # --- outcomes ---

    def _deliver(
        self,
        session: Session,
        origin: Origin,
        wire_id: int,
        result: Result,
        frames: Sequence[Any],
        digests: Sequence[bytes],
        now: float,
    ) -> None:
        check_payload(list(digests), frames)
        reply = jupyter.unpack_reply(result.body)
        engine = self._edge.hub.engines_by_id.get(wire_id)
        name = origin.name.decode() if engine is None else name_of(engine)
        self._hand_over(session, origin, reply, name, result, frames, now)
        # After the reply, as ipykernel does it: a client has one thread for both, and somebody waits for the reply.
        if engine is not None and engine.door is None:
            self._output.idle(engine, origin)

    def _settle(
        self,
        arrears: Arrears,
        session: Session,
        row: TaskRow,
        origin: Origin,
        wire_id: int,
        checked: tuple[Sequence[bytes], Sequence[Any]],
    ) -> None:
        """Likewise where tasks are durable: what is sent is what was written down."""
        try:
            check_payload(list(checked[0]), checked[1])
        except ClusterdError as error:
            arrears.spoilt(row, f"its result cannot be read: {error}")
        is_said = arrears.ended(session, origin, row)
        engine = self._edge.hub.engines_by_id.get(wire_id)
        if engine is not None and engine.door is None and (is_said or origin.group is not None):
            self._edge.say("output", lambda: self._output.idle(engine, origin))

    def _hand_over(
        self,
        session: Session,
        origin: Origin,
        reply: jupyter.Reply,
        name: str,
        result: Result,
        frames: Sequence[Any],
        now: float,
    ) -> None:
        if origin.group is not None and origin.group.is_coalescing:
            self._join(session, origin, reply, frames, now, is_error=result.status != STATUS_OK)
            return
        if origin.channel in _UNANSWERED:
            return
        if reply.header:
            said = (reply.header, origin.header, reply.metadata, reply.content)
            # As the engine signed it, where both are sure to have the same key.
            is_as_signed = reply.signature and not self._edge.keys.has_changed
            signature = reply.signature if is_as_signed else session.signer.sign(*said)
            parts = [jupyter.DELIMITER, signature, *said]
        else:
            header = self._edge.header(origin.reply_type, result.finished, name)
            parts = self._edge.sealed(header, origin.header, reply.metadata, reply.content, session.signer)
        hops = [origin.route] if origin.channel == "broadcast" else [origin.route, name.encode()]
        self._outbox.send(session, origin.channel, [*hops, *parts, *frames], now)

    def _fail(self, session: Session, payload: Payload, origin: Origin, action: actions.Fail, now: float) -> None:
        name = origin.name.decode() or self._announcements.called(action.engine)
        has_left = action.reason in _OF_ITS_ENGINE and origin.target not in self._edge.hub.engines_by_id
        if payload.kind != STOCK:
            self.on_control(session, origin, None if has_left else action.text, now)
            return
        group = origin.group
        if has_left and group is not None and group.is_coalescing:
            # Its client fails the whole of it when it hears of the engine; what the others say comes later.
            group.is_mute = True
        if self.arrears is not None and payload.row is not None and payload.row.is_owed:
            self.arrears.ended(session, origin, payload.row)
            return
        if has_left and group is not None and group.is_coalescing:
            self._end_part(session, group, now)
            return
        reason = action.unmet if action.unmet is Unmet.INVALID else action.reason
        content, status = failure_of(reason.value, action.text, origin.channel, origin.msg_id, name)
        self._answer(session, origin, content, status, name, now)

    def refuse(self, session: Session, origin: Origin, ename: str, evalue: str, now: float) -> None:
        """Answer a request with an error, at once."""
        self._answer(session, origin, error_content(ename, evalue), "error", "", now)

    def _answer(
        self, session: Session, origin: Origin, content: dict[str, Any], status: str, engine: str, now: float
    ) -> None:
        metadata = jupyter.json_of(metadata_of_ours(origin.metadata, status, engine))
        if origin.group is not None and origin.group.is_coalescing:
            self._join(session, origin, jupyter.Reply(metadata, jupyter.json_of(content)), (), now, is_error=True)
            return
        self.reply(session, origin, metadata, jupyter.json_of(content), (), now)
        if origin.group is not None and origin.group.row is not None:
            self._end_part(session, origin.group, now)

    def reply(
        self, session: Session, origin: Origin, metadata: bytes, content: bytes, frames: Sequence[Any], now: float
    ) -> None:
        """Send a reply of our own making."""
        if origin.channel in _UNANSWERED:
            return
        # apply_reply also where an execute_request asked: what ipcontroller does, and what clients of all versions take.
        header = self._edge.header(origin.reply_type, time.time())
        parts = self._edge.sealed(header, origin.header, metadata, content, session.signer)
        hops = [origin.route, origin.name] if origin.name and origin.channel != "broadcast" else [origin.route]
        # A flood of requests that cannot be done is bounded by what its sender reads of the answers, and by nothing else.
        self._outbox.send(session, origin.channel, [*hops, *parts, *frames], now, is_needed=bool(frames))

    # --- coalesced broadcasts ---

    def _join(
        self,
        session: Session,
        origin: Origin,
        reply: jupyter.Reply,
        frames: Sequence[Any],
        now: float,
        *,
        is_error: bool,
    ) -> None:
        group = origin.group
        assert group is not None  # noqa: S101 - asked by the caller
        if is_error:
            group.error = group.error or (reply.metadata, reply.content)
        group.replies[origin.index] = (reply.metadata, reply.content, frames)
        self._end_part(session, group, now)

    def _end_part(self, session: Session, group: Group, now: float) -> None:
        if self.arrears is not None and group.row is not None:
            self.arrears.part_ended(session, group)
            return
        group.left -= 1
        if group.left or not group.is_coalescing or group.is_mute:
            return
        metadata, content, frames = broadcast.together(group)
        self.reply(session, group.origin, metadata, content, frames, now)

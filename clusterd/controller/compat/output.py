"""Live output, as stock clients hear it: on one PUB for all of them, each message with the request's header as its parent.

Nothing is made while nobody listens. A client waits for the reply and for `idle`, so the latter is said behind the reply of each task
that ran; `busy` only with the first thing that a task shows: it tells nobody anything else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from clusterd.controller.compat.names import name_of
from clusterd.controller.compat.origin import Origin
from clusterd.core.wire import jupyter
from clusterd.core.wire.session import check_payload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.peers import Engine
    from clusterd.core.wire.messages import Published
    from clusterd.storage.taskstore.row import TaskRow

_BUSY = b'{"execution_state":"busy"}'
_IDLE = b'{"execution_state":"idle"}'


class Output:
    """The iopub channel.

    Args:
        edge: what the parts of the edge share.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        # Subscriptions that are heard: XPUB tells of the first and of the last of each prefix.
        self._prefixes: set[bytes] = set()
        edge.listen("iopub", self._subscription)
        edge.tasks.on_published = self._published

    @property
    def is_heard(self) -> bool:
        """True while anybody listens."""
        return bool(self._prefixes)

    def _subscription(self, frames: list[bytes], _now: float) -> None:
        word = frames[0] if len(frames) == 1 else b""
        if word[:1] == b"\1":
            self._prefixes.add(word[1:])
        elif word[:1] == b"\0":
            self._prefixes.discard(word[1:])

    def relay(self, message: jupyter.Message, session: str | None) -> None:
        """Pass on what a stock engine publishes; `session`: whose task it is of, None where that is not said."""
        if self._prefixes:
            for signer in self._edge.signers_for(session):
                self._edge.sockets.send("iopub", [*message.identities, *self._edge.relayed(message, signer)])

    def idle(self, engine: Engine | None, origin: Origin) -> None:
        """Say that all output of a task has been published."""
        if self._prefixes and engine is not None:
            self._status(engine, origin, _IDLE)

    def idle_again(self, row: TaskRow) -> None:
        """Say so of a task that has ended before, wherever it ran: who heard it then takes no notice."""
        if self._prefixes:
            metadata = jupyter.json_of({"engine": row.engine})
            self._send(row.engine_id, row.engine, "status", (row.header, row.client), metadata, _IDLE, ())

    def _status(self, engine: Engine, origin: Origin, state: bytes) -> None:
        metadata = jupyter.json_of({"engine": name_of(engine)})
        self._publish(engine, "status", origin, metadata, state, ())

    def _published(
        self, engine: Engine, message: Published, frames: Sequence[Any], digests: Sequence[bytes], _now: float
    ) -> None:
        try:
            check_payload(list(digests), frames)
            payload = self._edge.tasks.payloads.get(message.task) if message.task else None
            origin = payload.origin if payload is not None else None
            if message.task and not isinstance(origin, Origin):
                return  # of a task that has ended, or of no stock client
            if not self._prefixes:
                return
            if origin is not None and not origin.has_shown:
                origin.has_shown = True
                self._status(engine, origin, _BUSY)
            self._publish(engine, message.what, origin, message.metadata, message.content, frames)
        except Exception as error:  # noqa: BLE001 - the engine's connection goes on
            self._edge.fail("output of a task", error)

    def _publish(
        self, engine: Engine, what: str, origin: Origin | None, metadata: bytes, content: bytes, frames: Sequence[Any]
    ) -> None:
        of = (jupyter.EMPTY, None) if origin is None else (origin.header, origin.session)
        self._send(engine.id, name_of(engine), what, of, metadata, content, frames)

    def _send(
        self,
        wire_id: int,
        name: str,
        what: str,
        of: tuple[bytes, str | None],
        metadata: bytes,
        content: bytes,
        frames: Sequence[Any],
    ) -> None:
        """`of`: header of the request, and its session."""
        edge = self._edge
        parent, session = of
        header = edge.header(what, time.time(), name)
        topic = f"engine.{wire_id}.{what}".encode()
        for signer in edge.signers_for(session):
            edge.sockets.send("iopub", [topic, *edge.sealed(header, parent, metadata, content, signer), *frames])

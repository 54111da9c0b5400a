"""Control requests of stock clients to single engines: clear, abort, signal, shutdown; answered while user code runs.

For our engines this is done by who can: queues are here, signals and ends are the agent's. Stock engines get the request itself, except
abort: their queue is here, too. What is not known gets no answer, as in ipyparallel.
"""

from __future__ import annotations

import itertools
import os
import signal
from typing import TYPE_CHECKING, Any, Final

from clusterd.controller.compat.names import find, no_engine
from clusterd.controller.compat.origin import Origin, metadata_of
from clusterd.controller.compat.replies import error_content, metadata_of_ours
from clusterd.core.scheduler import events
from clusterd.core.wire import jupyter
from clusterd.core.wire.messages import CLEAR, Submit

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.compat.engines import Engines
    from clusterd.controller.compat.intake import Intake
    from clusterd.controller.compat.replies import Replies
    from clusterd.controller.compat.sessions import Session, Sessions
    from clusterd.controller.peers import Engine

PICKLED_NONE: Final = b"\x80\x04N."
"""The body of a CLEAR."""
MAX_UNWANTED: Final = 100_000
"""Ids of one client that are to be aborted when they come."""


class Control:
    """The control channel.

    Args:
        edge, sessions, replies, intake, engines: parts of the edge.
    """

    def __init__(self, edge: Edge, sessions: Sessions, replies: Replies, intake: Intake, engines: Engines) -> None:
        self._edge = edge
        self._sessions = sessions
        self._replies = replies
        self._intake = intake
        self._engines = engines
        self._prefix = os.urandom(12)
        self._numbers = itertools.count()
        self._by_type: dict[str, Callable[[Session, Origin, Engine, dict[str, Any], float], None]] = {
            "clear_request": self._clear,
            "abort_request": self._abort,
            "signal_request": self._signal,
            "shutdown_request": self._shutdown,
        }
        replies.on_control = self._done
        edge.listen_to_messages("control", self._receive, identities=2)

    def _receive(self, message: jupyter.Message, header: jupyter.Header, now: float) -> None:
        route, name = message.identities
        session = self._sessions.heard(header, now)
        origin = Origin("control", route, message.header, header, metadata_of(message.metadata), name=name)
        engine = find(self._edge.hub, name)
        act = self._by_type.get(header.msg_type)
        if engine is None:
            if act is not None:
                self._refuse(session, origin, "EngineError", no_engine(name), now)
        elif engine.door is not None and header.msg_type != "abort_request":
            self._engines.control(engine, message, header, now)
        elif act is not None:
            origin.target = engine.id
            act(session, origin, engine, jupyter.dict_of(message.content, "content"), now)

    # --- what clients ask ---

    def _clear(self, session: Session, origin: Origin, engine: Engine, _content: dict[str, Any], now: float) -> None:
        task = self._prefix + next(self._numbers).to_bytes(6, "big")
        submit = Submit(task, CLEAR, b"", engine.id, PICKLED_NONE)
        event = events.TaskSubmitted(task, session.client.handle, bytes([CLEAR]), len(PICKLED_NONE), engine.id)
        session.tasks += 1
        self._edge.tasks.accept(session.client, submit, (), event, origin, now)

    def _abort(self, session: Session, origin: Origin, engine: Engine, content: dict[str, Any], now: float) -> None:
        ids = content.get("msg_ids")
        if isinstance(ids, str):
            ids = [ids]
        if not ids:
            tasks = tuple(self._intake.direct.get(engine.id, ()))
        elif isinstance(ids, list) and all(isinstance(msg_id, str) for msg_id in ids):
            tasks = tuple(task for msg_id in ids for task in self._named(session, origin, engine, msg_id))
        else:
            self._refuse(session, origin, "TypeError", "msg_ids is a list of ids, or one id", now)
            return
        if tasks:
            self._edge.tasks.handle(events.AbortRequested(None, tasks), now)
        self._answer(session, origin, {"status": "ok"}, now)

    def _named(self, session: Session, origin: Origin, engine: Engine, msg_id: str) -> list[bytes]:
        """The tasks that an id stands for on this engine; one that has not come yet is remembered."""
        tasks = self._edge.tasks
        candidates = [jupyter.task_id(msg_id), jupyter.task_id(f"{msg_id}_{origin.name.decode('ascii', 'replace')}")]
        found: list[bytes] = []
        for task in candidates:
            payload = tasks.payloads.get(task)
            of = payload.origin if payload is not None else None
            if isinstance(of, Origin) and of.target in {-1, engine.id}:
                found.append(task)
        if not found and all(tasks.scheduler.record(task) is None for task in candidates):
            unwanted = session.client.unwanted
            unwanted[candidates[0]] = None
            if len(unwanted) > MAX_UNWANTED:
                del unwanted[next(iter(unwanted))]
        return found

    def _signal(self, session: Session, origin: Origin, engine: Engine, content: dict[str, Any], now: float) -> None:
        wanted: Any = content.get("sig")
        try:
            # 0 sends nothing, and says whether the process is there.
            number = int(signal.Signals[wanted]) if isinstance(wanted, str) else int(wanted and signal.Signals(wanted))
        except (KeyError, ValueError, TypeError):
            self._refuse(session, origin, "ValueError", f"{wanted!r} is no signal", now)
            return
        self._command(session, origin, engine, "signal", number, {"status": "ok"})

    def _shutdown(self, session: Session, origin: Origin, engine: Engine, content: dict[str, Any], _now: float) -> None:
        restart = bool(content.get("restart"))
        self._command(
            session, origin, engine, "restart" if restart else "stop", 0, {"status": "ok", "restart": restart}
        )

    def _command(
        self, session: Session, origin: Origin, engine: Engine, command: str, number: int, content: dict[str, Any]
    ) -> None:
        operations = self._edge.operations

        def tell(problem: str) -> None:
            if problem:
                self._refuse(session, origin, "OSError", problem, operations.now)
            else:
                self._answer(session, origin, content, operations.now)

        operations.command(engine, command, number, tell)

    # --- answers ---

    def _done(self, session: Session, origin: Origin, problem: str | None, now: float) -> None:
        if problem is None:
            return
        if problem:
            self._refuse(session, origin, "EngineError", problem, now)
        else:
            self._answer(session, origin, {"status": "ok"}, now)

    def _refuse(self, session: Session, origin: Origin, ename: str, evalue: str, now: float) -> None:
        self._answer(session, origin, error_content(ename, evalue), now)

    def _answer(self, session: Session, origin: Origin, content: dict[str, Any], now: float) -> None:
        status = "ok" if content["status"] == "ok" else "error"
        metadata = metadata_of_ours(origin.metadata, status, origin.name.decode("ascii", "replace"))
        self._replies.reply(session, origin, jupyter.json_of(metadata), jupyter.json_of(content), (), now)

"""Stock clients: the parts that serve them, put together; and what they ask the controller itself.

Questions about tasks and queues are answered by `queries`; here is who is there, and the end of the controller.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from clusterd.controller.compat.announcements import Announcements
from clusterd.controller.compat.arrears import Arrears
from clusterd.controller.compat.control import Control
from clusterd.controller.compat.dask import DaskScheduler
from clusterd.controller.compat.intake import Intake
from clusterd.controller.compat.names import name_of
from clusterd.controller.compat.outbox import Outbox
from clusterd.controller.compat.queries import Queries, Refused
from clusterd.controller.compat.replies import Replies, error_content
from clusterd.controller.compat.sessions import Sessions
from clusterd.controller.queues import outstanding
from clusterd.core.wire import jupyter
from clusterd.core.wire.messages import STOCK, StopAsked
from clusterd.storage.taskstore.durable import DurableStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.compat.engines import Engines
    from clusterd.controller.compat.output import Output
    from clusterd.controller.compat.sessions import Session
    from clusterd.storage.taskstore.row import TaskRow

    Answer = tuple[str, dict[str, Any], list[Any]]

END_AFTER: Final = 1.0
"""Seconds between the answer to a shutdown_request and the end."""
SWEEP_SECONDS: Final = 60.0


class Clients:
    """All stock clients.

    Args:
        edge, output, engines: parts of the edge.
    """

    def __init__(self, edge: Edge, output: Output, engines: Engines) -> None:
        self._edge = edge
        self.announcements = Announcements(edge)
        self.outbox = Outbox(edge)
        self.replies = Replies(edge, self.outbox, output, self.announcements)
        self.sessions = self.replies.sessions = edge.sessions = Sessions(edge, self.replies)
        self.intake = Intake(edge, self.sessions, self.replies, engines)
        self.control = Control(edge, self.sessions, self.replies, self.intake, engines)
        self.replies.on_ended = self.intake.ended
        # What is owed to them; None where nothing is durable.
        self.arrears: Arrears | None = None
        ledger = edge.tasks.ledger
        if ledger is not None and isinstance(edge.store, DurableStore):
            self.arrears = Arrears(edge, self.outbox, output, self.sessions, self.announcements, edge.store)
            self.arrears.intake = self.intake
            self.intake.arrears = self.replies.arrears = ledger.stock = self.arrears
        self._queries = Queries(
            edge.store,
            engines=lambda: {engine.id: name_of(engine) for engine in edge.hub.notices.told()},
            outstanding=lambda: outstanding(edge.tasks),
            completed=self._completed,
            submit=self._resubmit,
        )
        # Whose question is being answered, and when it came.
        self._asking: tuple[Session, float]
        self._dask = DaskScheduler(edge.ip, is_curve=edge.is_curve)
        self._next_sweep = 0.0
        # When the controller is to end because a client asked for it, and who asked.
        self._ends_at: float | None = None
        self._ends_for = ""

    # --- questions ---

    def query(self, message: jupyter.Message, header: jupyter.Header, now: float) -> None:
        """A client asks the controller something: each question gets one answer."""
        session = self.sessions.heard(header, now)
        self._asking = (session, now)
        if header.msg_type == "become_dask_request":
            self._become_dask(session, message, now)
            return
        try:
            answer = self._answer(header, message.content, now)
        except Refused as refused:
            answer = _refusal(refused)
        self._reply(session, message, answer, now)
        if self._ends_at is not None and header.msg_type == "shutdown_request":
            self.announcements.close()

    def _reply(self, session: Session, message: jupyter.Message, answer: Answer, now: float) -> None:
        reply_type, content, buffers = answer
        parts = self._edge.sealed(
            self._edge.header(reply_type, time.time()),
            message.header,
            jupyter.EMPTY,
            jupyter.json_of(content),
            session.signer,
        )
        self.outbox.send(session, "registration", [*message.identities, *parts, *buffers], now, is_needed=False)

    def _become_dask(self, session: Session, message: jupyter.Message, now: float) -> None:
        def tell(said: dict[str, Any] | Refused) -> None:
            answer = (
                _refusal(said) if isinstance(said, Refused) else ("become_dask_reply", {"status": "ok", **said}, [])
            )
            self._reply(session, message, answer, self._edge.operations.now)

        self._dask.start(jupyter.dict_of(message.content, "content").get("scheduler_args"), tell, now)

    def _answer(self, header: jupyter.Header, content: bytes, now: float) -> Answer:
        if header.msg_type == "shutdown_request":
            if self._ends_at is None:
                self._ends_at = now + END_AFTER
                self._ends_for = header.username
            return "shutdown_reply", {"status": "ok"}, []
        if header.msg_type == "stop_distributed_request":
            self._dask.stop(now)
            return "stop_distributed_reply", {"status": "ok"}, []
        return self._queries.answer(header.msg_type, jupyter.dict_of(content, "content"))

    def _completed(self) -> Mapping[int, int]:
        recorder = self._edge.tasks.recorder
        if recorder is not None:
            return recorder.completed
        # Nothing is recorded: attempts are all that is counted.
        return {wire_id: load.completed for wire_id, load in self._edge.tasks.scheduler.queue_status().engines.items()}

    def _resubmit(self, row: TaskRow, _msg_id: str, header: bytes) -> None:
        if row.kind != STOCK or not row.is_whole:
            what = "was submitted by a client of clusterd" if row.kind != STOCK else "was too large to be kept"
            raise Refused("ValueError", f"task {row.msg_id} {what}: its request is not here to be run once more")
        session, now = self._asking
        self.intake.resubmit(session, header, row.content, row.buffers, now)

    # --- time ---

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        due = (
            self.outbox.next_deadline(),
            self.intake.next_deadline(),
            self.announcements.next_deadline(),
            self._dask.next_deadline(),
            None if self.arrears is None else self.arrears.next_deadline(),
            self._ends_at,
        )
        return min((at for at in due if at is not None), default=None)

    def tick(self, now: float) -> None:
        """Let time pass."""
        self.outbox.tick(now)
        self.intake.tick(now)
        self.announcements.tick(now)
        self._dask.tick(now)
        if self.arrears is not None:
            self.arrears.tick()
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_SECONDS
            self.sessions.tick(now)
        if self._ends_at is not None and now >= self._ends_at:
            self._ends_at = None
            self._end(f"a stock client of {self._ends_for or 'somebody'}")

    def _end(self, who: str) -> None:
        operators = self._edge.hub.notices.operators()
        for control in operators:
            # A daemon keeps this cluster: it stops it in order, and starts no other controller.
            control.say(StopAsked(who), 64)
        if not operators:
            self._edge.shut_down(f"asked to by {who}")

    def close(self, _now: float) -> None:
        """Say goodbye."""
        self._dask.close()
        self.announcements.close()


def _refusal(refused: Refused) -> Answer:
    return "hub_error", error_content(refused.ename, refused.evalue), []

"""Stock clients: the parts that serve them, put together; and what they ask the controller itself.

Questions about tasks and queues are answered by `queries`; here is who is there, and the end of the controller.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from clusterd.controller.compat.announcements import Announcements
from clusterd.controller.compat.control import Control
from clusterd.controller.compat.intake import Intake
from clusterd.controller.compat.names import name_of
from clusterd.controller.compat.outbox import Outbox
from clusterd.controller.compat.replies import Replies, error_content
from clusterd.controller.compat.sessions import Sessions
from clusterd.core.wire import jupyter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.compat.engines import Engines
    from clusterd.controller.compat.output import Output

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
        self.sessions = self.replies.sessions = Sessions(edge, self.replies)
        self.intake = Intake(edge, self.sessions, self.replies, engines)
        self.control = Control(edge, self.sessions, self.replies, self.intake, engines)
        self.replies.on_ended = self.intake.ended
        self._next_sweep = 0.0
        # When the controller is to end because a client asked for it, and who asked.
        self._ends_at: float | None = None
        self._ends_for = ""

    # --- questions ---

    def query(self, message: jupyter.Message, header: jupyter.Header, now: float) -> None:
        """A client asks the controller something: each question gets one answer."""
        session = self.sessions.heard(header, now)
        reply_type, content, buffers = self._answer(header, now)
        parts = self._edge.sealed(
            self._edge.header(reply_type, time.time()), message.header, jupyter.EMPTY, jupyter.json_of(content)
        )
        self.outbox.send(session, "registration", [*message.identities, *parts, *buffers], now, is_needed=False)
        if self._ends_at is not None and header.msg_type == "shutdown_request":
            self.announcements.close()

    def _answer(self, header: jupyter.Header, now: float) -> tuple[str, dict[str, Any], Sequence[Any]]:
        match header.msg_type:
            case "connection_request":
                engines = {str(engine.id): name_of(engine) for engine in self._edge.hub.engines_by_id.values()}
                return "connection_reply", {"status": "ok", "engines": engines}, ()
            case "shutdown_request":
                if self._ends_at is None:
                    self._ends_at = now + END_AFTER
                    self._ends_for = header.username
                return "shutdown_reply", {"status": "ok"}, ()
            case _:
                return "hub_error", error_content("KeyError", f"Bad Message Type: {header.msg_type!r}"), ()

    # --- time ---

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        due = [at for at in (self.outbox.next_deadline(), self._ends_at) if at is not None]
        return min(due, default=None)

    def tick(self, now: float) -> None:
        """Let time pass."""
        self.outbox.tick(now)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_SECONDS
            self.sessions.tick(now)
        if self._ends_at is not None and now >= self._ends_at:
            self._ends_at = None
            self._edge.shut_down(f"asked to by a stock client of {self._ends_for or 'somebody'}")

    def close(self, _now: float) -> None:
        """Say goodbye."""
        self.announcements.close()

"""Replies on their way to stock clients: sent at once where the socket takes them, else kept in order until it does.

A client that does not read costs what it has not read, up to a budget; then the scheduler is told that it is blocked, and none of its
tasks is given out until it has caught up, as with clients of our own. One that is gone costs nothing: its replies are dropped.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from clusterd.core.scheduler import events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.compat.sessions import Session

log = logging.getLogger(__name__)
RETRY_SECONDS: Final = 0.005
BLOCKED_BYTES: Final = 64 * 1024**2
"""Unread bytes of one client above which it is blocked."""
MAX_BYTES: Final = 4 * BLOCKED_BYTES
"""Above which answers to its questions are dropped, too: nothing else bounds how many it asks."""
UNBLOCKED_BYTES: Final = BLOCKED_BYTES // 4
LARGE_BYTES: Final = 64 * 1024
"""Messages from this size on are counted while ZeroMQ holds them: what it may hold of smaller ones is bounded by their number."""
MESSAGE_BYTES: Final = 512
"""What any message takes besides its buffers."""


class Outbox:
    """What goes to stock clients on ROUTER sockets.

    Args:
        edge: what the parts of the edge share.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        # All and only sessions with something that waits, or in flight, or that are blocked.
        self._busy: dict[Session, None] = {}
        # Large messages that ZeroMQ holds: (its tracker, whose, bytes).
        self._held: list[tuple[Any, Session, int]] = []
        self._next_try = 0.0

    def send(self, session: Session, channel: str, frames: list[Any], now: float, *, is_needed: bool = True) -> None:
        """Send a message; `frames` begin with the routing id. `is_needed`: a result, never dropped for want of room."""
        if not self._edge.keys.is_accepted(session.signer):
            self._edge.counters["old_key"] += 1
            return
        key = (channel, frames[0])
        size = MESSAGE_BYTES + sum(map(len, frames))
        queue = session.waiting.get(key)
        if queue is None and self._try(session, channel, frames, size):
            if session.held_bytes:
                self._look(session, now)
            return
        if not is_needed and session.waiting_bytes > MAX_BYTES:
            self._edge.counters["unread"] += 1
            return
        if queue is None:
            queue = session.waiting[key] = deque()
        queue.append((frames, size))
        session.waiting_bytes += size
        self._look(session, now)

    def _try(self, session: Session, channel: str, frames: Sequence[Any], size: int) -> bool:
        """Hand a message to its socket; True also where its client is gone."""
        if size >= LARGE_BYTES and session.held_bytes > BLOCKED_BYTES:
            return False
        try:
            if size < LARGE_BYTES:
                return self._edge.sockets.send(channel, frames)
            tracker = self._edge.sockets.send_tracked(channel, frames)
        except ConnectionError:
            self._edge.counters["client_gone"] += 1
            return True
        if tracker is None:
            return False
        self._held.append((tracker, session, size))
        self._busy[session] = None
        session.held_bytes += size
        return True

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        return self._next_try if self._busy else None

    def tick(self, now: float) -> None:
        """Try again what did not go."""
        if not self._busy or now < self._next_try:
            return
        self._next_try = now + RETRY_SECONDS
        still_held: list[tuple[Any, Session, int]] = []
        for entry in self._held:
            if entry[0].done:
                entry[1].held_bytes -= entry[2]
            else:
                still_held.append(entry)
        self._held = still_held
        for session in list(self._busy):
            for key in list(session.waiting):
                self._drain(session, key)
            self._look(session, now)
            if not session.waiting and not session.held_bytes and not session.client.is_blocked:
                del self._busy[session]

    def _drain(self, session: Session, key: tuple[str, bytes]) -> None:
        queue = session.waiting[key]
        while queue:
            frames, size = queue[0]
            if not self._try(session, key[0], frames, size):
                return
            queue.popleft()
            session.waiting_bytes -= size
        del session.waiting[key]

    def _look(self, session: Session, now: float) -> None:
        self._busy[session] = None
        client = session.client
        unread = session.waiting_bytes + session.held_bytes
        if unread > BLOCKED_BYTES and not client.is_blocked:
            client.is_blocked = True
            # Not yet a warning: one large result is on its way to a client that reads as fast as it can.
            log.info("%s has not read %d MiB of results yet: its tasks wait", client.name, unread >> 20)
            self._edge.tasks.handle(events.ResultsBlocked(client.handle), now)
        elif unread < UNBLOCKED_BYTES and client.is_blocked:
            client.is_blocked = False
            self._edge.tasks.handle(events.ResultsUnblocked(client.handle), now)

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
    from collections.abc import Callable, Sequence

    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.compat.sessions import Session

    OnEnd = Callable[[str], object]

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

    def send(
        self,
        session: Session,
        channel: str,
        frames: list[Any],
        now: float,
        *,
        is_needed: bool = True,
        on_end: OnEnd | None = None,
    ) -> None:
        """Send a message, when it may be said (`Edge.say`).

        Args:
            session: whose.
            channel: the socket.
            frames: begin with the routing id.
            now: monotonic.
            is_needed: a result, never dropped for want of room.
            on_end: told when ZeroMQ has taken it (an empty string), or why it was dropped.
        """
        if self._edge.gate is None:
            self._send(session, channel, frames, now, on_end, is_needed=is_needed)
            return

        def send() -> None:
            self._send(session, channel, frames, self._edge.operations.now, on_end, is_needed=is_needed)

        self._edge.say("a reply", send)

    def _send(
        self, session: Session, channel: str, frames: list[Any], now: float, on_end: OnEnd | None, *, is_needed: bool
    ) -> None:
        if not self._edge.keys.is_accepted(session.signer):
            self._edge.counters["old_key"] += 1
            if on_end is not None:
                on_end("its key is not accepted any more")
            return
        key = (channel, frames[0])
        size = MESSAGE_BYTES + sum(map(len, frames))
        queue = session.waiting.get(key)
        if queue is None and self._try(session, channel, frames, size, on_end):
            if session.held_bytes:
                self._look(session, now)
            return
        if not is_needed and session.waiting_bytes > MAX_BYTES:
            self._edge.counters["unread"] += 1
            if on_end is not None:
                on_end("it does not read")
            return
        if queue is None:
            queue = session.waiting[key] = deque()
        queue.append((frames, size, on_end))
        session.waiting_bytes += size
        self._look(session, now)

    def _try(self, session: Session, channel: str, frames: Sequence[Any], size: int, on_end: OnEnd | None) -> bool:
        """Hand a message to its socket; True also where its client is gone."""
        if size >= LARGE_BYTES and session.held_bytes > BLOCKED_BYTES:
            return False
        try:
            if size < LARGE_BYTES:
                is_taken = self._edge.sockets.send(channel, frames)
            else:
                tracker = self._edge.sockets.send_tracked(channel, frames)
                is_taken = tracker is not None
                if is_taken:
                    self._held.append((tracker, session, size))
                    self._busy[session] = None
                    session.held_bytes += size
        except ConnectionError:
            self._edge.counters["client_gone"] += 1
            if on_end is not None:
                on_end("it is not there")
            return True
        if is_taken and on_end is not None:
            on_end("")
        return is_taken

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
            frames, size, on_end = queue[0]
            if not self._try(session, key[0], frames, size, on_end):
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

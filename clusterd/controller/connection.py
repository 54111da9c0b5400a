"""One peer's connection to one endpoint: what is said to it, in batches, within its window, kept until it has arrived.

Invariants: what is beyond the window waits in `backlog`, in order and counted; `_unacked` holds exactly what was sealed and is not
acknowledged, where the owner asked for that. Nothing is sent on a connection that is gone; where the owner wants it back it is
kept in its place.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from clusterd.core.wire import frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.controller.endpoint import Endpoint
    from clusterd.controller.keys import Key
    from clusterd.core.wire.messages import Hello
    from clusterd.core.wire.session import Session

# Payload frames over this total end a batch: a small message behind them should not wait for all of them.
BATCH_PAYLOAD_BYTES = 4 * 1024 * 1024
# Frames of a batch: half of what a message may have. A message that would bring more begins a batch of its own.
BATCH_FRAMES = 512
# So does one that would fill a header alone.
LARGE_BODY_BYTES = frames.BATCH_HEADER_BYTES // 2
Batch = tuple[list[Any], list[Any], list[bytes], int]
"""Messages, their payload, its digests, and the bytes of all."""


class Connection:
    """One peer's connection to one endpoint, from its Hello on."""

    __slots__ = (
        "_batch",
        "_batch_digests",
        "_batch_payload",
        "_batch_size",
        "_payload_size",
        "_unacked",
        "backlog",
        "backlog_bytes",
        "endpoint",
        "is_dirty",
        "is_gone",
        "keeps_unacked",
        "key",
        "owner",
        "role",
        "routing_id",
        "session",
        "since",
    )

    def __init__(
        self, endpoint: Endpoint, routing_id: bytes, session: Session, hello: Hello, key: Key, now: float
    ) -> None:
        self.endpoint = endpoint
        self.routing_id = routing_id
        self.session = session
        self.role = hello.role
        # That its peer has in its connection file.
        self.key = key
        # Monotonic time of the Hello.
        self.since = now
        # Who attached: a Client, Engine or Agent of the hub; None until then.
        self.owner: Any = None
        # True once the peer is known to be gone, or was cut or replaced: nothing is sent any more.
        self.is_gone = False
        # Keep what is sent until it is acknowledged, so that a peer that comes back gets it again (results to clients).
        self.keeps_unacked = False
        # (seq, messages, payload, digests) sent and not acknowledged; only with keeps_unacked.
        self._unacked: deque[tuple[int, Sequence[Any], Sequence[Any], Sequence[bytes]]] = deque()
        # True while listed in endpoint.dirty.
        self.is_dirty = False
        # What is said in this turn of the loop and not yet sealed: messages, their payload, its digests.
        self._batch: list[Any] = []
        self._batch_payload: list[Any] = []
        self._batch_digests: list[bytes] = []
        self._batch_size = 0
        self._payload_size = 0
        # Batches beyond the window, oldest first, and the sum of their sizes.
        self.backlog: deque[Batch] = deque()
        self.backlog_bytes = 0

    def say(self, message: Any, size: int, payload: Sequence[Any] = (), digests: Sequence[bytes] | None = None) -> None:
        """Queue a message for the end of this turn. `size`: bytes of its body, near enough; the payload is counted here."""
        if self.is_gone and not self.keeps_unacked:
            return
        if not self.is_dirty:
            self.is_dirty = True
            self.endpoint.dirty.append(self)
        if size > LARGE_BODY_BYTES or (payload and len(self._batch_payload) + len(payload) > BATCH_FRAMES):
            self.close_batch()
        self._batch.append(message)
        self._batch_size += size + 64
        if payload:
            self._batch_payload.extend(payload)
            self._payload_size += sum(map(len, payload))
            if digests:
                self._batch_digests.extend(digests)
        if (
            self._batch_size >= frames.BATCH_HEADER_BYTES
            or self._payload_size >= BATCH_PAYLOAD_BYTES
            or len(self._batch_payload) >= BATCH_FRAMES
        ):
            self.close_batch()

    def close_batch(self) -> None:
        """Send what is queued, or put it behind the backlog; who leaves too much unread of what nobody keeps is cut."""
        if not self._batch:
            return
        size = self._batch_size + self._payload_size
        limit, gate = self.endpoint.max_unread, self.endpoint.gate
        if gate is not None:
            gate.hold(self, (self._batch, self._batch_payload, self._batch_digests, size))
        elif limit is not None and self.session.unacked_bytes > limit:
            self.endpoint.cut(self, f"it has not read {self.session.unacked_bytes} bytes")
        elif self.backlog or self.is_gone or not self.session.has_window:
            self.backlog.append((self._batch, self._batch_payload, self._batch_digests, size))
            self.backlog_bytes += size
        else:
            self.endpoint.transmit(self, self._batch, self._batch_payload, self._batch_digests)
        self._batch, self._batch_payload, self._batch_digests = [], [], []
        self._batch_size = self._payload_size = 0

    def pass_on(self, batch: Batch) -> None:
        """Send what a gate has held, or put it behind the backlog."""
        if self.backlog or not self.session.has_window:
            self.backlog.append(batch)
            self.backlog_bytes += batch[3]
        else:
            self.endpoint.transmit(self, *batch[:3])

    def say_at_once(self, message: Any) -> None:
        """Send a message that begins this connection, and waits for nothing."""
        self.endpoint.transmit(self, [message], (), ())

    def prune(self) -> None:
        """Drop what the peer has acknowledged."""
        unacked, acked = self._unacked, self.session.acked
        tell = self.endpoint.on_acknowledged
        while unacked and unacked[0][0] <= acked:
            _, messages, _, _ = unacked.popleft()
            if tell is not None:
                tell(messages)

    def remember(self, messages: Sequence[Any], payload: Sequence[Any], digests: Sequence[bytes]) -> None:
        """Keep what was just sealed."""
        self._unacked.append((self.session.sent, messages, payload, digests))

    def take_unsent(self) -> list[tuple[Sequence[Any], Sequence[Any], Sequence[bytes], int]]:
        """All that was said here and is not known to have arrived, oldest first; the connection keeps nothing of it."""
        self.prune()
        waiting: list[tuple[Sequence[Any], Sequence[Any], Sequence[bytes], int]] = [
            (messages, payload, digests, sum(map(len, payload))) for _, messages, payload, digests in self._unacked
        ]
        waiting.extend(self.backlog)
        if self._batch:
            waiting.append(
                (self._batch, self._batch_payload, self._batch_digests, self._batch_size + self._payload_size)
            )
        self._unacked.clear()
        self.backlog.clear()
        self._batch, self._batch_payload, self._batch_digests = [], [], []
        self.backlog_bytes = self._batch_size = self._payload_size = 0
        return waiting

    def inherit(self, waiting: Sequence[tuple[Sequence[Any], Sequence[Any], Sequence[bytes], int]]) -> None:
        """Send first what an earlier connection of this peer could not deliver."""
        for messages, payload, digests, size in waiting:
            self.backlog.append((list(messages), list(payload), list(digests), size))
            self.backlog_bytes += size
        self.flush_backlog()

    def flush_backlog(self) -> None:
        """Send what the window allows of what waits."""
        while self.backlog and self.session.has_window and not self.is_gone:
            messages, payload, digests, size = self.backlog.popleft()
            self.backlog_bytes -= size
            self.endpoint.transmit(self, messages, payload, digests)

"""One endpoint of the native wire: handshakes, sessions, counters, and outbound queues with a window per peer.

It verifies everything before anybody else sees it, answers what concerns the connection itself (Hello, unknown sessions), and hands
the rest to the owner. Invariants: nothing unverified changes a connection that exists; a connection without a correct
Attach is bound to nobody; what is beyond a peer's window waits here, counted, never in ZeroMQ. Whatever a peer says, and whatever
its handler makes of it, costs that peer its connection at most.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Protocol

from clusterd.controller.connection import Connection
from clusterd.controller.servers import PeerGone
from clusterd.core.wire import frames, handshake
from clusterd.core.wire.messages import Refuse
from clusterd.core.wire.session import Replayed
from clusterd.errors import AuthenticationError, LimitExceeded, VersionMismatch, WireError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Sequence

    from clusterd.controller.gate import Gate
    from clusterd.controller.keys import Key, Ring
    from clusterd.controller.servers import Server
    from clusterd.core.wire.messages import Limits
    from clusterd.errors import ClusterdError
    from clusterd.system.process import ProcessIdentity

log = logging.getLogger(__name__)
# Connections that have said Hello and nothing more: a bound for who replays Hellos.
MAX_UNATTACHED = 1024
UNATTACHED_SECONDS = 10.0


# By class of error, exactly: the name under which a dropped message is counted.
_COUNTER_OF = {
    Replayed: "replayed",
    AuthenticationError: "bad_mac",
    LimitExceeded: "oversized",
    VersionMismatch: "version",
}


class Owner(Protocol):
    """Who gets what the endpoint has verified."""

    def attach(self, connection: Connection, message: Any, now: float) -> None:
        """Handle the first message of a new connection: bind it by `connection.owner = ...`, or raise Refused."""

    def receive(
        self, connection: Connection, messages: list[Any], payload: list[Any], digests: list[bytes] | None, now: float
    ) -> None:
        """Handle messages of an attached peer; raise WireError for nonsense: what came before it counts, the connection ends."""

    def disconnected(self, connection: Connection, reason: str, now: float) -> None:
        """Handle the end of an attached connection. Never called from within `say`."""


class Endpoint:
    """One of the controller's four sockets.

    Args:
        server: that listens.
        name: client-data, client-control, engine-data or engine-control.
        keys: the HMAC keys of this side.
        controller: incarnation of this controller.
        cluster: its name.
        limits: what peers are told and held to.
        has_digests: the link is neither a private Unix socket nor CURVE.
        owner: who gets the messages.
        counters: by kind, what is dropped; shared with the server.
        acks_when_flushed: acknowledge nothing before `flush`: until then what follows from a message is on its way to nobody.
        max_unread: a peer that leaves more bytes than this unread is cut (control: it asks anew when it is back); None: never, what it
            does not read is kept (data).
        gate: holds back what is said and acknowledged here until it may leave; None: nothing is held.

    Attributes:
        on_acknowledged: told of messages that were kept, and that their peer has acknowledged.
    """

    def __init__(
        self,
        server: Server,
        name: str,
        *,
        keys: Ring,
        controller: bytes,
        cluster: str,
        limits: Limits,
        has_digests: bool,
        owner: Owner,
        counters: Counter[str],
        acks_when_flushed: bool = False,
        max_unread: int | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._server = server
        self.tells_of_ends = server.tells_of_ends
        self.name = name
        self._keys = keys
        self._controller = controller
        self._cluster = cluster
        self._limits = limits
        self._has_digests = has_digests
        self._owner = owner
        # By routing id: all and only connections that have said a correct Hello and are not known to be gone.
        self.connections: dict[bytes, Connection] = {}
        # Those of them without an owner, oldest first (dicts keep order).
        self._unattached: dict[bytes, Connection] = {}
        # Connections with something to send at the end of this turn.
        self.dirty: list[Connection] = []
        self._acks_when_flushed = acks_when_flushed or gate is not None
        self.gate = gate
        self.on_acknowledged: Callable[[Sequence[Any]], None] | None = None
        # Connections that brought something in this turn, where that is not acknowledged yet.
        self.heard: list[Connection] = []
        # Connections that are owed a bare acknowledgement when nothing else carries it, in order of `_ack_due`.
        self._owed: dict[bytes, float] = {}
        # Since when the first of them may be owed; None when none is.
        self.owed_since: float | None = None
        # Connections that ended while something was sent to them, with the reason; their owners have not been told.
        self.ended: list[tuple[Connection, str]] = []
        self.max_unread = max_unread
        # Monotonic time of the last `receive`.
        self._now = 0.0
        # How often each kind of bad message was dropped (PROTOCOL.md section 10).
        self.counters = counters

    def pollable(self) -> Any:
        """What the loop polls."""
        return self._server.pollable()

    # --- receiving ---

    def receive(self, now: float) -> None:
        """Take up to a burst of messages from the server."""
        self._now = now
        self._take_all(self._server.receive(), now)

    def hear_out(self, connection: Connection, now: float) -> None:
        """Take all that has arrived on one connection, whose peer is known to be dead."""
        self._now = now
        self._take_all(self._server.drain(connection.routing_id), now)

    def _take_all(self, arrived: Iterator[tuple[bytes, list[Any] | None, str]], now: float) -> None:
        for peer, parts, why in arrived:
            if parts is None:
                self._lost(peer, why, now)
            else:
                self._take(peer, parts, now)

    def _take(self, routing_id: bytes, parts: list[Any], now: float) -> None:
        connection = self.connections.get(routing_id)
        try:
            mac, header, payload = frames.split(parts, self._limits)
            if connection is None:
                self._greet(routing_id, mac, header, payload, now)
                return
            content = connection.session.open(mac, header, payload)
        except WireError as error:
            self.counters[_COUNTER_OF.get(type(error), "malformed")] += 1
            if connection is not None and connection.session.is_broken:
                self._reset(connection, bytes(parts[0]), f"it sent an unusable message: {error.message}", now)
            return
        if self._acks_when_flushed:
            self.heard.append(connection)
        try:
            self._deal(connection, content.messages, payload, content.digests, now)
        except WireError as error:
            # Signed, well-formed, and nonsense.
            self.counters["malformed"] += 1
            self._reset(connection, mac, f"it sent nonsense: {error.message}", now)
        except Exception:
            # A bug of ours. To end here would leave everybody without a controller, and again when the same message is sent again.
            log.exception("failed at a message of %s", connection.owner.name if connection.owner else connection.role)
            self.counters["failed"] += 1
            self._reset(connection, mac, "its message could not be handled: see the controller's log", now)

    def _deal(
        self, connection: Connection, messages: list[Any], payload: Any, digests: list[bytes] | None, now: float
    ) -> None:
        session = connection.session
        if session.owes_ack:
            if session.must_ack:
                self._mark_dirty(connection)
            else:
                self._owe(connection.routing_id, now)
        if connection.keeps_unacked:
            connection.prune()
        if connection.backlog:
            connection.flush_backlog()
        if connection.owner is not None:
            self._owner.receive(connection, messages, payload, digests, now)
        elif messages:
            self._attach(connection, messages, payload, digests, now)

    def _attach(
        self, connection: Connection, messages: list[Any], payload: Any, digests: list[bytes] | None, now: float
    ) -> None:
        try:
            self._owner.attach(connection, messages[0], now)
        except handshake.Refused as error:
            self.counters["impostor" if error.code == "token" else "malformed"] += 1
            self.transmit(connection, [Refuse(b"", error.code, error.message, error.hint)], (), ())
            self.forget(connection)
            return
        self._unattached.pop(connection.routing_id, None)
        if len(messages) > 1:
            self._owner.receive(connection, messages[1:], payload, digests, now)

    def _greet(self, routing_id: bytes, mac: bytes, header: bytes, payload: Sequence[Any], now: float) -> None:
        # A session message has seq > 0 and is not signed with the static key: it cannot pass for a Hello.
        key = self._keys.of(mac, header)
        if key is None:
            if not _looks_like_session(header):
                raise AuthenticationError("wrong signature")
            # Its mac cannot be checked here, so the answer must be worth nothing to an attacker: it echoes 32 bytes and is
            # believed only by who sent exactly these.
            self.counters["unknown_session"] += 1
            self._send(routing_id, handshake.reset(self._keys.present.value, mac))
            self._server.drop(routing_id)
            return
        try:
            hello = handshake.read_hello(key.value, self.name, mac, header)
        except VersionMismatch as error:
            self._refuse(routing_id, key, error.hello.nonce, error)  # type: ignore[attr-defined]
            raise
        if payload:
            raise WireError("a Hello has no payload")
        if not key.is_accepted:
            self.counters["old_key"] += 1
            self._refuse(routing_id, key, hello.nonce, key.refusal())
            return
        greeting, session = handshake.welcome(
            key.value,
            hello,
            challenge=os.urandom(handshake.NONCE_SIZE),
            controller=self._controller,
            cluster=self._cluster,
            limits=self._limits,
            has_digests=self._has_digests,
        )
        session.is_holding_acks = self._acks_when_flushed
        connection = Connection(self, routing_id, session, hello, key, now)
        self.connections[routing_id] = connection
        self._unattached[routing_id] = connection
        self._server.welcome(routing_id)
        if len(self._unattached) > MAX_UNATTACHED:
            self.forget(next(iter(self._unattached.values())))
        self._send(routing_id, greeting)

    def _refuse(self, routing_id: bytes, key: Key, nonce: bytes, error: ClusterdError) -> None:
        self._send(routing_id, handshake.refuse(key.value, nonce, error))
        self._server.drop(routing_id)

    def process_of(self, connection: Connection) -> ProcessIdentity | None:
        """Who is at the other end, where that is on this host and can be known."""
        return self._server.process_of(connection.routing_id)

    # --- sending ---

    def flush(self) -> None:
        """Send all that was said in this turn, and the acknowledgements that are due at once."""
        gate = self.gate
        if gate is None:
            for connection in self.heard:
                connection.session.deal_with(connection.session.received)
        else:
            gate.hear(self.heard)
        self.heard.clear()
        dirty, self.dirty = self.dirty, []
        for connection in dirty:
            connection.is_dirty = False
            connection.close_batch()
            if gate is None and connection.session.must_ack and not connection.is_gone:
                self._acknowledge(connection, self._now)

    def acknowledge_soon(self, connection: Connection, now: float) -> None:
        """More may be acknowledged than was: at once where much is, else when nothing comes along to carry it."""
        if connection.session.must_ack:
            self._acknowledge(connection, now)
        elif connection.session.owes_ack:
            self._owe(connection.routing_id, now)

    def acknowledge(self, before: float, now: float) -> None:
        """Send the bare acknowledgements owed since `before` or longer: nothing came along to carry them."""
        owed, self._owed, self.owed_since = self._owed, {}, None
        for peer, since in owed.items():
            connection = self.connections.get(peer)
            if connection is None or not connection.session.owes_ack:
                continue
            if since <= before:
                self._acknowledge(connection, now)
            else:
                self._owe(peer, since)

    def _acknowledge(self, connection: Connection, now: float) -> None:
        if self._server.is_congested(connection.routing_id):
            # It does not read: they would heap up. One that comes later says as much.
            self._owe(connection.routing_id, now)
        else:
            self._send(connection.routing_id, connection.session.seal(()))

    def _owe(self, peer: bytes, since: float) -> None:
        self._owed.setdefault(peer, since)
        if self.owed_since is None or since < self.owed_since:
            self.owed_since = since

    def transmit(
        self, connection: Connection, messages: Sequence[Any], payload: Sequence[Any], digests: Sequence[bytes]
    ) -> None:
        """Seal and send one batch."""
        sealed = connection.session.seal(messages, payload, list(digests) if digests else None)
        if connection.keeps_unacked:
            connection.remember(messages, payload, digests)
        self._send(connection.routing_id, sealed)

    def _send(self, routing_id: bytes, parts: list[Any]) -> None:
        try:
            self._server.send(routing_id, parts)
        except PeerGone as error:
            connection = self.connections.get(routing_id)
            if connection is not None:
                self.cut(connection, str(error))

    # --- connections that end ---

    def forget(self, connection: Connection) -> None:
        """Drop a connection; what its peer still says on it is answered by a Reset."""
        connection.is_gone = True
        self._server.drop(connection.routing_id)
        self.connections.pop(connection.routing_id, None)
        self._unattached.pop(connection.routing_id, None)
        self._owed.pop(connection.routing_id, None)

    def expire(self, now: float) -> None:
        """Forget who said Hello and then nothing, and have the server close who did not even say that."""
        self._server.expire(now)
        for connection in list(self._unattached.values()):
            if now - connection.since < UNATTACHED_SECONDS:
                return
            self.counters["late"] += 1
            self.forget(connection)

    def cut(self, connection: Connection, reason: str) -> None:
        """End a connection in the middle of whatever is being done; its owner is told by `tell_ended`."""
        self.forget(connection)
        self.ended.append((connection, reason))

    def tell_ended(self, now: float) -> None:
        """Tell the owners of connections that have ended since the last time."""
        ended, self.ended = self.ended, []
        for connection, reason in ended:
            if connection.owner is not None:
                self._owner.disconnected(connection, reason, now)

    def _lost(self, routing_id: bytes, reason: str, now: float) -> None:
        connection = self.connections.get(routing_id)
        if connection is not None:
            self.forget(connection)
            if connection.owner is not None:
                self._owner.disconnected(connection, reason, now)

    def have_attach_again(self, connection: Connection, reason: str, now: float) -> None:
        """End a connection in good order: its peer is told why, dials again with what its file says then, and goes on."""
        connection.close_batch()
        if not connection.is_gone:
            self._reset(connection, connection.session.last_opened, reason, now, told=reason)

    def _reset(self, connection: Connection, mac: bytes, reason: str, now: float, told: str = "") -> None:
        self._send(connection.routing_id, handshake.reset(connection.key.value, mac, told))
        self.forget(connection)
        if connection.owner is not None:
            self._owner.disconnected(connection, reason, now)

    def _mark_dirty(self, connection: Connection) -> None:
        if not connection.is_dirty:
            connection.is_dirty = True
            self.dirty.append(connection)


def _looks_like_session(header: bytes) -> bool:
    # MessagePack: an array of five (0x95) whose first element, seq, is not 0. Only decides whether a Reset is worth sending.
    return len(header) > 5 and header[0] == 0x95 and header[1] != 0

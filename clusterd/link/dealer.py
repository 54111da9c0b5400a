"""A connection to the controller that survives the controller: dial, Hello, Attach, and all over again when it is gone.

The owner polls what `pollables` lists, calls `receive` when something is ready and `tick` when `next_deadline` has come.
It gets events: Up (attached), Received, Down (with what the controller never acknowledged), Refusal (final).
Invariants: a transport carries one session and is thrown away with it, so nothing of an old session can reach a new one;
what is sent while down, or beyond the window, waits in `_pending`, in order.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import clusterd
from clusterd.core.wire.handshake import NONCE_SIZE, PeerHandshake, Refused
from clusterd.core.wire.messages import Attached, Goodbye, Refuse
from clusterd.errors import AuthenticationError, ClusterdError, KeyChanged, LimitExceeded, WireError
from clusterd.link.events import Down, Event, Received, Refusal, Up
from clusterd.link.transport import UNIX, Gone, Transport, UnixTransport, ZmqTransport
from clusterd.link.waiting import poll_once

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.core.model.connection import NativeEndpoints
    from clusterd.core.wire.messages import Welcome
    from clusterd.core.wire.session import Session

log = logging.getLogger(__name__)
SOFTWARE = f"clusterd {clusterd.__version__}, Python {sys.version.split()[0]}"
# A controller that is alive answers within a poll turn; one that is swapping may need seconds.
HANDSHAKE_TIMEOUT = 5.0
FIRST_RETRY = 0.02
LAST_RETRY = 1.0
# A connect(2) to a Unix socket costs 20 us whether anybody listens or not, and a controller that was restarted waits for its peers.
LAST_RETRY_UNIX = 0.25
# A connection that lasted this long was a good one: after it the first dial follows at once. One that is ended as soon as it is made
# (the controller finds what we say unusable) must not come back fifty times a second.
STEADY_SECONDS = 2.0
IDLE_ACK = 0.1
RECEIVE_BURST = 64
# Codes of a Refuse after which trying again cannot help.
FINAL_REFUSALS = frozenset({"version", "malformed", "python"})
# What a link without a transport polls.
_NOTHING: list[tuple[Any, int]] = []


class Link:
    """One channel to the controller.

    Args:
        context: called when a ZeroMQ context is needed (never where the controller is on this host); the owner ends it.
        endpoints: called at each dial for the current connection file (a restarted controller may have written a new one);
            raises ClusterdError while there is none.
        role: client, operator, engine or agent.
        channel: data or control.
        attach: called with the token (empty at first) for the Attach message of each new connection.
        keeps_unacked: keep what is sent until it is acknowledged, and return it in Down.
    """

    def __init__(
        self,
        context: Callable[[], Any],
        endpoints: Callable[[], NativeEndpoints],
        role: str,
        channel: str,
        attach: Callable[[bytes], Any],
        *,
        keeps_unacked: bool = False,
    ) -> None:
        self._context = context
        self._endpoints = endpoints
        self._role = role
        self._channel = channel
        self._attach = attach
        self._keeps_unacked = keeps_unacked
        # closed, waiting (for the next dial), greeting (Hello sent), attaching (Attach sent), attached.
        self.state = "closed"
        # Counts the transports: where it or `is_sending` differs, the owner has other `pollables`.
        self.generation = 0
        self._transport: Transport | None = None
        # True while the transport keeps bytes that the kernel did not take.
        self.is_sending = False
        self.session: Session | None = None
        self.welcome: Welcome | None = None
        # Why there is no connection, in a sentence; empty while attached.
        self.problem = "not dialled yet"
        # The last refusals because the file has a key that was changed; none once attached.
        self.outdated: list[Refused] = []
        # Resume token of this uuid; kept over connections.
        self.token = b""
        # Monotonic time of the last message from the controller.
        self.last_heard = 0.0
        self._handshake: PeerHandshake | None = None
        self._controller = b""
        self._retry = FIRST_RETRY
        # Monotonic time of the last Attached.
        self._attached_at = 0.0
        # Where the last dial went.
        self._is_unix = False
        self._deadline: float | None = None
        self._ack_at: float | None = None
        # (messages, payload) that wait for a connection or for the window, oldest first.
        self._pending: deque[tuple[Sequence[Any], Sequence[Any]]] = deque()
        # (seq, messages, payload) sent and not acknowledged; only with keeps_unacked.
        self._unacked: deque[tuple[int, Sequence[Any], Sequence[Any]]] = deque()

    # --- for the owner's loop ---

    def open(self) -> None:
        """Begin to dial; never blocks."""
        if self.state == "closed":
            self.state = "waiting"
            self._dial()

    def close(self, goodbye: str | None = None) -> None:
        """End the link, politely when `goodbye` is given; idempotent."""
        if goodbye is not None and self.state == "attached":
            self.send([Goodbye(goodbye)])
        self._drop_transport(linger=goodbye is not None)
        self.state = "closed"
        self.session = None
        self._deadline = self._ack_at = None
        # Their numbers mean nothing on another connection.
        self._unacked.clear()

    def next_deadline(self) -> float | None:
        """Monotonic time at which `tick` has something to do, or None."""
        if self._ack_at is None:
            return self._deadline
        return self._ack_at if self._deadline is None else min(self._ack_at, self._deadline)

    def tick(self) -> list[Event]:
        """Do what time asks for: dial again, give up a handshake, acknowledge."""
        now = time.monotonic()
        events: list[Event] = []
        if self._deadline is not None and now >= self._deadline:
            if self.state == "waiting":
                self._dial()
            elif self.state in {"greeting", "attaching"}:
                self._lose(f"no answer to the handshake within {HANDSHAKE_TIMEOUT:.0f} s", events)
        try:
            if self.is_sending and self._transport is not None:
                self.is_sending = self._transport.flush()
            if self._ack_at is not None and now >= self._ack_at:
                self._acknowledge()
        except Gone as error:
            self._lose(str(error), events)
        return events

    def pollables(self) -> list[tuple[Any, int]]:
        """(descriptor or ZeroMQ socket, flags of poll(2)) to wait for; to be asked again before each wait.

        While they are the same it is the same list.
        """
        return self._transport.pollables() if self._transport is not None else _NOTHING

    def wait(self, timeout: float | None) -> list[Event]:
        """Block until something happens or `timeout` seconds have passed; for owners with nothing else to poll."""
        deadline = self.next_deadline()
        if deadline is not None:
            left = max(0.0, deadline - time.monotonic())
            timeout = left if timeout is None else min(timeout, left)
        poll_once(self.pollables(), timeout)
        return self.receive() + self.tick()

    def receive(self) -> list[Event]:
        """All that has arrived, up to a bound; never blocks."""
        events: list[Event] = []
        taken = 0
        # Beyond the bound what the transport holds already: no poll would tell of it.
        while (transport := self._transport) is not None and (taken < RECEIVE_BURST or transport.has_more):
            taken += 1
            try:
                parts = transport.receive()
            except Gone as error:
                self._lose(str(error), events)
                break
            if parts is None:
                break
            self.last_heard = time.monotonic()
            try:
                self._take(parts, events)
            except Refused as error:
                self._refused(error, events)
            except (WireError, Gone) as error:
                self._lose(f"unusable message: {error}", events)
        self._after(events)
        return events

    def _after(self, events: list[Event]) -> None:
        try:
            if self.is_sending and self._transport is not None:
                self.is_sending = self._transport.flush()
            session = self.session
            if session is not None and session.owes_ack:
                if session.must_ack:
                    self._acknowledge()
                elif self._ack_at is None:
                    self._ack_at = time.monotonic() + IDLE_ACK
            if self._pending:
                self._flush()
        except Gone as error:
            self._lose(str(error), events)

    # --- sending ---

    @property
    def is_attached(self) -> bool:
        """True while messages go out at once."""
        return self.state == "attached"

    @property
    def is_clear(self) -> bool:
        """True while attached, with window, and with nothing waiting."""
        return self.state == "attached" and not self._pending and self.session is not None and self.session.has_window

    def send(self, messages: Sequence[Any], payload: Sequence[Any] = ()) -> None:
        """Send, or keep in order until that is possible. A connection that breaks here is reported by the next `receive`.

        Raises:
            LimitExceeded: the controller would not take it; nothing was sent or kept.
        """
        if self.is_clear:
            try:
                self._seal(messages, payload)
            except Gone:
                if not self._keeps_unacked:
                    self._pending.append((messages, payload))
        else:
            self._pending.append((messages, payload))

    @property
    def has_unacked(self) -> bool:
        """True while something is kept because it was not acknowledged."""
        return bool(self._unacked)

    def forget_pending(self) -> list[tuple[Sequence[Any], Sequence[Any]]]:
        """Give back what waits to be sent, and forget it (the owner offers again in its own way)."""
        pending = list(self._pending)
        self._pending.clear()
        return pending

    def redial(self, reason: str) -> list[Event]:
        """Throw the connection away and dial again (the owner has heard nothing for too long)."""
        events: list[Event] = []
        if self.state != "closed":
            self._lose(reason, events)
        return events

    # --- inside ---

    def _seal(self, messages: Sequence[Any], payload: Sequence[Any]) -> None:
        session = self.session
        assert session is not None  # noqa: S101 - invariant: callers checked is_attached
        frames = session.seal(messages, payload)
        if self._keeps_unacked:
            self._unacked.append((session.sent, messages, payload))
        if not session.owes_ack:
            self._ack_at = None
        # There is a transport where there is a session.
        self.is_sending = self._transport.send(frames)  # type: ignore[union-attr]

    def _transmit(self, frames: Sequence[Any]) -> None:
        self.is_sending = self._transport.send(frames)  # type: ignore[union-attr]

    def _flush(self) -> None:
        while self._pending and self.state == "attached" and self.session is not None and self.session.has_window:
            messages, payload = self._pending.popleft()
            try:
                self._seal(messages, payload)
            except LimitExceeded as error:
                # It was kept while there was no connection, and the controller that is there now takes less than the one before.
                log.error("%d messages cannot be sent: %s", len(messages), error.message)  # noqa: TRY400 - no bug of ours

    def _acknowledge(self) -> None:
        self._ack_at = None
        if self.state == "attached" and self.session is not None and self.session.owes_ack:
            self._transmit(self.session.seal(()))

    def _dial(self) -> None:
        try:
            endpoints = self._endpoints()
        except ClusterdError as error:
            self.problem = error.message
            self._retry_later()
            return
        address = endpoints.data if self._channel == "data" else endpoints.control
        self._is_unix = address.startswith(UNIX)
        try:
            if self._is_unix:
                self._transport = UnixTransport(address)
            else:
                self._transport = ZmqTransport(self._context(), address, endpoints)
        except Gone as error:
            self.problem = str(error)
            self._retry_later()
            return
        self.generation += 1
        key, nonce = endpoints.static_key, os.urandom(NONCE_SIZE)
        self._handshake = PeerHandshake(
            key, self._role, self._channel, nonce, SOFTWARE, has_digests=endpoints.has_digests
        )
        self.state = "greeting"
        self.problem = f"no answer yet from {address}"
        self._deadline = time.monotonic() + HANDSHAKE_TIMEOUT
        try:
            self._transmit(self._handshake.hello())
        except Gone as error:
            self._lose(str(error), [])

    def _take(self, parts: list[Any], events: list[Event]) -> None:
        handshake, session = self._handshake, self.session
        assert handshake is not None  # noqa: S101 - there is a transport
        if session is None:
            session = handshake.receive(parts)
            self.session, self.welcome = session, handshake.welcome
            self.state = "attaching"
            self._transmit(session.seal([self._attach(self.token)]))
            return
        try:
            content = session.open(parts[0], parts[1] if len(parts) > 1 else b"", parts[2:])
        except AuthenticationError:
            if (reset := handshake.reset_of(parts, session)) is None:
                raise
            self._lose(reset.reason or "the controller does not know this connection any more", events)
            return
        if self._keeps_unacked:
            unacked = self._unacked
            while unacked and unacked[0][0] <= session.acked:
                unacked.popleft()
        messages = content.messages
        if self.state == "attaching" and messages:
            first = messages.pop(0)
            if isinstance(first, Refuse):
                raise Refused(first.code, first.message, first.hint)
            if not isinstance(first, Attached):
                raise WireError("the controller spoke before it said Attached")
            self._attached(first, events)
        if messages:
            events.append(Received(messages, parts[2:], content.digests))

    def _attached(self, attached: Attached, events: list[Event]) -> None:
        welcome = self.welcome
        assert welcome is not None  # noqa: S101 - set with the session
        self.token = attached.token
        self.state = "attached"
        self.problem = ""
        self.outdated.clear()
        self._attached_at = time.monotonic()
        self._deadline = None
        is_new = welcome.controller != self._controller
        self._controller = welcome.controller
        events.append(Up(attached, welcome, is_new))

    def _refused(self, error: Refused, events: list[Event]) -> None:
        if error.code in FINAL_REFUSALS:
            self.close()
            self.problem = error.message
            events.append(Refusal(error))
        else:
            if error.code == "token":
                # A controller that has lost its token secret cannot know ours; it takes us as new if we say so.
                self.token = b""
            elif error.code == KeyChanged.code:
                self.outdated = [*self.outdated[-9:], error]
            self._lose(f"refused: {error.message}", events)

    def _lose(self, reason: str, events: list[Event]) -> None:
        was_attached = self.state == "attached"
        if was_attached and time.monotonic() - self._attached_at >= STEADY_SECONDS:
            self._retry = FIRST_RETRY
        self._drop_transport(linger=False)
        self.session = None
        self.problem = reason
        self._ack_at = None
        unacked = [(messages, payload) for _, messages, payload in self._unacked]
        self._unacked.clear()
        self._retry_later()
        if was_attached:
            events.append(Down(reason, unacked))

    def _retry_later(self) -> None:
        self.state = "waiting"
        # Jitter, so that the engines of a cluster do not all knock in the same millisecond.
        self._deadline = time.monotonic() + self._retry * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
        self._retry = min(self._retry * 2, LAST_RETRY_UNIX if self._is_unix else LAST_RETRY)

    def _drop_transport(self, *, linger: bool) -> None:
        if self._transport is not None:
            self._transport.close(linger=linger)
            self.generation += 1
        self._transport = None
        self.is_sending = False

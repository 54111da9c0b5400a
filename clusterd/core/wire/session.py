"""One connection after its handshake: signs, verifies, numbers, acknowledges, and keeps the window.

Used by both sides, with the keys swapped. Pure: it turns messages into frames and frames into messages.
Invariants: a seq is used once per direction; `unacked_bytes` is the sum of `_unacked`; nothing is decoded before its mac is right.
`open` and `seal` run four times each in every round trip and are written out for that reason.
PROTOCOL.md sections 2, 3 and 6.
"""

from __future__ import annotations

import hmac
from collections import deque
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Any

from clusterd.core.wire import codec
from clusterd.errors import AuthenticationError, LimitExceeded, WireError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.core.wire.messages import Limits

MAC_SIZE = 32
# A receiver acknowledges by itself after this many messages, so that a sender's book of unacknowledged ones stays small.
ACK_EVERY_MESSAGES = 256


def sign(key: bytes, header: bytes) -> bytes:
    """HMAC-SHA256 of a header; 32 bytes."""
    return hmac.digest(key, header, "sha256")


def is_signed(key: bytes, mac: bytes, header: bytes) -> bool:
    """True when `mac` is right; compared in constant time."""
    return hmac.compare_digest(mac, hmac.digest(key, header, "sha256"))


def payload_digest(frame: Any) -> bytes:
    """BLAKE2b-128 of one payload frame (any buffer)."""
    return blake2b(frame, digest_size=16).digest()


class Signer:
    """HMAC-SHA256 with one key, at half the price of `hmac.digest`: the two padded key blocks are hashed once (RFC 2104, section 4)."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        padded = (key if len(key) <= 64 else sha256(key).digest()).ljust(64, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in padded))

    def __call__(self, header: bytes) -> bytes:
        """The mac of a header."""
        inner = self._inner.copy()
        inner.update(header)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


class Replayed(AuthenticationError):
    """A correctly signed message whose number is not the next one."""


class Session:
    """The state of one connection.

    Args:
        send_key: session key of the direction in which this side speaks.
        receive_key: the other one.
        decoder: `codec.UP[...]` in the controller, `codec.DOWN[...]` in a peer.
        limits: what the controller said in its Welcome.
        has_digests: give (and, in `open`, demand) a digest for each payload frame.
        is_controller: this is the controller's end: the limits bind the other one. What the controller passes on came within them, and
            what it adds to it must not make that unspeakable.
    """

    __slots__ = (
        "_decoder",
        "_is_bound",
        "_received_bytes",
        "_received_messages",
        "_sign_received",
        "_sign_sent",
        "_unacked",
        "acked",
        "dealt_with",
        "has_digests",
        "has_window",
        "is_broken",
        "is_holding_acks",
        "last_mac",
        "last_opened",
        "limits",
        "must_ack",
        "owes_ack",
        "received",
        "sent",
        "unacked_bytes",
    )

    def __init__(
        self,
        send_key: bytes,
        receive_key: bytes,
        decoder: codec.HeaderDecoder,
        limits: Limits,
        *,
        has_digests: bool,
        is_controller: bool = False,
    ) -> None:
        self._sign_sent = Signer(send_key)
        self._sign_received = Signer(receive_key)
        self._decoder = decoder
        # True where what is sent has to be within the limits.
        self._is_bound = not is_controller
        self.limits = limits
        self.has_digests = has_digests
        # seq of the last message sealed; 0 before the first.
        self.sent = 0
        # seq of the last message opened.
        self.received = 0
        # Highest seq that this side acknowledges: equal to `received`, unless acks are held.
        self.dealt_with = 0
        # True where the owner says by `deal_with` what may be acknowledged (a durable store commits first).
        self.is_holding_acks = False
        # Highest of our seqs that the other side has acknowledged.
        self.acked = 0
        # (seq, bytes) of all and only messages with content that are sealed and not acknowledged, oldest first.
        self._unacked: deque[tuple[int, int]] = deque()
        # Sum of the bytes in `_unacked`.
        self.unacked_bytes = 0
        # True while another message may be sent: while that sum is below the window (one is always allowed, whatever its size).
        self.has_window = True
        # Bytes and messages received since the last time an ack left.
        self._received_bytes = 0
        self._received_messages = 0
        # True while a message with content is received and not yet acknowledged.
        self.owes_ack = False
        # True when an ack is due at once, without waiting for something to carry it.
        self.must_ack = False
        # True once a correctly signed message could not be used (undecodable, or one before it is missing): no later one can be.
        self.is_broken = False
        # Mac of the last message sealed: what a Reset must echo.
        self.last_mac = b""
        # Mac of the last message opened: what a Reset that answers nothing echoes.
        self.last_opened = b""

    def seal(
        self, messages: Sequence[Any], payload: Sequence[Any] = (), digests: list[bytes] | None = None
    ) -> list[Any]:
        """Frames of one message, ready for the socket.

        Args:
            messages: what to say, in order; empty for a bare acknowledgement.
            payload: buffers (with a length in bytes by `len`) that the messages own, in order.
            digests: those of the payload where the caller has them (the controller passes on what it got).

        Raises:
            LimitExceeded: a frame, their number or the header is more than the other side takes; nothing was counted as sent.
        """
        limits = self.limits
        sizes = [frame.nbytes if type(frame) is memoryview else len(frame) for frame in payload] if payload else []
        if sizes:
            if self._is_bound:
                _check_sizes(sizes, limits)
            if self.has_digests and digests is None:
                digests = [payload_digest(frame) for frame in payload]
        seq = self.sent + 1
        header = codec.encode(
            codec.Header(seq, self.dealt_with, sizes, digests if self.has_digests and sizes else None, messages)  # type: ignore[arg-type]
        )
        if self._is_bound and len(header) > limits.max_header:
            raise LimitExceeded(f"a header of {len(header)} bytes, the controller takes {limits.max_header}")
        self.sent = seq
        if messages:
            size = len(header) + sum(sizes) if sizes else len(header)
            self._unacked.append((seq, size))
            self.unacked_bytes += size
            self.has_window = self.unacked_bytes < limits.window
        if self.dealt_with == self.received:
            self._received_bytes = self._received_messages = 0
            self.owes_ack = self.must_ack = False
        mac = self.last_mac = self._sign_sent(header)
        return [mac, header, *payload]

    def open(self, mac: bytes, header: bytes, payload: Sequence[Any] = ()) -> codec.Header[Any]:
        """Verify one message and account for it.

        The payload frames are checked by number and length; their digests by `check_payload`, by whoever reads them.

        Raises:
            AuthenticationError: the mac is wrong. `Replayed`: it is right, but the number is not the next one.
            WireError: it does not decode, or the frames are not those that the header announces.
        """
        if not hmac.compare_digest(mac, self._sign_received(header)):
            raise AuthenticationError("wrong signature")
        try:
            content = self._decoder(header)
            sizes, ack = content.sizes, content.ack
            if sizes or payload or ack > self.sent:
                self._check(content, payload)
        except WireError:
            self.is_broken = True
            raise
        seq = content.seq
        if seq != self.received + 1:
            self.is_broken = seq > self.received
            raise Replayed(f"message {seq} where {self.received + 1} is due")
        self.received = seq
        self.last_opened = mac
        if not self.is_holding_acks:
            self.dealt_with = seq
        if content.messages:
            self.owes_ack = True
            self._received_messages += 1
            self._received_bytes += len(header) + sum(sizes) if sizes else len(header)
            self.must_ack = (
                self._received_bytes * 4 >= self.limits.window or self._received_messages >= ACK_EVERY_MESSAGES
            )
        if ack > self.acked:
            self.acked = ack
            unacked = self._unacked
            while unacked and unacked[0][0] <= ack:
                self.unacked_bytes -= unacked.popleft()[1]
            self.has_window = self.unacked_bytes < self.limits.window
        return content

    def _check(self, content: codec.Header[Any], payload: Sequence[Any]) -> None:
        sizes = content.sizes
        if content.ack > self.sent:
            raise WireError(f"acknowledges message {content.ack}, of {self.sent} sent")
        if len(sizes) != len(payload) or sizes != [len(frame) for frame in payload]:
            raise WireError("the payload frames are not those of the header")
        if self.has_digests and sizes and (content.digests is None or len(content.digests) != len(sizes)):
            raise WireError("payload digests are missing")

    def deal_with(self, seq: int) -> None:
        """All messages up to `seq` are dealt with and may be acknowledged."""
        self.dealt_with = max(self.dealt_with, seq)


def _check_sizes(sizes: list[int], limits: Limits) -> None:
    if len(sizes) > limits.max_frames:
        raise LimitExceeded(f"{len(sizes)} payload frames, the controller takes {limits.max_frames} in a message")
    if max(sizes) > limits.max_message:
        raise LimitExceeded(
            f"a payload of {max(sizes)} bytes, the controller takes {limits.max_message}",
            hint="Send it in parts, put it into a shared file system, or raise `max_message` in the profile.",
        )


def check_payload(digests: list[bytes] | None, payload: Sequence[Any]) -> None:
    """Compare payload frames with the digests of the header that announced them.

    Raises:
        AuthenticationError: a frame is not what its sender signed.
    """
    for digest, frame in zip(digests or (), payload, strict=bool(digests)):
        if not hmac.compare_digest(digest, payload_digest(frame)):
            raise AuthenticationError("a payload frame is not what its sender signed")

"""How bytes reach an endpoint: Unix streams on this host, a ZeroMQ ROUTER over TCP elsewhere. Both speak of peers by an opaque id.

A stream server is an epoll of its own, so that the controller's poll stays as short with 1,000 peers as with one, and it knows at once when
a peer is gone. Invariants: a peer that does not read costs its own outbox only; one turn takes a bounded number of
bytes from each peer, so that 200 MB from one do not delay a word from another.
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import TYPE_CHECKING, Any, Protocol

import zmq

from clusterd.system import stream

if TYPE_CHECKING:
    import socket
    from collections import Counter
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from clusterd.core.wire.messages import Limits

# Messages taken from one endpoint before the loop looks at the others: 64 headers of 256 KiB are some 10 ms of work.
RECEIVE_BURST = 64
# recv calls per peer and turn: of a large payload each brings some 200 KiB, so a turn takes about 1 MiB of it.
TURN_READS = 4
# Of one that is dead: more than any socket buffer of the kernel brings, in pieces of the smallest packet.
DRAIN_READS = 100_000


class PeerGone(Exception):
    """The peer that a message is for is gone."""


class Server(Protocol):
    """One listening side."""

    def pollable(self) -> Any:
        """Descriptor or ZeroMQ socket that is readable when there is something to do."""

    def receive(self) -> Iterator[tuple[bytes, list[Any] | None, str]]:
        """(peer, parts, "") of what has arrived; (peer, None, why) for a peer that is gone."""

    def drain(self, peer: bytes) -> Iterator[tuple[bytes, list[Any] | None, str]]:
        """As `receive`, all that a peer has sent before it died (where others cannot be left out: of them, too)."""

    def send(self, peer: bytes, parts: Sequence[Any]) -> None:
        """Send to a peer. Raises PeerGone; not where `receive` will tell of its end, after what it has said."""

    def drop(self, peer: bytes) -> None:
        """Close the connection of a peer (once what was sent is out)."""

    def close(self) -> None:
        """Stop listening, close all."""


class UnixServer:
    """Unix streams.

    Args:
        path: of the socket; its directory is private.
        limits: sizes that peers are held to.
        counters: `oversized` and `malformed` count what was refused before it was a message.
    """

    def __init__(self, path: Path, limits: Limits, counters: Counter[str]) -> None:
        self._path = path
        self._listener = stream.listen(path)
        self._limits = stream.PartLimits(32, limits.max_header, limits.max_message, limits.max_frames + 2)
        self._counters = counters
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        # By descriptor, and by peer id: all and only open connections.
        self._streams: dict[int, tuple[bytes, stream.Stream]] = {}
        self._peers: dict[bytes, stream.Stream] = {}
        self._next_peer = 0
        # Descriptors that epoll watches for writing.
        self._writing: set[int] = set()
        # Peers to close as soon as their outbox is empty.
        self._leaving: set[bytes] = set()
        # Peers that take nothing any more, and may have said something before they died: reading tells when they are gone.
        self._mute: set[bytes] = set()

    def pollable(self) -> Any:
        """See `Server`."""
        return self._epoll.fileno()

    def receive(self) -> Iterator[tuple[bytes, list[Any] | None, str]]:
        """See `Server`."""
        for descriptor, happened in self._epoll.poll(0, RECEIVE_BURST):
            if descriptor == self._listener.fileno():
                self._accept()
                continue
            known = self._streams.get(descriptor)
            if known is None:
                continue
            if happened & select.EPOLLOUT:
                self._flush(descriptor, *known)
            if happened & ~select.EPOLLOUT:
                yield from self._read(*known)

    def drain(self, peer: bytes) -> Iterator[tuple[bytes, list[Any] | None, str]]:
        """See `Server`."""
        source = self._peers.get(peer)
        if source is not None:
            yield from self._read(peer, source, DRAIN_READS)

    def _read(
        self, peer: bytes, source: stream.Stream, reads: int = TURN_READS
    ) -> Iterator[tuple[bytes, list[Any] | None, str]]:
        try:
            for _ in range(reads):
                may_be_more = source.read_once()
                while (parts := source.next_message()) is not None:
                    yield peer, parts, ""
                if not may_be_more or source.is_closed:
                    break
        except stream.Closed as error:
            self._forget(peer)
            yield peer, None, str(error)
        except stream.Malformed as error:
            self._counters["oversized" if error.is_oversized else "malformed"] += 1
            self._forget(peer)
            yield peer, None, str(error)

    def _accept(self) -> None:
        for _ in range(RECEIVE_BURST):
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                # Out of descriptors, or the peer has left: the next turn tries again, everybody else goes on.
                return
            self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._next_peer += 1
        peer = self._next_peer.to_bytes(8, "big")
        opened = stream.Stream(connection, self._limits)
        self._streams[opened.fileno()] = (peer, opened)
        self._peers[peer] = opened
        self._epoll.register(opened.fileno(), select.EPOLLIN)

    def send(self, peer: bytes, parts: Sequence[Any]) -> None:
        """See `Server`."""
        target = self._peers.get(peer)
        if target is None:
            raise PeerGone("it closed the connection")
        if peer in self._mute:
            return
        try:
            is_left = target.send(parts)
        except stream.Closed:
            self._silence(peer, target)
            return
        if is_left and target.fileno() not in self._writing:
            self._writing.add(target.fileno())
            self._epoll.modify(target.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def drop(self, peer: bytes) -> None:
        """See `Server`."""
        target = self._peers.get(peer)
        if target is not None:
            if target.wants_write and peer not in self._mute:
                self._leaving.add(peer)
            else:
                self._forget(peer)

    def _flush(self, descriptor: int, peer: bytes, target: stream.Stream) -> None:
        try:
            target.flush()
        except stream.Closed:
            self._silence(peer, target)
            return
        if not target.wants_write:
            self._writing.discard(descriptor)
            self._epoll.modify(descriptor, select.EPOLLIN)
            if peer in self._leaving:
                self._forget(peer)

    def _silence(self, peer: bytes, target: stream.Stream) -> None:
        """Send no more to a peer; what it said before it closed is still to be read."""
        if peer in self._leaving:
            self._forget(peer)
            return
        self._mute.add(peer)
        self._writing.discard(target.fileno())
        self._epoll.modify(target.fileno(), select.EPOLLIN)

    def _forget(self, peer: bytes) -> None:
        closing = self._peers.pop(peer, None)
        if closing is None:
            return
        descriptor = closing.fileno()
        self._streams.pop(descriptor, None)
        self._writing.discard(descriptor)
        self._leaving.discard(peer)
        self._mute.discard(peer)
        self._epoll.unregister(descriptor)
        closing.close()

    def close(self) -> None:
        """See `Server`."""
        for peer in list(self._peers):
            self._forget(peer)
        self._epoll.close()
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # noqa: PTH108 - symmetrical to bind(2)


class ZmqServer:
    """A bound ROUTER."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket

    def pollable(self) -> Any:
        """See `Server`."""
        return self._socket

    def receive(self) -> Iterator[tuple[bytes, list[Any] | None, str]]:
        """See `Server`."""
        socket = self._socket
        for _ in range(RECEIVE_BURST):
            try:
                peer = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            parts: list[Any] = []
            while socket.getsockopt(zmq.RCVMORE):
                parts.append(socket.recv(zmq.NOBLOCK, copy=len(parts) < 2))
            yield peer, parts, ""

    def drain(self, peer: bytes) -> Iterator[tuple[bytes, list[Any] | None, str]]:  # noqa: ARG002 - as the protocol has it
        """See `Server`: all come through one socket, in order of arrival."""
        return self.receive()

    def send(self, peer: bytes, parts: Sequence[Any]) -> None:
        """See `Server`."""
        try:
            self._socket.send_multipart([peer, *parts], zmq.NOBLOCK, copy=len(parts) <= 2)
        except zmq.Again:
            # SNDHWM is 0: only a peer that ZeroMQ is just losing can be here. Its session breaks, it will come back.
            raise PeerGone("ZeroMQ takes nothing more for it") from None
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            raise PeerGone("it closed the connection") from None

    def drop(self, peer: bytes) -> None:
        """See `Server`: ZeroMQ cannot close one peer; what it still says is answered by a Reset."""

    def close(self) -> None:
        """See `Server`."""
        self._socket.close(linger=0)

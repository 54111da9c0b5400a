"""How bytes reach an endpoint: Unix streams on this host, a ZeroMQ ROUTER over TCP elsewhere. Both speak of peers by an opaque id.

A stream server is an epoll of its own, so that the controller's poll stays as short with 1,000 peers as with one, and it knows at once when
a peer is gone. Invariants: a peer that does not read costs its own outbox only; one turn takes a bounded number of
bytes from each peer, so that 200 MB from one do not delay a word from another.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import time
from typing import TYPE_CHECKING, Any, Protocol

import zmq

from clusterd.system import process, stream, unix_sockets

if TYPE_CHECKING:
    import socket
    from collections import Counter
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from clusterd.core.wire.messages import Limits
    from clusterd.system.process import ProcessIdentity

# Messages taken from one endpoint before the loop looks at the others: 64 headers of 256 KiB are some 10 ms of work.
RECEIVE_BURST = 64
# recv calls per peer and turn: of a large payload each brings some 200 KiB, so a turn takes about 1 MiB of it.
TURN_READS = 4
# Connections that have not said a correct Hello: how many there may be, for how long, and what each may send. No memory is given to
# who has proved nothing.
MAX_STRANGERS = 1024
STRANGER_SECONDS = 10.0
STRANGER_LIMITS = stream.PartLimits(32, 64 * 1024, 0, 2)
# What was last said to a peer that is dropped may go out for so long.
LINGER_SECONDS = 5.0
# accept(2) fails with these until something else is given back: the connection stays in the backlog, and the listener readable.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# Of one that is dead: more than any socket buffer of the kernel brings, in pieces of the smallest packet.
DRAIN_READS = 100_000


log = logging.getLogger(__name__)


class PeerGone(Exception):
    """The peer that a message is for is gone."""


class Server(Protocol):
    """One listening side.

    Attributes:
        tells_of_ends: whoever holds an open connection lives: the kernel tells at once when it does not.
    """

    tells_of_ends: bool

    def pollable(self) -> Any:
        """Descriptor or ZeroMQ socket that is readable when there is something to do."""

    def receive(self) -> Iterator[tuple[bytes, list[Any] | None, str]]:
        """(peer, parts, "") of what has arrived; (peer, None, why) for a peer that is gone."""

    def drain(self, peer: bytes) -> Iterator[tuple[bytes, list[Any] | None, str]]:
        """As `receive`, all that a peer has sent before it died (where others cannot be left out: of them, too)."""

    def send(self, peer: bytes, parts: Sequence[Any]) -> None:
        """Send to a peer. Raises PeerGone; not where `receive` will tell of its end, after what it has said."""

    def process_of(self, peer: bytes) -> ProcessIdentity | None:
        """The process at the other end, by the kernel's word; None where it does not know."""

    def welcome(self, peer: bytes) -> None:
        """Give a peer its full limits, and all the time it wants: it has said a correct Hello."""

    def is_congested(self, peer: bytes) -> bool:
        """True while what was sent to a peer waits here, because it does not read."""

    def drop(self, peer: bytes) -> None:
        """Close the connection of a peer (once what was sent is out); nothing more is received from it."""

    def expire(self, now: float) -> None:
        """Close who said nothing of use for too long, or does not take our last words; called about once a second."""

    def close(self) -> None:
        """Stop listening, close all."""


class UnixServer:
    """Unix streams.

    Args:
        path: of the socket; its directory is private.
        limits: sizes that peers are held to.
        counters: `oversized` and `malformed` count what was refused before it was a message, `late` who never said Hello.
    """

    tells_of_ends = True

    def __init__(self, path: Path, limits: Limits, counters: Counter[str]) -> None:
        self._path = path
        self._listener = unix_sockets.listen(path)
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
        # Who is at the other end, of those whose process is known.
        self._processes: dict[bytes, ProcessIdentity] = {}
        # All and only open connections without a correct Hello, oldest first, with the monotonic time at which they came.
        self._strangers: dict[bytes, float] = {}
        # Peers to close as soon as their outbox is empty, with the monotonic time at which they are closed anyway.
        self._leaving: dict[bytes, float] = {}
        # True while the listener is not polled: there are no descriptors left; and whether that was logged since it last had one.
        self._is_full = self._is_told = False
        # Peers that take nothing any more, and may have said something before they died: reading tells when they are gone.
        self._mute: set[bytes] = set()

    def pollable(self) -> Any:
        """See `Server`."""
        return self._epoll.fileno()

    def receive(self) -> Iterator[tuple[bytes, list[Any] | None, str]]:
        """See `Server`."""
        for descriptor, happened in self._epoll.poll(0, RECEIVE_BURST):
            known = self._streams.get(descriptor)
            if known is None:
                if descriptor == self._listener.fileno():
                    self._accept()
                continue
            if happened & select.EPOLLOUT:
                self._flush(descriptor, *known)
                if descriptor not in self._streams:
                    continue
            if happened & ~select.EPOLLOUT:
                if known[0] in self._leaving:
                    self._forget(known[0])  # it has closed, too
                else:
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
                if not may_be_more or source.is_closed or peer in self._leaving:
                    break
        except stream.Closed as error:
            self._forget(peer)
            yield peer, None, str(error)
        except stream.Malformed as error:
            while (parts := source.next_message()) is not None:
                yield peer, parts, ""
            self._counters["oversized" if error.is_oversized else "malformed"] += 1
            self._forget(peer)
            yield peer, None, str(error)

    def _accept(self) -> None:
        for _ in range(RECEIVE_BURST):
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error)
                    return
                continue  # the peer has left before it was its turn
            self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        self._is_told = False
        connection.setblocking(False)
        opened = stream.Stream(connection, STRANGER_LIMITS)
        try:
            self._epoll.register(opened.fileno(), select.EPOLLIN)
        except OSError as error:
            opened.close()
            log.error("cannot watch another connection to %s: %s", self._path.name, error.strerror)  # noqa: TRY400 - expected
            return
        self._next_peer += 1
        peer = self._next_peer.to_bytes(8, "big")
        self._streams[opened.fileno()] = (peer, opened)
        self._peers[peer] = opened
        if (known := process.at_other_end(connection)) is not None:
            self._processes[peer] = known
        self._strangers[peer] = time.monotonic()
        if len(self._strangers) > MAX_STRANGERS:
            self._counters["late"] += 1
            self._forget(next(iter(self._strangers)))

    def _pause(self, error: OSError) -> None:
        # The listener stays readable: to poll it would spin.
        if not self._is_told:
            log.error(
                "no more connections to %s while %d are open: %s; raise the limit of open files (LimitNOFILE)",
                self._path.name,
                len(self._peers),
                error.strerror,
            )
        self._is_full = self._is_told = True
        self._epoll.modify(self._listener.fileno(), 0)

    def _resume(self) -> None:
        if self._is_full:
            self._is_full = False
            self._epoll.modify(self._listener.fileno(), select.EPOLLIN)

    def process_of(self, peer: bytes) -> ProcessIdentity | None:
        """See `Server`: who called connect(2)."""
        return self._processes.get(peer)

    def welcome(self, peer: bytes) -> None:
        """See `Server`."""
        if self._strangers.pop(peer, None) is not None:
            self._peers[peer].set_limits(self._limits)

    def is_congested(self, peer: bytes) -> bool:
        """See `Server`."""
        target = self._peers.get(peer)
        return target is not None and target.wants_write

    def expire(self, now: float) -> None:
        """See `Server`."""
        while self._strangers:
            peer, since = next(iter(self._strangers.items()))
            if now - since < STRANGER_SECONDS:
                break
            self._counters["late"] += 1
            self._forget(peer)
        for peer in [peer for peer, until in self._leaving.items() if until <= now]:
            self._forget(peer)
        self._resume()

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
                target.discard()
                self._strangers.pop(peer, None)
                self._leaving[peer] = time.monotonic() + LINGER_SECONDS
                self._epoll.modify(target.fileno(), select.EPOLLOUT)
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
        self._strangers.pop(peer, None)
        self._processes.pop(peer, None)
        self._leaving.pop(peer, None)
        self._mute.discard(peer)
        self._epoll.unregister(descriptor)
        closing.close()
        self._resume()

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

    tells_of_ends = False

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

    def process_of(self, peer: bytes) -> ProcessIdentity | None:  # noqa: ARG002 - as the protocol has it
        """See `Server`: it may be on any host."""
        return None

    def welcome(self, peer: bytes) -> None:
        """See `Server`: ZeroMQ has one limit for all."""

    def is_congested(self, peer: bytes) -> bool:  # noqa: ARG002 - as the protocol has it
        """See `Server`: ZeroMQ does not tell."""
        return False

    def drop(self, peer: bytes) -> None:
        """See `Server`: ZeroMQ cannot close one peer; what it still says is answered by a Reset."""

    def expire(self, now: float) -> None:
        """See `Server`: ZeroMQ gives up connections without a ZMTP handshake after 30 s."""

    def close(self) -> None:
        """See `Server`."""
        self._socket.close(linger=0)

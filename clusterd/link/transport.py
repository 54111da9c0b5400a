"""How bytes get to the controller: a Unix stream on this host, ZeroMQ over TCP elsewhere. One connection each.

Both give whole messages as lists of parts (mac and header as bytes, payload as memoryviews) and say when the other side is gone.
Which one is in the address of the connection file: `unix:///run/...` or `tcp://host:port`.
"""

from __future__ import annotations

import contextlib
import errno
import select
import time
from typing import TYPE_CHECKING, Any, Protocol

from clusterd.system import stream, unix_sockets

if TYPE_CHECKING:
    from collections.abc import Sequence

    import zmq

    from clusterd.core.model.connection import NativeEndpoints

UNIX = "unix://"
# What was sent last (results, a goodbye) may still go out for so long when a link is closed politely.
LINGER_SECONDS = 1.0
# A host that is gone answers no probe: noticed after this, and three more of them.
KEEPALIVE_SECONDS = 10


class Gone(Exception):
    """The connection is gone, or never was; the text says why."""


class Transport(Protocol):
    """One connection to one endpoint."""

    def pollables(self) -> list[tuple[Any, int]]:
        """(descriptor or ZeroMQ socket, poll flags) to wait for; ask again after each use: while it is the same, so is the list."""

    def send(self, parts: Sequence[Any]) -> bool:
        """Send a message; True when a part of it is kept because it cannot go at once.

        Raises Gone, but not where `receive` will, after what has arrived.
        """

    def receive(self) -> list[Any] | None:
        """The next message, or None when there is none yet. Raises Gone."""

    @property
    def has_more(self) -> bool:
        """True while `receive` has messages that no poll tells of."""

    def flush(self) -> bool:
        """Send what was kept; True while something is left. Raises as `send`."""

    def close(self, *, linger: bool) -> None:
        """Close; with `linger` what was sent may still go out, for a moment."""


class UnixTransport:
    """A stream to a Unix socket; connected at once.

    Raises:
        Gone: nobody listens there.
    """

    def __init__(self, address: str) -> None:
        # Whoever listens on a socket in our private directory is trusted as far as sizes go; the mac is checked by the session.
        limits = stream.PartLimits(32, 2**32, 2**40, 2**20)
        try:
            self._stream = stream.Stream(unix_sockets.connect(address.removeprefix(UNIX)), limits)
        except OSError as error:
            reason = "nobody listens" if error.errno in {errno.ENOENT, errno.ECONNREFUSED} else error.strerror
            raise Gone(f"{address}: {reason}") from error
        self._for_reading = [(self._stream.fileno(), select.POLLIN)]
        self._for_both = [(self._stream.fileno(), select.POLLIN | select.POLLOUT)]
        # True once nothing can be sent any more. What the controller said before it died is still to be read, and only `receive`
        # tells that it is gone: results that it had handed over would be lost with it.
        self._is_mute = False

    def pollables(self) -> list[tuple[Any, int]]:
        """See `Transport`."""
        return self._for_both if self._stream.wants_write and not self._is_mute else self._for_reading

    def send(self, parts: Sequence[Any]) -> bool:
        """See `Transport`."""
        if self._is_mute:
            return False
        try:
            return self._stream.send(parts)
        except stream.Closed:
            self._is_mute = True
            return False

    def receive(self) -> list[Any] | None:
        """See `Transport`."""
        try:
            parts = self._stream.receive()
        except (stream.Closed, stream.Malformed) as error:
            raise Gone(str(error)) from error
        if parts is not None and len(parts) > 2:
            parts[2:] = [memoryview(part) for part in parts[2:]]
        return parts

    @property
    def has_more(self) -> bool:
        """See `Transport`."""
        return self._stream.has_message

    def flush(self) -> bool:
        """See `Transport`."""
        if self._is_mute:
            return False
        try:
            self._stream.flush()
        except stream.Closed:
            self._is_mute = True
            return False
        return self._stream.wants_write

    def close(self, *, linger: bool) -> None:
        """See `Transport`."""
        deadline = time.monotonic() + (LINGER_SECONDS if linger else 0.0)
        with contextlib.suppress(stream.Closed):
            while self._stream.wants_write and (left := deadline - time.monotonic()) > 0:
                poller = select.poll()
                poller.register(self._stream.fileno(), select.POLLOUT)
                poller.poll(left * 1000)
                self._stream.flush()
        self._stream.close()


class ZmqTransport:
    """A DEALER; ZeroMQ dials by itself until somebody listens.

    Args:
        context: of this process.
        address: tcp://...
        endpoints: for the CURVE key.
    """

    def __init__(self, context: zmq.Context[Any], address: str, endpoints: NativeEndpoints) -> None:
        import zmq  # noqa: PLC0415 - 30 ms and 5 MB that an engine on one host never needs
        from zmq.utils.monitor import parse_monitor_message  # noqa: PLC0415

        self._again = zmq.Again
        self._error = zmq.ZMQError
        self._nowait = zmq.NOBLOCK
        self._more = zmq.RCVMORE
        self._disconnected = zmq.EVENT_DISCONNECTED
        self._parse = parse_monitor_message
        socket = self._socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)  # bounded by the session's window, which ZeroMQ does not know
        socket.setsockopt(zmq.RCVHWM, 0)
        # An engine that waits for work sends nothing: without probes it would never know that the controller's host is gone.
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_SECONDS)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_SECONDS)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        socket.setsockopt(zmq.RECONNECT_IVL, 20)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        socket.setsockopt(zmq.IPV6, int("[" in address))
        if endpoints.curve_serverkey:
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.curve_serverkey = endpoints.curve_serverkey.encode()
        self._monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            self.close(linger=False)
            raise Gone(f"{address}: {error.strerror}") from error
        self._pollables: list[tuple[Any, int]] = [(socket, zmq.POLLIN), (self._monitor, zmq.POLLIN)]

    def pollables(self) -> list[tuple[Any, int]]:
        """See `Transport`."""
        return self._pollables

    def send(self, parts: Sequence[Any]) -> bool:
        """See `Transport`."""
        try:
            self._socket.send_multipart(parts, self._nowait, copy=len(parts) <= 2)
        except self._error as error:
            raise Gone(error.strerror or str(error)) from error
        return False

    def receive(self) -> list[Any] | None:
        """See `Transport`."""
        socket = self._socket
        try:
            parts: list[Any] = [socket.recv(self._nowait)]
        except self._again:
            if self._is_disconnected():
                raise Gone("the controller closed the connection") from None
            return None
        # Mac and header as bytes: they are small and decoded at once. Payload as frames: not copied.
        while socket.getsockopt(self._more):
            parts.append(socket.recv(self._nowait) if len(parts) < 2 else socket.recv(self._nowait, copy=False).buffer)
        return parts

    @property
    def has_more(self) -> bool:
        """See `Transport`: its poll tells of all."""
        return False

    def flush(self) -> bool:
        """See `Transport`: ZeroMQ has threads for that."""
        return False

    def close(self, *, linger: bool) -> None:
        """See `Transport`."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=int(LINGER_SECONDS * 1000) if linger else 0)

    def _is_disconnected(self) -> bool:
        found = False
        while True:
            try:
                event = self._parse(self._monitor.recv_multipart(self._nowait))
            except self._again:
                return found
            found = found or event["event"] == self._disconnected

"""The ZeroMQ sockets that stock clients and engines connect to: bound, received from in bounded bursts, sent to without waiting.

Their descriptors are edge-triggered (zmq_getsockopt(3), ZMQ_FD): readable means "something has happened", and both receiving and sending
consume it. So a socket is read until it is empty, and one that was sent to is asked for its events before the loop sleeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import zmq
from zmq.backend import Socket as BackendSocket

from clusterd.controller.rebinding import rebind
from clusterd.controller.sockets import bind_one, candidates
from clusterd.core.model.connection import StockEndpoints
from clusterd.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from clusterd.core.model.secrets import Secrets

    Handler = Callable[[list[bytes], float], None]

CLIENT_SIDE: Final = ("registration", "notification", "control", "mux", "task", "broadcast", "iopub")
ENGINE_SIDE: Final = (
    "control_engine",
    "mux_engine",
    "task_engine",
    "broadcast_engine",
    "iopub_engine",
    "hb_ping",
    "hb_pong",
)
# Read in this order: signs of life and control before work.
READING_ORDER: Final = (
    "hb_pong",
    "registration",
    "control",
    "control_engine",
    "iopub_engine",
    "mux_engine",
    "task_engine",
    "broadcast_engine",
    "mux",
    "task",
    "broadcast",
    "iopub",
    "notification",
)
_KINDS: Final = {"notification": zmq.XPUB, "hb_ping": zmq.PUB, "iopub": zmq.XPUB, "iopub_engine": zmq.SUB}
# Not through `zmq.Socket.get`, which makes enums of numbers on the way.
_get: Final[Callable[[Any, int], Any]] = BackendSocket.get
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
_LAST: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
ZERO_COPY_BYTES: Final = 64 * 1024
BURST: Final = 64
"""Messages of one socket in one turn."""
MAX_REPLIES: Final = 1000
"""Messages that ZeroMQ takes for one peer of a ROUTER beyond what the kernel takes. The sender keeps what is beyond."""
MAX_PUBLISHED: Final = 50_000
"""Messages of output that a client may leave unread: the bound on what a stopped one costs. A busy one is far from it."""


class StockSockets:
    """All of them.

    Args:
        context: the process's.
        ip: an address of this host, or `*`.
        ports: those that may be used; empty for any.
        secrets: CURVE keys and kept ports (as `stock-NAME`); the ports bound are written back into it.
        curve: the sockets are CURVE servers.

    Raises:
        LaunchError: no port is free, or the address is not of this host.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        ip: str,
        ports: Sequence[int],
        secrets: Secrets,
        *,
        curve: bool,
    ) -> None:
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._handlers: dict[str, Handler] = {}
        self._fds: dict[str, int] = {}
        # Names of sockets that may hold something although their descriptor does not say so.
        self._pending: set[str] = set()
        self._touched: set[str] = set()
        # Names of sockets that are not read at present.
        self._held: frozenset[str] = frozenset()
        self._ip = ip
        self.ports: dict[str, int] = {}
        try:
            for name in (*CLIENT_SIDE, *ENGINE_SIDE):
                self._bind(context, name, ports, secrets, curve=curve)
        except LaunchError:
            self.close()
            raise

    def _bind(
        self, context: zmq.Context[zmq.Socket[bytes]], name: str, ports: Sequence[int], secrets: Secrets, *, curve: bool
    ) -> None:
        socket = self._sockets[name] = context.socket(_KINDS.get(name, zmq.ROUTER))
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, int(":" in self._ip))
        socket.setsockopt(zmq.BACKLOG, 1024)
        socket.setsockopt(zmq.RCVHWM, 0 if name == "iopub_engine" else 1000)
        socket.setsockopt(zmq.SNDHWM, MAX_PUBLISHED if name in {"iopub", "notification"} else MAX_REPLIES)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 10)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        if socket.socket_type == zmq.ROUTER:
            # Without it a message for a peer that is gone, or reads too slowly, vanishes silently.
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            # Engines have fixed identities: one that connects again takes the place of its dead connection.
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
            # Fixed, and all different: an engine's one ROUTER talks to three of ours, also after we were started again.
            socket.setsockopt(zmq.IDENTITY, f"clusterd-{name}".encode())
        if name == "iopub_engine":
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        if name == "notification":
            socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # of each subscriber, not only of the first
        if curve:
            socket.curve_server = True
            socket.curve_secretkey = secrets.curve_secret.encode()
        kept = secrets.ports.get(f"stock-{name}")
        try:
            port = bind_one(socket, self._ip, candidates(kept, ports))
        except zmq.ZMQError as error:
            raise LaunchError(
                f"cannot bind a port on {self._ip} for stock {name}: {error.strerror}",
                hint="Another process holds it, or the address is not of this host: see `ss -ltnp` and `ip address`.",
            ) from error
        self.ports[name] = secrets.ports[f"stock-{name}"] = port
        self._fds[name] = int(socket.getsockopt(zmq.FD))

    def endpoints(self, side: str, key: str, curve_serverkey: str | None, task_scheme: str) -> StockEndpoints:
        """What the connection file of one side (client, engine) says."""
        ports = self.ports
        host = f"[{self._ip}]" if ":" in self._ip else self._ip
        if side == "client":
            return StockEndpoints(
                interface=f"tcp://{host}",
                key=key,
                curve_serverkey=curve_serverkey,
                task_scheme=task_scheme,
                registration=ports["registration"],
                notification=ports["notification"],
                control=ports["control"],
                mux=ports["mux"],
                task=ports["task"],
                iopub=ports["iopub"],
                broadcast=ports["broadcast"],
            )
        return StockEndpoints(
            interface=f"tcp://{host}",
            key=key,
            curve_serverkey=curve_serverkey,
            registration=ports["registration"],
            control=ports["control_engine"],
            mux=ports["mux_engine"],
            task=ports["task_engine"],
            iopub=ports["iopub_engine"],
            broadcast=[ports["broadcast_engine"]],
            hb_ping=ports["hb_ping"],
            hb_pong=ports["hb_pong"],
        )

    def handle(self, name: str, handler: Handler) -> None:
        """Have what arrives on a socket given to `handler(frames, now)`."""
        self._handlers[name] = handler
        self._pending.add(name)

    @property
    def descriptors(self) -> list[int]:
        """What to poll for reading, of the sockets that have a handler."""
        return [self._fds[name] for name in self._handlers]

    @property
    def has_more(self) -> bool:
        """True while something may wait that no descriptor tells of: `receive` is to be called without sleeping."""
        for name in self._touched:
            if name in self._handlers and _is_readable(self._sockets[name]):
                self._pending.add(name)
        self._touched.clear()
        return bool(self._pending - self._held)

    def hold(self, names: Iterable[str]) -> None:
        """Read nothing from these sockets, and from all others: what is sent there waits with who sends it."""
        self._held = frozenset(names)

    def receive(self, readable: Container[int], now: float) -> None:
        """Hand out what has arrived: at most BURST messages of each socket."""
        for name in READING_ORDER:
            if name not in self._handlers or not (name in self._pending or self._fds[name] in readable):
                continue
            handler, socket = self._handlers[name], self._sockets[name]
            self._pending.add(name)
            if name in self._held:
                _is_readable(socket)  # or its descriptor would say the same again
                continue
            for _ in range(BURST):
                # To ask costs a twentieth of the exception that there is nothing.
                if not _is_readable(socket):
                    self._pending.discard(name)
                    break
                handler(_received(socket), now)

    def send(self, name: str, frames: Sequence[Any]) -> bool:
        """Send one message; False where the peer takes no more now.

        Raises:
            ConnectionError: the peer that its first frame names is not connected.
        """
        self._touched.add(name)
        send = self._sockets[name].send
        last = len(frames) - 1
        try:
            # Frame by frame: `send_multipart` works with flags that are enums, and to send small frames without a copy costs
            # ten times as much as the copy.
            for index, frame in enumerate(frames):
                send(frame, _MORE if index < last else _LAST, copy=len(frame) < ZERO_COPY_BYTES)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            raise ConnectionError("no such peer is connected") from None
        return True

    def send_tracked(self, name: str, frames: Sequence[Any]) -> zmq.MessageTracker | None:
        """As `send`, of a large message: what comes back is `done` when ZeroMQ needs its frames no more; None where it takes none now.

        Raises:
            ConnectionError: as `send`.
        """
        self._touched.add(name)
        try:
            return self._sockets[name].send_multipart(frames, zmq.NOBLOCK, copy=False, track=True)
        except zmq.Again:
            return None
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            raise ConnectionError("no such peer is connected") from None

    def rebind(self, secret: str) -> None:
        """Have all take another CURVE key; whoever is connected is cut off.

        Raises:
            LaunchError: a port was taken by somebody else meanwhile.
        """
        rebind(self._sockets.values(), secret)
        # That subscribers are gone is to be read.
        self._touched.update(self._sockets)

    def close(self) -> None:
        """Close all."""
        for socket in self._sockets.values():
            socket.close(linger=0)
        self._sockets.clear()

    def flush_and_close(self, names: Iterable[str], milliseconds: int) -> None:
        """Give last words on these sockets a moment to leave, then close all."""
        for name in names:
            self._sockets.pop(name).close(linger=milliseconds)
        self.close()


def _is_readable(socket: zmq.Socket[bytes]) -> bool:
    return bool(_get(socket, _EVENTS) & _POLLIN)


def _received(socket: zmq.Socket[bytes]) -> list[Any]:
    """The next message, of which there is one: `recv_multipart` asks for an option after each frame, which takes as long again."""
    frames: list[Any] = []
    while True:
        frame = socket.recv(_LAST, copy=False)
        frames.append(frame.bytes if len(frame) < ZERO_COPY_BYTES else frame.buffer)
        if not frame.more:
            return frames

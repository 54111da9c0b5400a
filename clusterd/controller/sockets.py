"""What the controller listens on: Unix sockets in a private directory, or ZeroMQ over TCP, with CURVE off loopback."""

from __future__ import annotations

import ipaddress
import random
import socket as stdlib_socket
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zmq

from clusterd.controller.rebinding import rebind
from clusterd.controller.servers import Server, UnixServer, ZmqServer
from clusterd.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clusterd.core.model.secrets import Secrets
    from clusterd.core.wire.messages import Limits

LOCAL_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST_PORT: Final = 10_000
TRIES: Final = 100
ENDPOINTS: Final = ("client-data", "client-control", "engine-data", "engine-control")


class Listening:
    """All and only the servers of one controller.

    Attributes:
        servers: by endpoint name.
        addresses: by endpoint name, what peers connect to.
        counters: by endpoint name, what was dropped there.
        is_unix: no TCP socket exists.
        has_curve: the sockets are CURVE servers.
    """

    def __init__(self, *, is_unix: bool, has_curve: bool) -> None:
        self.servers: dict[str, Server] = {}
        self.addresses: dict[str, str] = {}
        self.counters: dict[str, Counter[str]] = {name: Counter() for name in ENDPOINTS}
        self.is_unix = is_unix
        self.has_curve = has_curve

    def rebind(self, secret: str) -> None:
        """Have all take another CURVE key.

        Raises:
            LaunchError: a port was taken by somebody else meanwhile.
        """
        rebind([server.pollable() for server in self.servers.values()], secret)

    def close(self) -> None:
        """Stop listening."""
        for server in self.servers.values():
            server.close()
        self.servers.clear()


def bind_unix(directory: Path, limits: Limits) -> Listening:
    """Listen on Unix sockets in `directory`, which must be private (0700) already.

    Raises:
        LaunchError: another controller listens there, or the path is too long.
    """
    bound = Listening(is_unix=True, has_curve=False)
    for name in ENDPOINTS:
        path = directory / name
        if _is_listening(path):
            bound.close()
            raise LaunchError(
                f"another controller listens on {path}", hint="Stop it, or use another profile or directory."
            )
        path.unlink(missing_ok=True)  # a dead controller's
        try:
            bound.servers[name] = UnixServer(path, limits, bound.counters[name])
        except OSError as error:
            bound.close()
            raise LaunchError(f"cannot listen on {path}: {error.strerror or error}") from error
        bound.addresses[name] = f"unix://{path}"
    return bound


def bind_tcp(
    context: zmq.Context[zmq.Socket[bytes]],
    ip: str,
    location: str,
    ports: Sequence[int],
    secrets: Secrets,
    limits: Limits,
) -> Listening:
    """Bind TCP sockets on `ip`; CURVE unless that is loopback.

    Args:
        context: the process's context.
        ip: an address of this host, or `*`.
        location: what peers connect to where `ip` is a wildcard.
        ports: those that may be used; empty for any. Ports kept in `secrets` (reuse) are taken first.
        secrets: CURVE key and kept ports; the ports bound are written back into it.
        limits: sizes at which ZeroMQ cuts a peer.

    Raises:
        LaunchError: no port is free, or the address is not of this host.
    """
    bound = Listening(is_unix=False, has_curve=not is_loopback(ip))
    host = location if ip in {"*", "0.0.0.0", "::"} else ip  # noqa: S104 - only compared
    for name in ENDPOINTS:
        socket = _router(context, name, limits)
        bound.servers[name] = ZmqServer(socket)
        socket.setsockopt(zmq.IPV6, int(":" in ip))
        if bound.has_curve:
            socket.curve_server = True
            socket.curve_secretkey = secrets.curve_secret.encode()
        kept = secrets.ports.get(name)
        try:
            port = bind_one(socket, ip, candidates(kept, ports))
        except zmq.ZMQError as error:
            bound.close()
            wanted = (
                f"port {kept} (kept for reuse)"
                if kept
                else f"any of the ports {ports[0]}-{ports[-1]}"
                if ports
                else "a port"
            )
            raise LaunchError(
                f"cannot bind {wanted} on {ip} for {name}: {error.strerror}",
                hint="Another process holds it, or the address is not of this host: see `ss -ltnp` and `ip address`.",
            ) from error
        secrets.ports[name] = port
        bound.addresses[name] = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
    return bound


def is_loopback(ip: str) -> bool:
    """True for 127.0.0.0/8, ::1 and localhost."""
    try:
        return ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return ip == "localhost"


def parse_ports(text: str) -> list[int]:
    """Ports of `50000-50100`, `50000` or `50000,50002-50004`.

    Raises:
        ValueError: it is none of these; the text says so.
    """
    ports: list[int] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise ValueError(f"{part!r} is not a port or a range such as 50000-50100")
        low, high = int(first), int(last or first)
        if not 1 <= low <= high <= 65535:
            raise ValueError(f"{part!r} is not a range within 1-65535")
        ports.extend(range(low, high + 1))
    if text.strip() and len(ports) < len(ENDPOINTS):
        raise ValueError(f"{text!r} has {len(ports)} ports, the controller needs {len(ENDPOINTS)}")
    return ports


def _router(context: zmq.Context[zmq.Socket[bytes]], name: str, limits: Limits) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    # Without MANDATORY a message for a peer that is gone vanishes silently.
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    # A host that is gone says nothing: three probes without an answer end its connection, and sending to it tells.
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 10)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
    socket.setsockopt(zmq.SNDHWM, 0)  # bounded by each session's window instead
    socket.setsockopt(zmq.RCVHWM, 1000)
    socket.setsockopt(zmq.BACKLOG, 1024)  # 512 engines may knock at once
    socket.setsockopt(zmq.MAXMSGSIZE, limits.max_message if name.endswith("data") else limits.max_header)
    return socket


def candidates(kept: int | None, ports: Sequence[int]) -> Sequence[int]:
    """The ports to try, in order: the one kept for reuse, then those that may be used; where neither is named any.

    Any means: from below those that the kernel gives to outgoing connections. A peer that dials a dead controller's port again and again
    is given that very port for its own end sooner or later, is connected to itself, and the next controller finds it taken.
    """
    if kept:
        return [kept, *ports]
    if not ports:
        try:
            first = int(LOCAL_PORTS.read_text().split()[0])
        except (OSError, ValueError):
            first = 0
        some = random.sample(range(LOWEST_PORT, first), TRIES) if first - LOWEST_PORT >= TRIES else []
        return [*some, 0]
    return ports


def bind_one(socket: zmq.Socket[bytes], ip: str, ports: Iterable[int]) -> int:
    """Bind to the first of these ports that is free, and return it (0: any).

    Raises:
        zmq.ZMQError: none is.
    """
    last_error: zmq.ZMQError | None = None
    host = f"[{ip}]" if ":" in ip else ip
    for port in ports:
        try:
            socket.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError as error:
            last_error = error
            continue
        return int(socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
    raise last_error or zmq.ZMQError(zmq.EADDRINUSE)


def _is_listening(path: Path) -> bool:
    # bind(2) needs the old file gone, and to unlink a living controller's would cut it off silently.
    with stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True  # more wait to be accepted than it allows: it is stopped, or busy
        except OSError:
            return False
    return True

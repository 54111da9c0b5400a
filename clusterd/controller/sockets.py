"""The controller's four ROUTER sockets: ipc in a private directory, or TCP with CURVE off loopback."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket as stdlib_socket
from typing import TYPE_CHECKING, Final

import zmq

from clusterd.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from clusterd.controller.credentials import Secrets
    from clusterd.core.wire.messages import Limits

ENDPOINTS: Final = ("client-data", "client-control", "engine-data", "engine-control")


class BoundSockets:
    """All and only the sockets of one controller, bound.

    Attributes:
        sockets: by endpoint name.
        addresses: by endpoint name, what peers connect to.
        is_ipc: no TCP socket exists.
        has_curve: the sockets are CURVE servers.
    """

    def __init__(self) -> None:
        self.sockets: dict[str, zmq.Socket[bytes]] = {}
        self.addresses: dict[str, str] = {}
        self.is_ipc = True
        self.has_curve = False

    def close(self) -> None:
        """Close all of them and remove the files of the ipc ones."""
        for socket in self.sockets.values():
            socket.close(linger=0)
        for address in self.addresses.values():
            if address.startswith("ipc://"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(address.removeprefix("ipc://"))  # noqa: PTH108 - a string is what there is
        self.sockets.clear()


def bind_ipc(context: zmq.Context[zmq.Socket[bytes]], directory: Path, limits: Limits) -> BoundSockets:
    """Bind Unix sockets in `directory`, which must be private (0700) already.

    Raises:
        LaunchError: another controller listens there, or the path is too long.
    """
    bound = BoundSockets()
    for name in ENDPOINTS:
        path = directory / name
        if _is_listening(path):
            bound.close()
            raise LaunchError(
                f"another controller listens on {path}", hint="Stop it, or use another profile or directory."
            )
        socket = bound.sockets[name] = _router(context, name, limits)
        address = f"ipc://{path}"
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            bound.close()
            raise LaunchError(f"cannot bind {path}: {error.strerror}") from error
        path.chmod(0o600)
        bound.addresses[name] = address
    return bound


def bind_tcp(
    context: zmq.Context[zmq.Socket[bytes]],
    ip: str,
    location: str,
    ports: Sequence[int],
    secrets: Secrets,
    limits: Limits,
) -> BoundSockets:
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
    bound = BoundSockets()
    bound.is_ipc = False
    bound.has_curve = not is_loopback(ip)
    host = location if ip in {"*", "0.0.0.0", "::"} else ip  # noqa: S104 - only compared
    for name in ENDPOINTS:
        socket = bound.sockets[name] = _router(context, name, limits)
        socket.setsockopt(zmq.IPV6, int(":" in ip))
        if bound.has_curve:
            socket.curve_server = True
            socket.curve_secretkey = secrets.curve_secret.encode()
        kept = secrets.ports.get(name)
        try:
            port = _bind_one(socket, ip, [kept, *ports] if kept else ports or [0])
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
    socket.setsockopt(zmq.SNDHWM, 0)  # bounded by each session's window instead
    socket.setsockopt(zmq.RCVHWM, 1000)
    socket.setsockopt(zmq.BACKLOG, 1024)  # 512 engines may knock at once
    socket.setsockopt(zmq.MAXMSGSIZE, limits.max_message if name.endswith("data") else limits.max_header)
    return socket


def _bind_one(socket: zmq.Socket[bytes], ip: str, ports: Iterable[int]) -> int:
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
    # libzmq unlinks an existing socket file before it binds: a living controller's would be stolen silently.
    with stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True

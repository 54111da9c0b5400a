"""Another CURVE pair for a socket that is bound: ZeroMQ takes it with the next bind, and an unbind cuts off who is connected."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import zmq

from clusterd.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterable

TRIES: Final = 200
PAUSE_SECONDS: Final = 0.005
"""The listener is closed by ZeroMQ's thread, a millisecond later as a rule; until then the address is taken."""


def rebind(sockets: Iterable[zmq.Socket[Any]], secret: str) -> None:
    """Have sockets listen where they do, with another CURVE pair; whoever is connected has to connect again, with its public key.

    Raises:
        LaunchError: somebody else has taken an address meanwhile.
    """
    for socket in sockets:
        address = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        socket.unbind(address)
        socket.curve_secretkey = secret.encode()
        _bind(socket, address)


def _bind(socket: zmq.Socket[Any], address: str) -> None:
    for left in reversed(range(TRIES)):
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            if not left:
                raise LaunchError(f"cannot listen on {address} again: {error.strerror}") from error
            time.sleep(PAUSE_SECONDS)
        else:
            return

"""The one process of a `run_as` daemon that stays root: it has systemd start units as that user, and can do nothing else.

A right to start units (polkit: manage-units) is the right to become root, and engines run with the daemon's uid: so neither has it.
The daemon asks here, over a socketpair that was made before it gave root up; whatever is asked runs as `run_as`, in a unit whose
name begins with the cluster's. Forked before there is a thread, a lock or a journal; ends with the daemon, by EOF.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
from typing import Final

import msgspec
from msgspec import Struct

from clusterd.errors import LaunchError
from clusterd.launchers.base import Unknown
from clusterd.launchers.transient import DirectStarter, Order
from clusterd.system.service_manager import ANSWER_SECONDS, Manager

__all__ = ["Warden"]

_LINE: Final = re.compile(r"[ -~]{1,200}")
_VALUE: Final = re.compile(r"[A-Za-z0-9._-]{0,64}")
_MAX: Final = 65_536
_PATIENCE: Final = ANSWER_SECONDS + 2.0


class _Request(Struct):
    number: int
    start: Order | None = None
    forget: str = ""


class _Reply(Struct):
    number: int
    problem: str = ""
    hint: str = ""
    is_unknown: bool = False


class Warden:
    """The daemon's end.

    Args:
        connection: to the process that is root.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.settimeout(_PATIENCE)
        self._number = 0
        # Units are started by the loop, and forgotten by threads that have asked how one ended.
        self._lock = threading.Lock()

    @classmethod
    def fork(cls, cluster: str, user: str, daemon: str) -> Warden:
        """Leave a process behind that stays what we are now.

        Args:
            cluster: whose units it may start.
            user: whom they run as.
            daemon: the daemon's unit.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            try:
                # The journal and systemd's sockets are the daemon's; ours is to end when the last other end is closed.
                os.closerange(3, theirs.fileno())
                os.closerange(theirs.fileno() + 1, 1 << 20)
                _serve(theirs, cluster, DirectStarter(Manager("system"), daemon, user))
            finally:
                os._exit(0)
        theirs.close()
        return cls(ours)

    def start(self, order: Order) -> None:
        """Start a unit; raises as `Starter.start` does."""
        reply = self._ask(_Request(0, start=order))
        if reply.is_unknown:
            raise Unknown(reply.problem)
        if reply.problem:
            raise LaunchError(reply.problem, hint=reply.hint)

    def forget(self, unit: str) -> None:
        """Drop a unit that has failed."""
        with contextlib.suppress(LaunchError, Unknown):
            self._ask(_Request(0, forget=unit))

    def close(self) -> None:
        """Let it end."""
        self._connection.close()

    def _ask(self, request: _Request) -> _Reply:
        with self._lock:
            self._number += 1
            request.number = self._number
            try:
                self._connection.send(msgspec.json.encode(request))
                while data := self._connection.recv(_MAX):
                    reply = msgspec.json.decode(data, type=_Reply)
                    # A lower number answers a question that was given up.
                    if reply.number == self._number:
                        return reply
            except TimeoutError:
                raise Unknown("systemd did not answer") from None
            except OSError as error:
                raise _gone() from error
        raise _gone()


def _gone() -> LaunchError:
    return LaunchError(
        "the process that starts units for this daemon has ended", hint="restart the service: what runs goes on"
    )


def _serve(connection: socket.socket, cluster: str, starter: DirectStarter) -> None:
    """Do what is asked until the daemon is gone."""
    import setproctitle  # noqa: PLC0415 - the daemon imports it later

    setproctitle.setproctitle(f"clusterd warden {cluster}")
    # Meant for the daemon; we end with it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    prefix = f"clusterd-{cluster}-"
    while data := connection.recv(_MAX):
        connection.send(msgspec.json.encode(_answer(data, prefix, starter)))


def _answer(data: bytes, prefix: str, starter: DirectStarter) -> _Reply:
    number = 0
    try:
        request = msgspec.json.decode(data, type=_Request)
        number = request.number
        if request.start is not None:
            _check(request.start, prefix)
            starter.start(request.start)
        elif _is_ours(request.forget, prefix):
            starter.forget(request.forget)
    except Unknown as error:
        return _Reply(number, str(error), is_unknown=True)
    except LaunchError as error:
        return _Reply(number, error.message, error.hint or "")
    except msgspec.DecodeError as error:
        return _Reply(number, f"this is no order: {error}")
    return _Reply(number)


def _check(order: Order, prefix: str) -> None:
    """Refuse what the daemon would never ask for.

    Raises:
        LaunchError: it is such.
    """
    is_fit = (
        _is_ours(order.unit, prefix)
        and _LINE.fullmatch(order.description)
        and os.path.isabs(order.script)  # noqa: PTH117
        and 0 <= order.stop_timeout <= 1e6
        and all(_VALUE.fullmatch(name) and _VALUE.fullmatch(value) for name, value in order.fields.items())
    )
    if not is_fit:
        raise LaunchError(f"{order.unit!r} is no unit that this daemon may start")


def _is_ours(unit: str, prefix: str) -> bool:
    return unit.startswith(prefix) and re.fullmatch(r"[A-Za-z0-9._-]{1,240}\.service", unit) is not None

"""Systemd's side of the service: readiness, reload, stop, status line, passed sockets. Does nothing outside of a unit.

The variables that systemd gives to the daemon must not reach its children: an agent that inherits NOTIFY_SOCKET could
claim to be the service. `without_service_variables` takes them out.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Service", "notify", "passed_socket", "service", "without_service_variables"]

MANAGER_VARIABLE: Final = "CLUSTERD_MANAGER"
UNIT_VARIABLE: Final = "CLUSTERD_UNIT"
_FIRST_PASSED: Final = 3

# Those of sd_notify(3) and sd_listen_fds(3), systemd.exec(5), and our own units.
_SERVICE_VARIABLES = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "FDSTORE"}
    | {"INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "RUNTIME_DIRECTORY", "STATE_DIRECTORY"}
    | {MANAGER_VARIABLE, UNIT_VARIABLE}
)


class Service(NamedTuple):
    """The unit that we are.

    Attributes:
        scope: whose manager it is under.
        unit: its name.
    """

    scope: Literal["system", "user"]
    unit: str


def service() -> Service | None:
    """Return which unit we are, as the unit file says; None when we are none."""
    scope = os.environ.get(MANAGER_VARIABLE, "")
    # Both: a daemon that somebody starts by hand in a copied environment is no service.
    if "NOTIFY_SOCKET" not in os.environ or scope not in {"system", "user"}:
        return None
    return Service("user" if scope == "user" else "system", os.environ.get(UNIT_VARIABLE, ""))


def passed_socket() -> socket.socket | None:
    """Return the listening socket that systemd passed to this process (socket activation); None when it passed none."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS", "0") == "0":
        return None
    os.set_inheritable(_FIRST_PASSED, False)
    return socket.socket(fileno=_FIRST_PASSED)


def notify(*assignments: str) -> bool:
    """Send assignments such as `READY=1` or `STATUS=4 of 4 engines` (sd_notify(3)); False outside of a unit."""
    if "NOTIFY_SOCKET" not in os.environ:
        return False
    import sdnotify  # noqa: PLC0415 - agents and engines have no sdnotify, and most daemons no unit

    notifier = sdnotify.SystemdNotifier()
    try:
        notifier.notify("\n".join(assignments))
    finally:
        if notifier.socket is not None:
            notifier.socket.close()
    return True


def without_service_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of `environment` that is fit for a child."""
    return {name: value for name, value in environment.items() if name not in _SERVICE_VARIABLES}

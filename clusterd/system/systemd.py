"""Tells systemd about the service: readiness, reload, stop, status line. Does nothing outside of a unit.

The variables that systemd gives to the daemon must not reach its children: an agent that inherits NOTIFY_SOCKET could
claim to be the service. `without_service_variables` takes them out.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["notify", "without_service_variables"]

_SERVICE_VARIABLES = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "FDSTORE"}
)


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

"""The daemon as a unit of systemd (sd_notify(3)): ready, reloading, stopping, alive. Does nothing outside of one."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from clusterd.system.systemd import notify

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["ServiceManager"]


class ServiceManager:
    """Tells systemd; pats its watchdog from the loop, so that a loop that hangs is noticed.

    Args:
        loop: that is to turn.
        is_able: says whether the daemon could do what it is asked; while it cannot the watchdog is not patted.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, is_able: Callable[[], bool]) -> None:
        self._loop = loop
        self._is_able = is_able
        self._interval = _watchdog_interval()
        self._timer: asyncio.TimerHandle | None = None

    def ready(self) -> None:
        """Requests are answered; also the end of a reload."""
        notify("READY=1")
        if self._interval and self._timer is None:
            self._pat()

    def reloading(self) -> None:
        """A reload begins. systemd compares the time with that of its own signal (Type=notify-reload)."""
        notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        notify("STOPPING=1")

    def status(self, text: str) -> None:
        """Show a line in `systemctl status`."""
        notify(f"STATUS={text}")

    def close(self) -> None:
        """Pat no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _pat(self) -> None:
        if self._is_able():
            notify("WATCHDOG=1")
        self._timer = self._loop.call_later(self._interval, self._pat)


def _watchdog_interval() -> float:
    """Return the seconds between pats, half of what systemd allows (sd_watchdog_enabled(3)); 0 without a watchdog."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = os.environ.get("WATCHDOG_USEC", "0")
    return int(microseconds) / 2e6 if microseconds.isdecimal() else 0.0

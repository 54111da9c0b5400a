"""Runs the event loop of a daemon that has begun, and gives everything back when it is over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from clusterd.daemon import startup
from clusterd.daemon.loop import Daemon
from clusterd.daemon.status import is_idle

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterd.daemon.startup import Begun

__all__ = ["serve"]


def serve(begun: Begun, on_ready: Callable[[], None]) -> int:
    """Serve until told to end; return the exit status.

    Args:
        begun: what `startup.begin` made.
        on_ready: called once requests are answered.
    """

    async def run() -> int:
        return await Daemon(begun).run(begun.listener, on_ready)

    try:
        return asyncio.run(run())
    finally:
        startup.end(begun, is_idle=is_idle(begun.driver.supervisor))

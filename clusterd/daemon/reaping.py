"""Ends engines that go on without an agent: asked first, killed when the set's stop_timeout is over, told when none is left."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final

from clusterd.daemon import adoption
from clusterd.system import clock
from clusterd.system.process import ProcessHandle

if TYPE_CHECKING:
    from clusterd.core.model.launch import ProcessIdentity
    from clusterd.daemon.places import Places

__all__ = ["ended", "reap"]

AFTER_KILL: Final = 5.0
"""Seconds that a killed process has to vanish; one that waits for a dead file server may need for ever."""
LOOK_EVERY: Final = 0.1
"""Seconds between looks on kernels without pidfd."""


async def reap(unit: str, places: Places, stop_timeout: float) -> str:
    """End the engines of a set that run on this host; return what is wrong, nothing when none is left."""
    for number, patience in ((signal.SIGTERM, stop_timeout), (signal.SIGKILL, AFTER_KILL)):
        signalled = adoption.signal_engines(unit, places, number)
        await asyncio.gather(*(ended(identity, patience) for identity in signalled))
        # Looks again: it also removes the files of those that ended, and finds one that was forked meanwhile.
        if not list(adoption.engines_of(unit, places)):
            return ""
    left = [str(identity.pid) for _, identity in adoption.engines_of(unit, places)]
    return (
        f"engines do not end although they were killed (processes {', '.join(left)}): do they wait for a file system?"
    )


async def ended(identity: ProcessIdentity, patience: float) -> bool:
    """Wait for the end of a process; False when it runs on after `patience` seconds."""
    handle = ProcessHandle.open(identity)
    if handle is None:
        return True
    with handle:
        if handle.fileno() < 0:
            return await _look_until_ended(handle, patience)
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        loop.add_reader(handle.fileno(), over.set)
        try:
            async with asyncio.timeout(patience):
                await over.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(handle.fileno())
    return True


async def _look_until_ended(handle: ProcessHandle, patience: float) -> bool:
    deadline = clock.monotonic() + patience
    while handle.is_alive():
        if clock.monotonic() >= deadline:
            return False
        await asyncio.sleep(LOOK_EVERY)
    return True

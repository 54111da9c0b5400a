"""How much may wait in the client, and the wait of who wants to add more.

A bound in tasks and in bytes; above it the submitting thread is held until the I/O thread has sent a quarter of it. The I/O
thread itself (a callback that submits) is never held: it alone makes room. A thread that runs an event loop is held too,
but told so, because everything in that loop stands still meanwhile.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Final

from clusterd.client.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TASKS: Final = 1_000_000
MAX_BYTES: Final = 256 * 1024 * 1024
# A wait ends when there is room; this limit is for what nobody has thought of, and costs nothing.
_LOOK_AGAIN: Final = 1.0


class Room:
    """The bounds of one queue.

    Args:
        max_tasks: number of tasks.
        max_bytes: sum of their arguments.
    """

    def __init__(self, max_tasks: int = MAX_TASKS, max_bytes: int = MAX_BYTES) -> None:
        self.max_tasks = max_tasks
        self.max_bytes = max_bytes
        # Says whether the calling thread must not be held.
        self.is_exempt: Callable[[], bool] = lambda: False
        # Counted on entering and on leaving by different threads, each under its own lock: the differences are what waits.
        self._entered = self._entered_bytes = 0
        self._left = self._left_bytes = 0
        self._changed = Gate()
        self._is_awaited = False

    @property
    def is_full(self) -> bool:
        """True while nothing may enter."""
        return self._entered - self._left >= self.max_tasks or self._entered_bytes - self._left_bytes >= self.max_bytes

    def enter(self, size: int) -> None:
        """One task more; callers hold the book's lock."""
        self._entered += 1
        self._entered_bytes += size

    def leave(self, count: int, size: int) -> None:
        """Tasks less; I/O thread only."""
        self._left += count
        self._left_bytes += size
        if self._is_awaited and self._has_quarter:
            self.wake()

    @property
    def _has_quarter(self) -> bool:
        return (
            4 * (self._entered - self._left) <= 3 * self.max_tasks
            and 4 * (self._entered_bytes - self._left_bytes) <= 3 * self.max_bytes
        )

    def wake(self) -> None:
        """Have those who wait look again."""
        with self._changed.lock:
            self._is_awaited = False
            self._changed.notify_all()

    def wait(self, is_over: Callable[[], bool]) -> None:
        """Wait for room, or for the end of it all."""
        if self.is_exempt():
            return
        asyncio = sys.modules.get("asyncio")
        if asyncio is not None and asyncio._get_running_loop() is not None:  # noqa: SLF001 - documented as for such use
            warnings.warn(
                f"{self._entered - self._left} tasks wait in this client: submitting more blocks the event loop until some "
                "are sent; submit from `loop.run_in_executor`, or wait for results in between",
                RuntimeWarning,
                stacklevel=4,
            )
        with self._changed.lock:
            while self.is_full and not is_over():
                self._is_awaited = True
                self._changed.wait(_LOOK_AGAIN)

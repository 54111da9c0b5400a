"""Who turns the loop: the I/O thread, or a thread that waits for a result anyway.

A lone call would cost two switches between threads, 20 us each for the GIL alone, and as much again in wake-ups: 40 % of its round
trip. So a waiting thread takes the helm and the I/O thread stands aside, a while longer too, because another call mostly
follows. Invariants: only who holds `_lock` touches a socket; a signal handler raises in a waiting main thread only while it
polls, never in the middle of a message; whenever nobody turns the loop, the I/O thread will within `LINGER`.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from clusterd.client.wake import Alarm

LINGER: Final = 0.05
"""After a wait the I/O thread stays aside for so long. Work that users add wakes it at once; only notices wait."""
# A driver that leaves wakes the I/O thread; this limit is for what nobody has thought of, and costs nothing.
_MAX_REST: Final = 0.5
# Signals for which programs install handlers that raise. With one of these the main thread does not take the helm.
_RAISING: Final = tuple(
    getattr(signal, name) for name in ("SIGALRM", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP") if hasattr(signal, name)
)


class Turner(Protocol):
    """The loop, as the helm sees it."""

    # True once it must not be turned any more.
    is_over: bool

    def turn(self, longest: float, is_wanted: Callable[[], bool], on_poll: Callable[[bool], None]) -> None:
        """Poll and deal with what there is.

        Args:
            longest: seconds that the poll may take.
            is_wanted: looked at last before the poll; true: do not sleep.
            on_poll: called with True just before the poll and with False just after it.
        """

    @property
    def is_quiet(self) -> bool:
        """True while no answer is expected."""


class Helm:
    """The turn lock and its protocol.

    Args:
        loop: what is turned.
        alarm: what the loop polls, and rings when there is work.
    """

    def __init__(self, loop: Turner, alarm: Alarm) -> None:
        self._loop = loop
        self._alarm = alarm
        # Held by who turns the loop.
        self._lock = threading.Lock()
        # Held by the one waiter that drives.
        self._seat = threading.Lock()
        # True while a waiter drives or is about to.
        self._is_driven = False
        # Monotonic time until which the I/O thread stands aside.
        self._aside_until = 0.0
        # True while the I/O thread rests because somebody drives; `_look` ends that.
        self._is_resting = False
        self._look = threading.Event()
        # Identity of the thread inside `turn`; 0 for none.
        self._turning = 0
        # True while a signal handler may raise.
        self._is_safe = True
        self._is_interrupted = False

    @property
    def is_turning(self) -> bool:
        """True in the thread that turns the loop just now: in callbacks."""
        return self._turning == threading.get_ident()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep everybody from turning, for the end of the loop."""
        with self._lock:
            self._turning = threading.get_ident()
            try:
                yield
            finally:
                self._turning = 0

    # --- the I/O thread ---

    def run(self) -> None:
        """Turn the loop until it is over, whenever nobody else does."""
        while not self._loop.is_over:
            left = self._aside_until - time.monotonic()
            if self._is_driven:
                self._rest()
            elif left > 0:
                self._stand_aside(left)
            else:
                with self._lock:
                    self._turn(1.0, self._is_wanted)

    def _is_wanted(self) -> bool:
        return self._is_driven

    def _rest(self) -> None:
        # Both write first and read then: either the driver sees that it has to wake us, or we see that it has left.
        self._is_resting = True
        if self._is_driven:
            self._look.wait(_MAX_REST)
        self._is_resting = False
        self._look.clear()

    def _stand_aside(self, seconds: float) -> None:
        alarm = self._alarm
        alarm.is_awaited = True
        if not self._is_driven and (self._loop.is_over or not self._loop.is_quiet or alarm.sleep(seconds)):
            # Not cleared: who turns the loop next does, and that may be a driver.
            self._aside_until = 0.0
        alarm.is_awaited = False

    def recall(self) -> None:
        """Have the I/O thread turn the loop, at once."""
        self._aside_until = 0.0
        if self._is_resting:
            self._look.set()
        self._alarm.ring()

    # --- waiters ---

    def drive(self, is_pending: Callable[[], bool], deadline: float | None) -> None:
        """Turn the loop from this thread until nothing is pending; returns without that where it may not, or is not needed.

        Raises:
            KeyboardInterrupt: in the main thread, at a safe moment.
        """
        if self._loop.is_over or not self._seat.acquire(blocking=False):
            return
        try:
            if threading.current_thread() is not threading.main_thread():
                self._drive(is_pending, deadline)
            elif _is_interruptible_by_default():
                self._drive_in_main(is_pending, deadline)
        finally:
            self._seat.release()

    def _drive_in_main(self, is_pending: Callable[[], bool], deadline: float | None) -> None:
        self._is_safe, self._is_interrupted = True, False
        signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            self._drive(is_pending, deadline)
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._is_interrupted:
            raise KeyboardInterrupt

    def _on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_safe:
            raise KeyboardInterrupt
        self._is_interrupted = True

    def _drive(self, is_pending: Callable[[], bool], deadline: float | None) -> None:
        self._is_driven = True
        try:
            if not self._lock.acquire(blocking=False):
                # The I/O thread polls: it leaves at once.
                self._alarm.ring()
                self._lock.acquire()
            try:
                self._is_safe = False
                self._turn_until(is_pending, deadline)
            finally:
                self._is_safe = True
                self._lock.release()
        finally:
            self._leave()

    def _turn_until(self, is_pending: Callable[[], bool], deadline: float | None) -> None:
        loop = self._loop
        while is_pending() and not loop.is_over and not self._is_interrupted:
            longest = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            if longest <= 0:
                return
            self._turn(longest, _never)

    def _turn(self, longest: float, is_wanted: Callable[[], bool]) -> None:
        self._turning = threading.get_ident()
        try:
            self._loop.turn(longest, is_wanted, self._polls)
        finally:
            self._turning = 0

    def _polls(self, is_polling: bool) -> None:  # noqa: FBT001 - called with a name's worth of context
        self._is_safe = is_polling

    def _leave(self) -> None:
        loop = self._loop
        if loop.is_quiet and not loop.is_over:
            self._aside_until = time.monotonic() + LINGER
            self._is_driven = False
            if self._is_resting:
                self._look.set()
        else:
            self._is_driven = False
            self.recall()


def _never() -> bool:
    return False


def _is_interruptible_by_default() -> bool:
    getsignal = signal.getsignal
    if getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    return not any(callable(getsignal(number)) for number in _RAISING)

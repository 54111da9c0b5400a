"""Who turns the loop: the I/O thread, or a thread that waits for a result anyway.

A lone call would cost two switches between threads, 20 us each for the GIL alone, and as much again in wake-ups: 40 % of its round
trip. So a waiting thread takes the helm and the I/O thread stands aside, a while longer too, because another call mostly
follows. Invariants: only who holds `_lock` touches a socket; a signal handler raises in a main thread at the helm only while it
polls, never in the middle of a message; whenever nobody turns the loop, the I/O thread will within `LINGER`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # typeshed does not know it
import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from clusterd.client.future import PENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from clusterd.client.future import LightFuture
    from clusterd.client.wake import Alarm

LINGER: Final = 0.05
"""After a wait the I/O thread stays aside for so long. Work that users add wakes it at once; only notices wait."""
# While somebody drives it sleeps for so long; a driver that leaves wakes it where that is too long.
_MAX_REST: Final = 0.5
_NEVER: Final = float("inf")
# Signals for which programs install handlers that raise. With one of these the main thread does not take the helm.
_RAISING: Final = tuple(
    int(getattr(signal, name))
    for name in ("SIGALRM", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
    if hasattr(signal, name)
)
# Of CPython and PyPy: what `signal.signal` and `signal.getsignal` wrap to turn numbers into enums. A lone call would spend 10 us on
# that alone; here it is 0.5.
_set_handler: Final = _signal.signal
_get_handler: Final = _signal.getsignal
_SIGINT: Final = int(signal.SIGINT)


class Turner(Protocol):
    """The loop, as the helm sees it."""

    # True once it must not be turned any more.
    is_over: bool
    # Set by the helm: a waiter turns it, or wants to.
    is_claimed: bool
    # True while it polls.
    is_polling: bool

    def turn(self, longest: float, *, is_yielding: bool) -> None:
        """Poll and deal with what there is.

        Args:
            longest: seconds that the poll may take.
            is_yielding: do not sleep while it is claimed.
        """

    def send(self) -> bool:
        """Send what waits, as far as that goes without a wait; True when nothing is left."""

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
        # Monotonic time until which the I/O thread stands aside, unless there is work.
        self._aside_until = 0.0
        # Monotonic time until which it sleeps; 0 while it does not.
        self._sleeps_until = 0.0
        # Identity of the thread inside `turn`; 0 for none.
        self._turning = 0
        # Identity of the main thread.
        self._main = threading.main_thread().ident
        # True while our signal handler may raise whenever the loop polls: the main thread is at the helm.
        self._is_safe = False
        self._is_interrupted = False

    @property
    def is_driven(self) -> bool:
        """True while a thread that waits turns the loop."""
        return self._loop.is_claimed

    @property
    def is_turning(self) -> bool:
        """True in the thread that turns the loop just now: in callbacks."""
        turning = self._turning
        return turning != 0 and turning == threading.get_ident()

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
            if self._loop.is_claimed or self._aside_until > time.monotonic():
                self._stand_aside()
            else:
                with self._lock:
                    self._turning = threading.get_ident()
                    try:
                        self._loop.turn(1.0, is_yielding=True)
                    finally:
                        self._turning = 0

    def _stand_aside(self) -> None:
        alarm, loop = self._alarm, self._loop
        # Both write first and read then: either the driver that leaves sees that we sleep for long, or we that it has left.
        alarm.expect()
        self._sleeps_until = _NEVER
        now = time.monotonic()
        if loop.is_claimed:
            self._sleeps_until = now + _MAX_REST
        elif loop.is_over or not loop.is_quiet:
            self._aside_until = self._sleeps_until = 0.0
        else:
            self._sleeps_until = self._aside_until
        if self._sleeps_until > now:
            alarm.sleep(self._sleeps_until - now)
        self._sleeps_until = 0.0
        alarm.is_awaited = False

    def recall(self) -> None:
        """Have the I/O thread turn the loop, at once."""
        self._aside_until = 0.0
        self._alarm.rouse()

    # --- who submits ---

    def post(self) -> bool:
        """Send what waits from this thread, where nobody turns the loop; False: somebody else has to be woken.

        A lone call goes out a thread switch earlier. Its answer is read by who waits for it, or by the I/O thread within LINGER.
        """
        if self._loop.is_claimed or self._loop.is_over:
            return False
        if threading.get_ident() != self._main:
            return self._post()
        return _is_interruptible_by_default() and self._guarded(self._post)

    def _post(self) -> bool:
        if not self._lock.acquire(blocking=False):
            return False
        self._turning = threading.get_ident()
        try:
            return self._loop.send()
        finally:
            self._turning = 0
            self._lock.release()

    # --- waiters ---

    def drive(self, future: LightFuture, deadline: float | None) -> None:
        """Turn the loop from this thread until the future has ended; returns without that where it may not, or is not needed.

        Raises:
            KeyboardInterrupt: in the main thread, at a safe moment.
        """
        if self._loop.is_over:
            return
        if threading.get_ident() != self._main:
            self._drive(future, deadline, False)
        elif _is_interruptible_by_default():
            self._guarded(self._drive, future, deadline, True)

    def _guarded(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Act in the main thread; a KeyboardInterrupt comes at once while it polls, else at the end.

        Every lock is taken inside: an interrupt between `acquire` and `try` would leave it locked for ever.
        """
        self._is_safe = self._is_interrupted = False
        _set_handler(_SIGINT, self._on_interrupt)
        try:
            done = action(*arguments)
        finally:
            _set_handler(_SIGINT, signal.default_int_handler)
        if self._is_interrupted:
            raise KeyboardInterrupt
        return done

    def _on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_safe and self._loop.is_polling:
            # Once: what cleans up behind the first must not meet a second.
            self._is_safe = False
            raise KeyboardInterrupt
        self._is_interrupted = True

    def _drive(self, future: LightFuture, deadline: float | None, is_main: bool) -> None:  # noqa: FBT001 - see `drive`
        if not self._seat.acquire(blocking=False):
            return
        self._loop.is_claimed = True
        try:
            if not self._lock.acquire(blocking=False):
                # The I/O thread polls: it leaves at once.
                self._alarm.ring()
                self._lock.acquire()
            self._turning = threading.get_ident()
            self._is_safe = is_main
            try:
                self._turn_until(future, deadline)
            finally:
                self._is_safe = False
                self._turning = 0
                self._lock.release()
        finally:
            self._leave()
            self._seat.release()

    def _turn_until(self, future: LightFuture, deadline: float | None) -> None:
        loop = self._loop
        while future._state == PENDING and not loop.is_over and not self._is_interrupted:  # noqa: SLF001 - done() rings
            longest = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            if longest <= 0:
                return
            loop.turn(longest, is_yielding=False)

    def _leave(self) -> None:
        loop = self._loop
        if loop.is_quiet and not loop.is_over:
            self._aside_until = until = time.monotonic() + LINGER
            loop.is_claimed = False
            if self._sleeps_until > until:
                self._alarm.rouse()
        else:
            loop.is_claimed = False
            self.recall()


def _is_interruptible_by_default() -> bool:
    if _get_handler(_SIGINT) is not signal.default_int_handler:
        return False
    for number in _RAISING:  # noqa: SIM110 - this runs in every lone call, and a generator costs three times the loop
        if callable(_get_handler(number)):
            return False
    return True

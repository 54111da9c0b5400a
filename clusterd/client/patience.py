"""How long a controller may be silent: when to dial again, to warn, to give up. Pure; it counts only time that this process was awake.

A process that was stopped (SIGSTOP, a suspended laptop, C code that held the GIL) finds all its clocks advanced and would
blame the controller for its own absence: of each turn of the loop at most a second counts, and never the whole limit.
"""

from __future__ import annotations

from typing import Final

MAX_STEP: Final = 1.0
SILENT_INTERVALS: Final = 3.0
WARN_AFTER: Final = 3.0


class Patience:
    """Watches one controller.

    Args:
        limit: seconds without a working connection after which it is given up.
        now: monotonic time.
    """

    def __init__(self, limit: float, now: float) -> None:
        self.limit = limit
        self._last = now
        self._last_heard = now
        # Awake seconds since the control connection last brought anything.
        self.silence = 0.0
        # Awake seconds since both connections last worked.
        self.trouble = 0.0
        self._has_warned = False

    def turn(self, now: float, *, is_attached: bool, last_heard: float) -> None:
        """Account for one turn of the loop; call it after receiving, so that what has come counts."""
        # Half of a short limit: one turn alone, which may have been our own absence, never uses it up.
        step = min(max(now - self._last, 0.0), MAX_STEP, self.limit / 2)
        self._last = now
        if last_heard > self._last_heard:
            self._last_heard = last_heard
            self.silence = 0.0
        else:
            self.silence += step
        if is_attached and self.silence == 0.0:
            self.trouble = 0.0
            self._has_warned = False
        elif not is_attached or self.trouble:
            self.trouble += step

    def is_silent(self, interval: float) -> bool:
        """True when the connection should be replaced; starts the trouble."""
        if self.silence < SILENT_INTERVALS * interval:
            return False
        self.trouble = max(self.trouble, self.silence)
        # The next connection gets as much time as this one had.
        self.silence = 0.0
        return True

    @property
    def is_over(self) -> bool:
        """True when the controller is to be given up."""
        return self.trouble >= self.limit

    def must_warn(self) -> bool:
        """True once in each trouble that lasts."""
        if self.trouble < min(WARN_AFTER, self.limit) or self._has_warned:
            return False
        self._has_warned = True
        return True

    def next_look(self, now: float) -> float | None:
        """Monotonic time at which something may be due; None while all is well."""
        return now + 0.25 if self.trouble else None

"""When to start again what has ended: at once, later, or not before somebody says so. Used by daemon and agent alike.

The first replacement is immediate; each further failure doubles the pause, up to the policy's limit, less a jitter that
is a function of the seed (so that a thousand engines that lose one file server do not come back in step, and a test sees
the same times twice). So many failures within the policy's window are a crash loop. Whatever was healthy for a
while ends in a fresh failure, not in another of the same series. Time is an argument.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, assert_never
from zlib import crc32

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterd.core.model.profile import RestartPolicy

__all__ = ["HEALTHY_AFTER", "RestartAt", "Restarts", "StayDown"]

HEALTHY_AFTER: Final = 5.0
"""Seconds of being ready after which an end is no sequel of earlier ones. Longer than any import takes to fail."""

_JITTER: Final = 0.25
# 2.0 ** 1024 overflows; any sensible limit is reached long before.
_DOUBLINGS_MAX: Final = 64


class RestartAt(Struct, frozen=True):
    """Start it again at this time; not later than now means at once."""

    at: float


class StayDown(Struct, frozen=True):
    """Leave it down until it is resumed.

    Attributes:
        reason: a sentence for `status`, with the reason of the last end in it.
        is_crash_loop: it kept failing; otherwise the policy wants no restart.
    """

    reason: str
    is_crash_loop: bool


class Restarts:
    """The restarts of one thing: an engine's slot, an engine set's launches, a controller.

    Attributes:
        policy: may be exchanged at any time (reload); it holds from the next end on.
        failures: how many ends in a row were failures without a healthy time between: the length of the series.
    """

    def __init__(self, policy: RestartPolicy, seed: str) -> None:
        self.policy = policy
        self.failures = 0
        self._seed = seed
        # Times of the failures of the present series, oldest first; never more than the crash loop needs.
        self._times: deque[float] = deque()

    def ended(
        self, reason: str, now: float, *, healthy_for: float = 0.0, is_failure: bool = True
    ) -> RestartAt | StayDown:
        """Decide what follows an end that nobody asked for.

        Args:
            reason: why it ended, for people.
            now: when.
            healthy_for: seconds for which it was ready to work; 0 when it never was.
            is_failure: False for an exit with status 0.
        """
        match self.policy.policy:
            case "never":
                return StayDown(f"not restarted (restart policy: never): {reason}", is_crash_loop=False)
            case "on-failure" if not is_failure:
                return StayDown(f"not restarted (restart policy: on-failure): {reason}", is_crash_loop=False)
            case "on-failure" | "always":
                pass
            case _ as unreachable:
                assert_never(unreachable)
        if healthy_for >= HEALTHY_AFTER:
            self.resume()
        self.failures += 1
        loop = self.policy.crash_loop
        self._times.append(now)
        while self._times[0] < now - loop.within or len(self._times) > loop.failures:
            self._times.popleft()
        if len(self._times) >= loop.failures:
            return StayDown(
                f"crash loop: {loop.failures} failures within {now - self._times[0]:.0f} s; the last: {reason}",
                is_crash_loop=True,
            )
        return RestartAt(now + self._pause())

    @property
    def times(self) -> tuple[float, ...]:
        """When the last failures of the present series were, oldest first."""
        return tuple(self._times)

    def restore(self, failures: int, times: Iterable[float], now: float) -> None:
        """Take up a series that an earlier process has counted, on the same clock; one of an earlier boot is none of ours."""
        self._times = deque(time for time in times if time <= now)
        self.failures = failures if self._times else 0

    def resume(self) -> None:
        """Forget the failures so far: somebody has repaired the cause, or it was healthy for a while."""
        self.failures = 0
        self._times.clear()

    def _pause(self) -> float:
        if self.failures <= 1:
            return 0.0
        doublings = min(self.failures - 2, _DOUBLINGS_MAX)
        pause = min(self.policy.max_backoff, self.policy.initial_backoff * 2.0**doublings)
        fraction = crc32(f"{self._seed}:{self.failures}".encode()) / 2**32
        return pause * (1.0 - _JITTER * fraction)

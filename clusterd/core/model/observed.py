"""What was seen, when it was asked, and how we know. An observation without these two is a rumour.

`asked_at` is the moment the question was put, not that of the answer: whatever was done in between may or may not be in it.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct

__all__ = ["Observation"]

T = TypeVar("T")


class Observation(Struct, Generic[T], frozen=True):
    """A value with its age and its source.

    Attributes:
        value: what was seen.
        asked_at: when the question was put, on the clock of whoever holds the observation.
        evidence: how it is known, in words for people: `pidfd readable`, `squeue: exit status 1`.
    """

    value: T
    asked_at: float
    evidence: str = ""

    def age(self, now: float) -> float:
        """Return how many seconds ago it was asked."""
        return now - self.asked_at

    def is_newer_than(self, moment: float) -> bool:
        """Say whether it was asked after `moment`; equal times prove nothing."""
        return self.asked_at > moment

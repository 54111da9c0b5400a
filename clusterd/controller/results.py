"""Results between the event that tells the scheduler of them and the action that says what to do with them, or while that says Keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from clusterd.core.wire.messages import Result

    AnyResult = tuple[Result, Sequence[Any], Sequence[bytes]]


class Results:
    """Results that have come and are nobody's yet."""

    __slots__ = ("_kept", "in_hand")

    def __init__(self) -> None:
        # The one that the scheduler is being told of.
        self.in_hand: AnyResult | None = None
        # Those that it has said Keep to, by task.
        self._kept: dict[bytes, AnyResult] = {}

    def take(self, task: bytes) -> AnyResult:
        """The result that is in hand for this task, else the kept one; it is held no longer."""
        in_hand = self.in_hand
        if in_hand is not None and in_hand[0].task == task:
            self.in_hand = None
            return in_hand
        return self._kept.pop(task)

    def keep(self, task: bytes) -> None:
        """Hold the result that is in hand until its client comes for it."""
        self._kept[task] = self.take(task)

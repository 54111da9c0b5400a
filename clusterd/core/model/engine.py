"""An engine as the control plane sees it."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["EngineView"]


class EngineView(Struct, frozen=True):
    """One registered engine of a set.

    Attributes:
        slot: its place.
        launch: the launch of its agent.
        is_idle: it holds no task.
        started_at: wall time at which it was forked; the youngest has lost the least when it goes.
        wire_id: what clients call it; new for each incarnation.
    """

    slot: int
    launch: str
    is_idle: bool
    started_at: float = 0.0
    wire_id: int = -1

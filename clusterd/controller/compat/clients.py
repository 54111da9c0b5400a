"""Stock clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clusterd.controller.compat.edge import Edge


class Clients:
    """Stock clients."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        return None

    def tick(self, now: float) -> None:
        """Let time pass."""

    def close(self, now: float) -> None:
        """Say goodbye."""

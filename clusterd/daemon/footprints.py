"""What a command touches, as the plain data of the API: in the answer to the command, and in its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clusterd.core.supervisor.footprint import Footprint

__all__ = ["named"]


def named(footprint: Footprint) -> dict[str, Any]:
    """Return a footprint as plain data: what the answer to the command itself has, too."""
    return {
        "controller": footprint.controller or None,
        "sets": {
            unit: {
                "ends": list(touched.ends),
                "drains": list(touched.drains),
                "starts": list(touched.starts),
                "drain_timeout": touched.patience,
            }
            for unit, touched in footprint.sets.items()
        },
    }

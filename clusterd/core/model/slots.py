"""Sets of slots as people read and write them: `engines/0-127, 130`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["format_slots"]


def format_slots(engine_set: str, slots: Iterable[int]) -> str:
    """Return `engines/3`, `engines/0-127, 130`; the name of the set alone where there are none."""
    parts: list[list[int]] = []
    for slot in sorted(set(slots)):
        if parts and parts[-1][1] == slot - 1:
            parts[-1][1] = slot
        else:
            parts.append([slot, slot])
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
    return f"{engine_set}/{text}" if text else engine_set

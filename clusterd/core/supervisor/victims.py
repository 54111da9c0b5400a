"""Which engines go when a set is scaled down: empty places first, then the idle, then the youngest.

With launches of fixed capacity whole launches go first, least busy first, because a job ends only when all of its
slots are given up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from clusterd.core.model.engine import EngineView

__all__ = ["choose_victims"]


def choose_victims(
    slots: Sequence[int],
    engines: Iterable[EngineView],
    count: int,
    groups: Mapping[int, str] | None = None,
) -> list[int]:
    """Choose `count` of the slots.

    Args:
        slots: the wanted ones.
        engines: the registered engines, as last seen.
        count: how many go; at most as many as there are slots.
        groups: slot -> launch, where a launch can only end as a whole; None where each slot stands for itself.

    Returns:
        The chosen slots, ascending.
    """
    by_slot = {engine.slot: engine for engine in engines}

    def key(slot: int) -> tuple[bool, bool, float, int]:
        engine = by_slot.get(slot)
        if engine is None:
            return (False, False, 0.0, -slot)
        # Idle before busy; then the youngest, which has the least in its namespace; then the highest number.
        return (True, not engine.is_idle, -engine.started_at, -slot)

    if groups is None:
        return sorted(sorted(slots, key=key)[:count])
    members: dict[str, list[int]] = {}
    for slot in slots:
        # A slot that no launch holds is given up before any launch.
        members.setdefault(groups.get(slot, ""), []).append(slot)
    chosen: list[int] = []
    for group in sorted(members.values(), key=lambda group: (max(map(key, group)), -min(group))):
        chosen += sorted(group, key=key)[: count - len(chosen)]
    return sorted(chosen)

"""CHOOSES the flow that a task queues in: balanced, direct to an engine, or a pool for some engines.

A retry prefers engines that have not failed the task: it goes to a pool without them. That is a preference: it holds for
`retry_patience`, and only where another engine can take work. A preference without an end is how ipyparallel hangs with retries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterd.core.model.task import Place
from clusterd.core.scheduler.engine import CONDEMNED, DRAINING, SUSPECT, Pool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterd.core.scheduler.engine import Engine
    from clusterd.core.scheduler.state import State
    from clusterd.core.scheduler.tasks import Flow, Task

IDLE_POOLS: Final = 64
"""Pools without tasks that are kept: a view over the same targets will come again."""

NOT_USABLE: Final = SUSPECT | DRAINING | CONDEMNED


def route(state: State, task: Task, now: float) -> Flow | None:
    """Return the flow for a task, or None when no engine can ever run it."""
    target = task.target
    if isinstance(target, int):
        engine = state.engines.get(target)
        return None if engine is None else engine.direct.flow_of(task.client)
    if task.avoid:
        others = _others(state, task.avoid, target)
        if others is not None:
            state.timers.arm(others, now + state.settings.retry_patience)
            return others.fair.flow_of(task.client)
        task.avoid = frozenset()  # all have failed it that could take it: any will do
    if target is None:
        return task.client.flow
    if state.engines.keys().isdisjoint(target):
        return None
    return pool_for(state, target).fair.flow_of(task.client)


def is_usable(engine: Engine | None) -> bool:
    """Say whether an engine exists and takes shared work, now or soon."""
    return engine is not None and not engine.flags & NOT_USABLE


def any_usable(state: State, ids: Iterable[int]) -> bool:
    """Say whether one of these engines exists and takes shared work, now or soon."""
    return any(is_usable(state.engines.get(engine_id)) for engine_id in ids)


def _others(state: State, avoid: frozenset[int], target: frozenset[int] | None) -> Pool | None:
    """Return a pool of engines that are not to be avoided, or None where none of them can take work."""
    if target is None:
        avoid = avoid.intersection(state.engines)
        rest = (engine_id for engine_id in state.engines if engine_id not in avoid)
        return pool_for(state, avoid, is_avoiding=True) if avoid and any_usable(state, rest) else None
    target = target - avoid
    return pool_for(state, target) if any_usable(state, target) else None


def pool_for(state: State, ids: frozenset[int], *, is_avoiding: bool = False) -> Pool:
    """Return the pool for these engines (or all others), made at its first use."""
    key = (ids, is_avoiding)
    pool = state.pools.get(key)
    if pool is None:
        if len(state.pools) >= IDLE_POOLS:
            for idle in [old for old in state.pools.values() if not old.fair.queued()]:
                drop_pool(state, idle)
        if is_avoiding:
            members = [engine for engine in state.engines.values() if engine.id not in ids]
        else:
            members = [engine for engine in map(state.engines.get, sorted(ids)) if engine is not None]
        pool = state.pools[key] = Pool(ids, members, is_avoiding=is_avoiding)
    return pool


def drop_pool(state: State, pool: Pool) -> None:
    """Forget a pool without tasks."""
    del state.pools[(pool.ids, pool.is_avoiding)]
    if pool.is_waiting:
        for engine in pool.members:
            engine.pools.remove(pool)
        pool.is_waiting = False
    for flow in pool.fair.flows.values():
        flow.client.flows.remove(flow)


def empty(pool: Pool, *, only_avoiding: bool = False) -> list[Task]:
    """Take the queued tasks out of a pool (only those that avoid engines), and return them in order."""
    taken: list[Task] = []
    for flow in pool.fair.flows.values():
        queued = [task for task in flow.tasks if task.place is Place.QUEUED]
        moved = [task for task in queued if task.avoid or not only_avoiding]
        if not moved:
            continue
        taken += moved
        flow.tasks.clear()
        flow.tasks.extend(task for task in queued if only_avoiding and not task.avoid)
        flow.dead = 0
        if flow.is_active and not flow.tasks:
            flow.is_active = False
            pool.fair.ring.remove(flow)
    return taken

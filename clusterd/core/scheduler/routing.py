"""CHOOSES the flow that a task queues in: balanced, direct to an engine, or a pool for some engines.

A retry prefers engines that have not failed the task: it goes to a pool without them. That is a preference: it holds for
`retry_patience`, and only where another engine can take work. A preference without an end is how ipyparallel hangs with retries; but a
task with a `max_wait` says itself how long that may be. An engine that refuses a task is out of the question for ever.
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


def route(state: State, task: Task, now: float, *, is_patient: bool = True) -> Flow | None:
    """Return the flow for a task, or None when no engine can ever run it. `is_patient`: a retry may still prefer other engines."""
    target = task.target
    if isinstance(target, int):
        engine = None if target in task.refused else state.engines.get(target)
        return None if engine is None else engine.direct.flow_of(task.client)
    task.is_choosy = False
    if task.avoid and is_patient:
        others = _others(state, task, target, now)
        if others is not None:
            return others.fair.flow_of(task.client)
    if target is None:
        pool = _all_but(state, task.refused) if task.refused else None
        return task.client.flow if pool is None else pool.fair.flow_of(task.client)
    if task.refused:
        target -= task.refused
    pool = state.pools.get((target, False))
    if pool is None:
        if state.engines.keys().isdisjoint(target):
            return None
        pool = pool_for(state, target)
    return pool.fair.flow_of(task.client)


def is_usable(engine: Engine | None) -> bool:
    """Say whether an engine exists and takes shared work, now or soon."""
    return engine is not None and not engine.flags & NOT_USABLE


def any_usable(state: State, ids: Iterable[int]) -> bool:
    """Say whether one of these engines exists and takes shared work, now or soon."""
    return any(is_usable(state.engines.get(engine_id)) for engine_id in ids)


def _others(state: State, task: Task, target: frozenset[int] | None, now: float) -> Pool | None:
    """Return a pool of engines that have not failed a task, or None where it is to take any."""
    engines = state.engines.keys()
    barred = task.avoid | task.refused
    others = (engine_id for engine_id in (engines if target is None else target) if engine_id not in barred)
    if task.spec.max_wait is None:
        if engines.isdisjoint(task.avoid) or not any_usable(state, others):
            return None
        task.is_choosy = True
    elif target is not None and engines.isdisjoint(others):
        return None  # ids never come again: to wait for another would be in vain
    pool = _all_but(state, barred) if target is None else pool_for(state, target - barred)
    if pool is not None and task.is_choosy:
        state.timers.arm(pool, now + state.settings.retry_patience)
    return pool


def _all_but(state: State, ids: frozenset[int]) -> Pool | None:
    """Return the pool of all other engines, those that are to come included; None where none of these exists any more."""
    living = ids.intersection(state.engines)
    return pool_for(state, living, is_avoiding=True) if living else None


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


def empty(pool: Pool, *, only_choosy: bool = False) -> list[Task]:
    """Take the queued tasks out of a pool (only those that prefer it), and return them in order."""
    taken: list[Task] = []
    for flow in pool.fair.flows.values():
        queued = [task for task in flow.tasks if task.place is Place.QUEUED]
        moved = [task for task in queued if task.is_choosy or not only_choosy]
        if not moved:
            continue
        taken += moved
        flow.tasks.clear()
        flow.tasks.extend(task for task in queued if only_choosy and not task.is_choosy)
        flow.dead = 0
        if flow.is_active and not flow.tasks:
            flow.is_active = False
            pool.fair.ring.remove(flow)
    return taken

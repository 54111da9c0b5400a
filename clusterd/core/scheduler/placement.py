"""PLACES queued tasks on engines: `settle` gives out all that can be given, and is called once after a batch of events.

An engine takes work while what it holds is expected to run for less than its window. So a long or unknown task is never followed by
another (its weight fills the window), and many short ones travel together. Targeted work (direct, pooled) and balanced work share an
engine by `debt`; direct and pooled work take turns to go first. Each step is O(1) amortised, but for a pool: it looks at a few members.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterd.core.model.task import Place
from clusterd.core.scheduler.actions import Dispatch, Drained
from clusterd.core.scheduler.dependencies import resolve
from clusterd.core.scheduler.engine import CLOSED_TO_ALL, DRAINING, LOOKS
from clusterd.core.scheduler.fairness import take, wake
from clusterd.core.scheduler.schemes import Seats
from clusterd.core.scheduler.watch import stall

if TYPE_CHECKING:
    from clusterd.core.scheduler.engine import Engine, Pool
    from clusterd.core.scheduler.state import Out, State
    from clusterd.core.scheduler.tasks import Task

_HELD: Final = Place.HELD

HEAD_START: Final = 0.02
"""Seconds of balanced work on an engine that targeted work may catch up with: what was before nobody waited."""


def settle(state: State, now: float, out: Out) -> None:
    """Tell dependents, then give out all that engines take."""
    if state.resolving:
        resolve(state, now, out)
    if state.ready_engines or state.ready_pools:
        _serve_targeted(state, now, out)
    if state.balanced.ring:
        _serve_balanced(state, now, out)
        if state.ready_engines or state.ready_pools:  # those that let balanced work go first, and it has ended
            _serve_targeted(state, now, out)
    if state.draining:
        _tell_drained(state, out)


def _dispatch(state: State, engine: Engine, task: Task, now: float, out: Out) -> None:
    held = engine.held
    if held:
        # Somebody waits behind the head from now on: it is to be noticed when that runs over.
        late = engine.head_since + state.overrun
        if late < engine.watch_at:
            state.timers.arm(engine, late)
    else:
        engine.head_since = now
    timeout = task.timeout
    if timeout is not None:
        engine.timed += 1
        if not held:
            state.timers.arm(engine, now + timeout)
    task.place = _HELD
    task.engine = engine
    task.attempt = attempt = task.attempt + 1
    engine.order = task.order = order = engine.order + 1
    task.weight = weight = task.function.weight
    task.dispatched = now
    held[task.id] = task
    engine.load += weight
    engine.bytes += task.size
    state.levels.update(engine)
    out.append(Dispatch(task.id, engine.id, attempt, order))


def _serve_balanced(state: State, now: float, out: Out) -> None:
    balanced = state.balanced
    ring = balanced.ring
    pick = state.levels.pick
    on_time = now - state.overrun
    while ring:
        engine = pick()
        if engine is None:
            return
        if engine.held and engine.head_since <= on_time:
            stall(state, engine, now, out)
            continue
        task = take(balanced)
        if task.client.goes_round:
            engine = state.levels.rested(engine)
        engine.debt -= task.function.share
        _dispatch(state, engine, task, now, out)


def _serve_targeted(state: State, now: float, out: Out) -> None:
    engines, state.ready_engines = state.ready_engines, []
    pools, state.ready_pools = state.ready_pools, []
    for engine in engines:
        engine.is_ready = False
    for pool in pools:
        pool.is_ready = False
    is_pools_turn = state.is_pools_turn
    state.is_pools_turn = not is_pools_turn
    if is_pools_turn:
        for pool in pools:
            _serve_pool(state, pool, now, out)
    for engine in engines:
        _serve_direct(state, engine, now, out)
    if not is_pools_turn:
        for pool in pools:
            _serve_pool(state, pool, now, out)


def _serve_direct(state: State, engine: Engine, now: float, out: Out) -> None:
    direct = engine.direct
    while direct.ring and _takes(state, engine, now, out):
        if engine.debt > 0.0 and state.balanced.ring and not engine.flags & DRAINING:
            wake(state, engine)
            return
        _dispatch_targeted(state, engine, take(direct), now, out)


def _serve_pool(state: State, pool: Pool, now: float, out: Out) -> None:
    fair = pool.fair
    while fair.ring:
        engine = _pick(state, pool, now, out)
        if engine is None:
            break
        _dispatch_targeted(state, engine, take(fair), now, out)
    # Members tell a pool that waits when they have room; one that does not costs them nothing.
    if bool(fair.ring) is not pool.is_waiting:
        pool.is_waiting = not pool.is_waiting
        for engine in pool.members:
            if pool.is_waiting:
                engine.pools.append(pool)
            else:
                engine.pools.remove(pool)


def _pick(state: State, pool: Pool, now: float, out: Out) -> Engine | None:
    """Return the member that is to take the pool's next task: an idle one, else the least loaded of the first few that take any."""
    levels = state.levels
    if isinstance(levels, Seats):
        takers = _takers(state, pool, now, out)
        return levels.among(takers) if takers else None
    members = pool.members
    count = len(members)
    best: Engine | None = None
    cursor = pool.cursor
    for step in range(count):
        index = (cursor + step) % count
        engine = members[index]
        if engine.level < 0 or not _takes(state, engine, now, out):
            continue
        if engine.debt > 0.0 and state.balanced.ring:
            wake(state, pool)
            continue
        if best is None or engine.level < best.level:
            best = engine
            pool.cursor = index + 1
        if best.level == 0 or step >= LOOKS:
            break
    return best


def _takers(state: State, pool: Pool, now: float, out: Out) -> list[Engine]:
    """Return all members that are to take a task now, for a scheme that has its own choice among them."""
    takers = [engine for engine in pool.members if engine.level >= 0 and _takes(state, engine, now, out)]
    if not state.balanced.ring:
        return takers
    first = [engine for engine in takers if engine.debt <= 0.0]
    if len(first) < len(takers):
        wake(state, pool)
    return first


def _takes(state: State, engine: Engine, now: float, out: Out) -> bool:
    """Say whether an engine takes a task now; one whose head runs over is stalled on the way."""
    if engine.flags & CLOSED_TO_ALL or not engine.has_window():
        return False
    if engine.held and engine.head_since + state.overrun <= now:
        stall(state, engine, now, out)
        return False
    return True


def _dispatch_targeted(state: State, engine: Engine, task: Task, now: float, out: Out) -> None:
    engine.debt = max(engine.debt, -HEAD_START) + task.function.share
    _dispatch(state, engine, task, now, out)


def _tell_drained(state: State, out: Out) -> None:
    for engine in [engine for engine in state.draining.values() if not engine.held and not engine.direct.queued()]:
        del state.draining[engine.id]
        out.append(Drained(engine.id))

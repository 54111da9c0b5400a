"""TAKES what happens to engines: they come, are suspected, return, drain, are lost, and say what they hold.

An engine is lost only by an EngineLost event; silence makes it a suspect, which gets nothing new and keeps what it has. What a
lost one certainly had not begun is queued again without a charge; what it may have begun costs a retry, or fails with what is
known of its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.core.model.task import Place, Reason
from clusterd.core.scheduler.completion import give_back
from clusterd.core.scheduler.engine import CONDEMNED, DRAINING, SUSPECT, Engine
from clusterd.core.scheduler.fairness import reopen
from clusterd.core.scheduler.outcomes import fail, put_back, queue_or_fail, retry_or_fail
from clusterd.core.scheduler.recovery import adopt_reported, bereave, disown
from clusterd.core.scheduler.routing import drop_pool, empty

if TYPE_CHECKING:
    from clusterd.core.scheduler.events import (
        EngineAttached,
        EngineDraining,
        EngineInventory,
        EngineLost,
        EngineReturned,
        EngineSuspected,
        EngineUndrained,
    )
    from clusterd.core.scheduler.state import Out, State
    from clusterd.core.scheduler.tasks import Task


def engine_attached(state: State, event: EngineAttached, _now: float, _out: Out) -> None:
    """Take an engine in. One that is known has returned: ids are never reused."""
    engine = state.engines.get(event.engine)
    if engine is None:
        engine = state.engines[event.engine] = Engine(event, state.settings)
        for pool in state.pools.values():
            if (engine.id in pool.ids) is not pool.is_avoiding:
                pool.members.append(engine)
                if pool.is_waiting:
                    engine.pools.append(pool)
    engine.flags &= ~SUSPECT
    reopen(state, engine)


def engine_suspected(state: State, event: EngineSuspected, _now: float, _out: Out) -> None:
    """Give it nothing new."""
    engine = state.engines.get(event.engine)
    if engine is not None:
        engine.flags |= SUSPECT
        state.levels.update(engine)


def engine_returned(state: State, event: EngineReturned, _now: float, _out: Out) -> None:
    """Give it work again."""
    engine = state.engines.get(event.engine)
    if engine is not None:
        engine.flags &= ~SUSPECT
        reopen(state, engine)


def engine_draining(state: State, event: EngineDraining, _now: float, _out: Out) -> None:
    """Give it no new work; `settle` reports when it has none left."""
    engine = state.engines.get(event.engine)
    if engine is not None:
        engine.flags |= DRAINING
        state.draining[engine.id] = engine
        reopen(state, engine)


def engine_undrained(state: State, event: EngineUndrained, _now: float, _out: Out) -> None:
    """Give it work again."""
    engine = state.engines.get(event.engine)
    if engine is not None:
        engine.flags &= ~DRAINING
        state.draining.pop(engine.id, None)
        reopen(state, engine)


def engine_inventory(state: State, event: EngineInventory, now: float, out: Out) -> None:
    """Reconcile what it is believed to hold with what it does."""
    engine = state.engines.get(event.engine)
    if engine is None:
        return
    reported = set(event.held)
    missing = [task for task in engine.held.values() if (task.id, task.attempt) not in reported]
    for task in reversed(missing):  # each goes to the front of its flow: the last one first keeps their order
        give_back(state, engine, task, f"{engine.name} does not hold it any more", now, out)
    disown(state, engine, reported)
    for task_id, attempt in event.held:
        adopt_reported(state, engine, task_id, attempt, now, out)
    reopen(state, engine)


def engine_lost(state: State, event: EngineLost, now: float, out: Out) -> None:
    """Queue again or fail what it held, and fail what only it could have run."""
    engine = state.engines.pop(event.engine, None)
    if engine is None:
        return
    state.completed += engine.completed
    was_condemned = bool(engine.flags & CONDEMNED)
    engine.flags |= CONDEMNED
    state.levels.update(engine)
    state.draining.pop(engine.id, None)
    text = f"{engine.name} was lost: {event.cause}"
    if event.last_output:
        text = f"{text}; its last output: {event.last_output}"
    bereave(state, engine, text, now)
    homeless = _leave_pools(state, engine)
    held = list(engine.held.values())
    engine.held.clear()
    _judge(state, event, held, text, now, out, is_innocent=event.is_wanted or was_condemned)
    for task in homeless:
        queue_or_fail(state, task, Reason.UNSCHEDULABLE, text, now, out)
    for flow in engine.direct.flows.values():
        flow.client.flows.remove(flow)
        for task in flow.tasks:
            if task.place is Place.QUEUED:
                fail(state, task, Reason.UNSCHEDULABLE, f"{text}; it had not begun", now, out)
        flow.tasks.clear()
    engine.direct.ring.clear()


def _leave_pools(state: State, engine: Engine) -> list[Task]:
    """Take an engine out of all pools; return the tasks of those that are left without any: they may have nobody else to wait for."""
    homeless: list[Task] = []
    engine.pools.clear()
    for pool in list(state.pools.values()):
        if engine in pool.members:
            pool.members.remove(engine)
            if not pool.members:
                homeless += empty(pool)
                drop_pool(state, pool)
    return homeless


def _judge(
    state: State, event: EngineLost, held: list[Task], text: str, now: float, out: Out, *, is_innocent: bool
) -> None:
    """Decide for each task that a lost engine held. Execution is in order: evidence of one that ran tells of all others."""
    known = [index for index, task in enumerate(held) if task.id == event.running]
    at = known[0] if known else 0
    begun = held[: at + 1] if known else held
    for task in reversed(held[len(begun) :]):
        put_back(state, task, text, now, out)
    for index, task in enumerate(begun):
        if index == at and task.interrupted is not None:
            over = f"it ran over its timeout of {task.timeout:g} s and ignored an interrupt: {text}"
            retry_or_fail(state, task, Reason.TIMEOUT, over, now, out)
            continue
        if index == at and not is_innocent:
            task.kills += 1
        retry_or_fail(state, task, Reason.ENGINE_LOST, text, now, out)

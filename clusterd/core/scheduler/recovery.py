"""RECONCILES what is believed of an engine with what it says it holds, after its link or this controller was gone.

What it holds and is known is adopted. What was dispatched to it and it does not hold never arrived: it is queued again. What
nobody here has submitted is an orphan: its client will offer it again and find it running, or finished. No new work goes to an
engine that runs orphans: how long they take is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterd.core.model.task import Place
from clusterd.core.scheduler.actions import AdoptUnknown, Discard, Keep, WhyDiscarded
from clusterd.core.scheduler.engine import OCCUPIED
from clusterd.core.scheduler.fairness import reopen, withdraw
from clusterd.core.scheduler.orphans import Orphan
from clusterd.core.scheduler.runtimes import CLOSED

if TYPE_CHECKING:
    from collections.abc import Collection

    from clusterd.core.model.task import TaskId
    from clusterd.core.scheduler.engine import Engine
    from clusterd.core.scheduler.events import TaskFinished, TaskNotRun
    from clusterd.core.scheduler.state import Out, State
    from clusterd.core.scheduler.tasks import Task

_QUEUED: Final = Place.QUEUED


def adopt(state: State, engine: Engine, task: Task, attempt: int, now: float) -> None:
    """Book a task as held by an engine that was not told to run it by this controller."""
    if engine.held:
        state.timers.arm(engine, engine.head_since + state.overrun)
    else:
        engine.head_since = now
    task.place = Place.HELD
    task.engine = engine
    task.attempt = attempt
    task.order = 0
    task.weight = CLOSED  # it is not known when it began
    task.dispatched = now
    engine.held[task.id] = task
    engine.load += CLOSED
    engine.bytes += task.size
    if task.timeout is not None:
        engine.timed += 1
        state.timers.arm(engine, engine.head_since + task.timeout)
    state.levels.update(engine)


def adopt_reported(state: State, engine: Engine, task_id: TaskId, attempt: int, now: float, out: Out) -> None:
    """Book what an engine says it holds, unless it is known better."""
    task = state.tasks.get(task_id)
    if task is None:
        orphan = state.orphanage.running.get(task_id)
        if orphan is None and task_id not in state.orphanage.finished:
            state.orphanage.running[task_id] = Orphan(engine, attempt)
            state.orphanage.lost.pop(task_id, None)  # that was another attempt
            engine.orphans += 1
            engine.flags |= OCCUPIED
            state.levels.update(engine)
            out.append(AdoptUnknown(task_id, engine.id, attempt))
    elif task.place is _QUEUED and attempt >= task.attempt:
        withdraw(task)
        adopt(state, engine, task, attempt, now)
    # Else it is held by another engine, or has ended, or waits for its dependencies: this execution is stale, and its result is fenced.


def adopt_submitted(state: State, task: Task, now: float) -> Orphan | None:
    """Return the orphan that a new task is, if any: one that runs is adopted here, a result or an end is left to the caller."""
    orphanage = state.orphanage
    orphan = orphanage.running.pop(task.id, None)
    if orphan is not None:
        adopt(state, orphan.engine, task, orphan.attempt, now)
        _one_less(state, orphan.engine)
        return orphan
    orphan = orphanage.finished.pop(task.id, None) or orphanage.lost.pop(task.id, None)
    if orphan is not None:
        task.attempt = orphan.attempt
        task.engine = orphan.engine
    return orphan


def orphan_finished(state: State, event: TaskFinished, now: float, out: Out) -> bool:
    """Keep the result of an orphan; say whether the event was one."""
    orphanage = state.orphanage
    orphan = orphanage.running.get(event.task)
    if orphan is None or orphan.attempt != event.attempt or orphan.engine.id != event.engine:
        return False
    del orphanage.running[event.task]
    _one_less(state, orphan.engine)
    orphan.result = event
    orphan.until = now + state.settings.orphan_patience
    orphanage.finished[event.task] = orphan
    out.append(Keep(event.task, event.engine, event.attempt))
    if len(orphanage.finished) > state.settings.max_orphans:
        _give_up(state, next(iter(orphanage.finished)), out)
    state.timers.arm(orphanage, orphan.until)
    return True


def orphan_not_run(state: State, event: TaskNotRun) -> None:
    """Forget an orphan that will not run: when it is offered again it is a new task."""
    orphan = state.orphanage.running.get(event.task)
    if orphan is not None and orphan.engine.id == event.engine:
        del state.orphanage.running[event.task]
        _one_less(state, orphan.engine)


def expire(state: State, now: float, out: Out) -> None:
    """Give up results and ends that nobody has asked for in time."""
    orphanage = state.orphanage
    for task_id in [task_id for task_id, orphan in orphanage.lost.items() if orphan.until <= now]:
        del orphanage.lost[task_id]
    for task_id in [task_id for task_id, orphan in orphanage.finished.items() if orphan.until <= now]:
        _give_up(state, task_id, out)
    for orphans in (orphanage.finished, orphanage.lost):
        oldest = next(iter(orphans.values()), None)
        if oldest is not None:
            state.timers.arm(orphanage, oldest.until)


def bereave(state: State, engine: Engine, text: str, now: float) -> None:
    """Keep in mind what an engine that is lost was running for nobody: its client will hear of it, or another attempt is made."""
    if not engine.orphans:
        return
    orphanage = state.orphanage
    for task_id, orphan in [entry for entry in orphanage.running.items() if entry[1].engine is engine]:
        del orphanage.running[task_id]
        orphan.end = text
        orphan.until = now + state.settings.orphan_patience
        orphanage.lost[task_id] = orphan
        if len(orphanage.lost) > state.settings.max_orphans:
            del orphanage.lost[next(iter(orphanage.lost))]
        state.timers.arm(orphanage, orphan.until)
    engine.orphans = 0


def disown(state: State, engine: Engine, held: Collection[tuple[TaskId, int]]) -> None:
    """Forget what an engine was believed to run for nobody and does not hold."""
    if engine.orphans:
        running = state.orphanage.running
        gone = [
            task_id
            for task_id, orphan in running.items()
            if orphan.engine is engine and (task_id, orphan.attempt) not in held
        ]
        for task_id in gone:
            del running[task_id]
            _one_less(state, engine)


def _give_up(state: State, task_id: TaskId, out: Out) -> None:
    orphan = state.orphanage.finished.pop(task_id)
    out.append(Discard(task_id, orphan.engine.id, orphan.attempt, WhyDiscarded.EXPIRED))


def _one_less(state: State, engine: Engine) -> None:
    engine.orphans -= 1
    if not engine.orphans:
        engine.flags &= ~OCCUPIED
        reopen(state, engine)

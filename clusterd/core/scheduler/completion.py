"""TAKES what engines say about the tasks they hold: started, finished, not run, recalled.

An answer counts only from the engine that holds the task, for the attempt that it was given: anything else is fenced. A repeat of an answer
that counted is acknowledged (Discard) and changes nothing. Each TaskFinished gets exactly one of Deliver, Discard or Keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterd.core.model.task import Place, Reason, Status
from clusterd.core.scheduler.actions import Deliver, Discard, Forget, WhyDiscarded
from clusterd.core.scheduler.engine import STALLED
from clusterd.core.scheduler.fairness import reopen
from clusterd.core.scheduler.outcomes import can_retry, charge, end, put_back, refuse, retry_or_fail
from clusterd.core.scheduler.recovery import orphan_finished, orphan_not_run
from clusterd.core.scheduler.watch import arm_limit

if TYPE_CHECKING:
    from clusterd.core.scheduler.engine import Engine
    from clusterd.core.scheduler.events import EngineRecalled, TaskFinished, TaskNotRun, TaskStarted
    from clusterd.core.scheduler.state import Out, State
    from clusterd.core.scheduler.tasks import Task

_HELD: Final = Place.HELD
_UNMET: Final = Status.UNMET


def task_finished(state: State, event: TaskFinished, now: float, out: Out) -> None:
    """Deliver a result, or use a retry, or look for an engine that does not refuse the task."""
    task = state.tasks.get(event.task)
    if (
        task is None
        or task.place is not _HELD
        or task.attempt != event.attempt
        or (engine := task.engine) is None
        or engine.id != event.engine
    ):
        _fenced(state, event, task, now, out)
        return
    release(engine, task)
    _next_head(state, engine, now)
    if event.status is not _UNMET:
        engine.completed += 1
        task.function.add(event.duration)
    conclude(state, task, engine, event, now, out)
    reopen(state, engine)


def conclude(state: State, task: Task, engine: Engine, event: TaskFinished, now: float, out: Out) -> None:
    """Decide what becomes of a task that has a result."""
    if event.status:
        if event.status is _UNMET:
            if not isinstance(task.spec.target, int):
                refuse(state, engine, task, now, out)
                return
            # Else nobody asked for another engine: what this one says is the answer.
        elif task.interrupted is not None:
            out.append(Discard(task.id, engine.id, task.attempt, WhyDiscarded.TIMED_OUT))
            text = f"it ran for {event.duration:.3g} s on {engine.name}, over its timeout of {task.timeout:g} s"
            retry_or_fail(state, task, Reason.TIMEOUT, text, now, out)
            return
        elif task.retries_left and can_retry(task):
            out.append(Discard(task.id, engine.id, task.attempt, WhyDiscarded.RETRIED))
            charge(engine, task)
            retry_or_fail(state, task, Reason.ENGINE_LOST, f"it raised an exception on {engine.name}", now, out)
            return
    task.status = event.status
    task.duration = event.duration
    task.result_size = event.result_size
    client = task.client
    if client.is_forgotten:
        out.append(Discard(task.id, engine.id, task.attempt, WhyDiscarded.CLIENT_GONE))
        out.append(Forget((task.id,)))
    else:
        out.append(Deliver(task.id, client.handle, engine.id, task.attempt))
    end(state, task, now, out)


def task_started(state: State, event: TaskStarted, now: float, _out: Out) -> None:
    """Note that a task runs from now on: its timeout counts from here."""
    held = _held(state, event)
    if held is not None and next(iter(held[1].held)) == event.task:
        _next_head(state, held[1], now)


def task_not_run(state: State, event: TaskNotRun, now: float, out: Out) -> None:
    """Queue a task again that came back unrun."""
    held = _held(state, event)
    if held is None:
        orphan_not_run(state, event)
        return
    task, engine = held
    give_back(state, engine, task, f"{engine.name} gave it back", now, out)
    reopen(state, engine)


def engine_recalled(state: State, event: EngineRecalled, now: float, out: Out) -> None:
    """Queue again what the agent has revoked; the engine's own answers, which come later, are fenced by the attempt."""
    engine = state.engines.get(event.engine)
    if engine is None:
        return
    above = max(event.first, event.running + 1)
    revoked = [task for task in engine.held.values() if above <= task.order <= event.last]
    for task in reversed(revoked):  # each goes to the front of its flow: the last one first keeps their order
        give_back(state, engine, task, f"{engine.name} gave it back", now, out)
    reopen(state, engine)


def release(engine: Engine, task: Task) -> None:
    """Take a task out of an engine's hands."""
    held = engine.held
    del held[task.id]
    if task.timeout is not None:
        engine.timed -= 1
    if held:
        engine.load -= task.weight
        engine.bytes -= task.size
    else:
        engine.load = 0.0  # not the difference, in which rounding would add up
        engine.bytes = 0


def _next_head(state: State, engine: Engine, now: float) -> None:
    if engine.flags:
        engine.flags &= ~STALLED
    engine.head_since = now
    if engine.timed:
        arm_limit(state, engine, now)


def give_back(state: State, engine: Engine, task: Task, text: str, now: float, out: Out) -> None:
    """Queue a task again that an engine certainly does not run."""
    is_head = next(iter(engine.held)) == task.id
    release(engine, task)
    if is_head:
        _next_head(state, engine, now)
    put_back(state, task, text, now, out)


def _held(state: State, event: TaskStarted | TaskNotRun) -> tuple[Task, Engine] | None:
    """Return the task and its engine when the event is about what that engine holds."""
    task = state.tasks.get(event.task)
    if task is None or task.place is not _HELD or task.attempt != event.attempt:
        return None
    engine = task.engine
    return (task, engine) if engine is not None and engine.id == event.engine else None


def _fenced(state: State, event: TaskFinished, task: Task | None, now: float, out: Out) -> None:
    """Answer a result that is not for the task's present attempt."""
    if task is None:
        if orphan_finished(state, event, now, out):
            return
        why = WhyDiscarded.UNKNOWN
    elif (
        task.place is Place.ENDED
        and task.attempt == event.attempt
        and task.engine is not None
        and task.engine.id == event.engine
        and task.status is not None
    ):
        why = WhyDiscarded.REPEATED
    else:
        why = WhyDiscarded.STALE
    out.append(Discard(event.task, event.engine, event.attempt, why))

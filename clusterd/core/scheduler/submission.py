"""TAKES tasks in: checks them against what is known and what their client may have, and queues them.

A submission is accepted (and then ends exactly once), refused with a reason, or known already. Refused ones leave no trace,
so that the same id may be submitted again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterd.core.model.task import Reason
from clusterd.core.scheduler.actions import AnswerKnown, Fail
from clusterd.core.scheduler.completion import conclude
from clusterd.core.scheduler.dependencies import begin
from clusterd.core.scheduler.engine import DRAINING
from clusterd.core.scheduler.fairness import activate, reopen
from clusterd.core.scheduler.outcomes import queue_or_fail, retry_or_fail
from clusterd.core.scheduler.recovery import adopt_submitted
from clusterd.core.scheduler.tasks import Client, Task
from clusterd.core.scheduler.waits import start_wait

if TYPE_CHECKING:
    from clusterd.core.scheduler.events import TaskSubmitted
    from clusterd.core.scheduler.state import Out, State

KNOWN_TARGETS: Final = 256


def task_submitted(state: State, event: TaskSubmitted, now: float, out: Out) -> None:
    """Accept a task, refuse it, or say that it is known."""
    task_id = event.task
    client = state.clients.get(event.client)
    if client is None or client.is_forgotten:
        out.append(Fail(task_id, event.client, Reason.UNSCHEDULABLE, f"client {event.client} is not attached"))
        return
    known = state.tasks.get(task_id)
    if known is not None:
        out.append(AnswerKnown(task_id, event.client, known.client.handle, known.place))
        return
    size = event.size
    # A task larger than all that the client may have is taken when it is the only one: else it could never run.
    if client.live_tasks and (client.live_bytes + size > client.max_bytes or client.live_tasks >= client.max_tasks):
        out.append(Fail(task_id, event.client, Reason.OVERLOADED, _why_overloaded(client, size)))
        return
    is_plain = event.target is None and event.after is None and event.follow is None and event.max_wait is None
    if not is_plain:
        why = _why_refused(state, event)
        if why:
            out.append(Fail(task_id, event.client, Reason.UNSCHEDULABLE, why))
            return
    digest = event.function
    functions = state.functions
    function = functions.by_digest.get(digest) or functions.make(digest)
    flow = client.flow
    task = Task(
        task_id, event, client, function, flow, size, event.retries, event.timeout, event.attempt - 1, now
    )  # by position: half the time of keywords
    state.tasks[task_id] = task
    client.live_tasks += 1
    client.live_bytes += size
    if is_plain and not state.orphanage.is_used:
        # The way of nearly all tasks: `enqueue` in place.
        flow.tasks.append(task)
        if not flow.is_active:
            activate(state, flow)
    else:
        _enter(state, task, now, out)


def _enter(state: State, task: Task, now: float, out: Out) -> None:
    """Find the place of a task that is not plain."""
    target = task.spec.target
    task.target = _target_of(state, target) if isinstance(target, tuple) else target
    start_wait(state, task, now)
    orphan = adopt_submitted(state, task, now)
    if orphan is not None and orphan.end:
        retry_or_fail(state, task, Reason.ENGINE_LOST, orphan.end, now, out)
    elif orphan is not None:
        if orphan.result is not None:
            conclude(state, task, orphan.engine, orphan.result, now, out)
        reopen(state, orphan.engine)
    elif task.spec.after is not None or task.spec.follow is not None:
        begin(state, task, now, out)
    else:
        queue_or_fail(state, task, Reason.UNSCHEDULABLE, "accepted", now, out)


def _target_of(state: State, ids: tuple[int, ...]) -> int | frozenset[int]:
    """Return what a tuple of targets means. A view names the same ones again and again: a set of 64 costs as much as the whole task."""
    known = state.targets
    target = known.get(ids)
    if target is None:
        if len(known) >= KNOWN_TARGETS:
            known.clear()
        target = known[ids] = ids[0] if len(set(ids)) == 1 else frozenset(ids)
    return target


def _why_overloaded(client: Client, size: int) -> str:
    return (
        f"the client has {client.live_tasks} tasks of {client.live_bytes} bytes unfinished, and may have {client.max_tasks} "
        f"tasks of {client.max_bytes} bytes: this one of {size} bytes is one too many; submit it again when others have ended"
    )


def _why_refused(state: State, event: TaskSubmitted) -> str:
    """Return why no engine can ever run the task, or an empty string when one can."""
    target = event.target
    if target is None:
        return ""
    ids = target if isinstance(target, tuple) else (target,)
    draining: list[str] = []
    for engine in map(state.engines.get, ids):
        if engine is not None:
            if not engine.flags & DRAINING:
                return ""
            draining.append(engine.name)
    if draining:
        return f"draining, no new work is taken: {', '.join(draining)}"
    names = ", ".join(map(str, ids)) or "(none)"
    return f"not registered: engines {names}; an engine that was replaced has a new id"

"""ENDS tasks, or gives them another attempt: the only place where a task becomes ENDED.

`retries` count further attempts after any failure: an exception, the loss of the engine, a timeout. A task comes back without a
charge where it certainly did not run, or an engine refused it. A poison task, under which several engines died, is not run again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterd.core.model.task import Place, Reason, Unmet
from clusterd.core.scheduler.actions import Discard, Fail, Forget, WhyDiscarded
from clusterd.core.scheduler.fairness import enqueue
from clusterd.core.scheduler.routing import empty, route
from clusterd.core.scheduler.waits import start_wait

if TYPE_CHECKING:
    from clusterd.core.scheduler.engine import Engine, Pool
    from clusterd.core.scheduler.state import Out, State
    from clusterd.core.scheduler.tasks import Client, Task

_ENDED: Final = Place.ENDED


def end(state: State, task: Task, now: float, out: Out) -> None:
    """Book the end of a task, of which the client has been told just before."""
    task.place = _ENDED
    task.ended = now
    client = task.client
    client.live_tasks -= 1
    client.live_bytes -= task.size
    client.ended += 1
    if task.dependents is not None:
        state.resolving.append(task)
    if client.is_forgotten:
        drop_client(state, client)
    records = state.records
    records.ring.append(task)
    records.bytes += task.result_size
    if len(records.ring) > records.max_records or records.bytes > records.max_bytes:
        records.cull(state.tasks, out)


def drop_client(state: State, client: Client) -> None:
    """Drop a forgotten client once nothing of it is left to end."""
    if client.live_tasks:
        return
    del state.clients[client.handle]
    for flow in client.flows:
        del flow.fair.flows[client.handle]


def fail(
    state: State, task: Task, reason: Reason, text: str, now: float, out: Out, *, unmet: Unmet | None = None
) -> None:
    """End a task without a result."""
    task.reason = reason
    if task.client.is_forgotten:
        out.append(Forget((task.id,)))
    else:
        engine = task.engine
        number = -1 if engine is None else engine.id
        out.append(Fail(task.id, task.client.handle, reason, text, number, task.attempt, unmet))
    end(state, task, now, out)


def retry_or_fail(state: State, task: Task, reason: Reason, text: str, now: float, out: Out) -> None:
    """After a failure that the task has no other answer for: use a retry, or end it."""
    if task.kills >= state.settings.poison_kills:
        text = f"{text}; {task.kills} engines died while they ran this task, so it is not run again"
    elif can_retry(task):
        task.retries_left -= 1
        put_back(state, task, text, now, out)
        return
    fail(state, task, reason, text, now, out)


def can_retry(task: Task) -> bool:
    """Say whether a failure of the task is to be followed by another attempt."""
    return task.retries_left > 0 and not task.is_aborting and not task.client.is_forgotten


def put_back(state: State, task: Task, text: str, now: float, out: Out, *, reason: Reason = Reason.ENGINE_LOST) -> None:
    """Queue a task again that an engine held; `text` says what happened to it there, should no engine be left for it."""
    if task.is_aborting:
        task.engine = None
        fail(state, task, Reason.ABORTED, "aborted before it ran", now, out)
        return
    task.interrupted = None
    start_wait(state, task, now)
    queue_or_fail(state, task, reason, text, now, out, at_front=True)


def queue_or_fail(
    state: State, task: Task, reason: Reason, text: str, now: float, out: Out, *, at_front: bool = False
) -> None:
    """Queue a task where it may run; end it with `reason` and what led to it, `text`, when no engine for it is left."""
    flow = route(state, task, now)
    if flow is None:
        text = f"{text}; no engine that it may run on is left{history(task)}"
        is_unmet = reason is Reason.UNSCHEDULABLE and (task.refused or task.spec.follow is not None)
        fail(state, task, reason, text, now, out, unmet=Unmet.IMPOSSIBLE if is_unmet else None)
        return
    task.engine = None
    enqueue(state, task, flow, at_front=at_front)


def history(task: Task) -> str:
    """Return which engines refuse the task, and which have failed it, as the end of a sentence; empty for nearly all."""
    text = ""
    for verb, ids in (("was refused by", task.refused), ("failed on", task.avoid)):
        if ids:
            text += f"; it {verb} engine{'s' if len(ids) > 1 else ''} {', '.join(map(str, sorted(ids)))}"
    return text


def give_up_avoiding(state: State, pool: Pool, now: float) -> None:
    """Let the retries in a pool go to any engine: those they prefer have been busy for too long."""
    for task in empty(pool, only_choosy=True):
        task.engine = None
        flow = route(state, task, now, is_patient=False)
        assert flow is not None  # noqa: S101  (the pool has members, and they may all take it)
        enqueue(state, task, flow)


def charge(engine: Engine, task: Task) -> None:
    """Blame an engine's failure of a task: a retry prefers another one."""
    task.avoid |= {engine.id}


def refuse(state: State, engine: Engine, task: Task, now: float, out: Out) -> None:
    """Never give a task to this engine again: what it requires is not there. That is no failure, and costs no retry."""
    out.append(Discard(task.id, engine.id, task.attempt, WhyDiscarded.REFUSED))
    task.refused |= {engine.id}
    task.engine = None  # it did not run there
    text = f"{engine.name} refused it: what it requires is not there"
    put_back(state, task, text, now, out, reason=Reason.UNSCHEDULABLE)

"""SHARES engines between clients: surplus round robin over the flows of a FairQueue, in seconds of expected run time.

A flow at the front is served while its credit is positive; then it earns a QUANTUM and goes to the back. Credit may go below zero by one
task: that is paid off in later turns, and not forgiven when the flow runs empty, or a client that submits long tasks one by one would
get more than its share. For clients that always have work, what they have had differs by at most a QUANTUM and a
largest share each. An aborted task is left where it is and skipped: the flow counts its dead and is rebuilt when most are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.core.model.task import Place
from clusterd.core.scheduler.engine import Engine, Pool
from clusterd.core.scheduler.runtimes import QUANTUM

if TYPE_CHECKING:
    from clusterd.core.scheduler.state import State
    from clusterd.core.scheduler.tasks import Client, FairQueue, Flow, Task

_QUEUED = Place.QUEUED

REBUILD = 32
"""Dead entries that are not worth rebuilding a flow for."""


def enqueue(state: State, task: Task, flow: Flow, *, at_front: bool = False) -> None:
    """Put a task into a flow; at the front where it had its turn before."""
    task.place = _QUEUED
    task.flow = flow
    if at_front:
        flow.tasks.appendleft(task)
    else:
        flow.tasks.append(task)
    if not flow.is_active:
        activate(state, flow)


def activate(state: State, flow: Flow) -> None:
    """Let a flow with tasks take its turns, unless its client does not read."""
    if flow.client.is_blocked:
        return
    flow.is_active = True
    fair = flow.fair
    fair.ring.append(flow)
    if fair.owner is not None:
        wake(state, fair.owner)


def deactivate(flow: Flow) -> None:
    """Take a flow out of the ring: it has nothing to run, or its client does not read."""
    flow.is_active = False
    flow.fair.ring.remove(flow)


def wake(state: State, owner: Engine | Pool) -> None:
    """Have the queue of an engine or a pool looked at in the next `settle`."""
    if owner.is_ready:
        return
    owner.is_ready = True
    if isinstance(owner, Engine):
        state.ready_engines.append(owner)
    else:
        state.ready_pools.append(owner)


def reopen(state: State, engine: Engine) -> None:
    """Offer an engine's room, which may have grown, to all whom it can serve."""
    state.levels.update(engine)
    if engine.direct.ring:
        wake(state, engine)
    for pool in engine.pools:
        wake(state, pool)


def take(fair: FairQueue) -> Task:
    """Remove and return the task whose turn it is; the ring must not be empty."""
    ring = fair.ring
    flow = ring[0]
    if len(ring) > 1:
        while flow.credit <= 0.0:
            flow.credit += QUANTUM
            ring.rotate(-1)
            flow = ring[0]
    else:
        flow.credit = QUANTUM  # nobody waits: no debt is made
    tasks = flow.tasks
    task = tasks.popleft()
    while task.place is not _QUEUED:  # ends: a flow in the ring has a queued task
        flow.dead -= 1
        task = tasks.popleft()
    flow.credit -= task.function.share
    if len(tasks) == flow.dead:
        tasks.clear()
        flow.dead = 0
        flow.is_active = False
        ring.popleft()
    return task


def withdraw(task: Task) -> None:
    """Take a QUEUED task out of its flow for good: O(n), where it may be queued again and its dead entry would come to life."""
    flow = task.flow
    flow.tasks.remove(task)
    if len(flow.tasks) == flow.dead:
        flow.tasks.clear()
        flow.dead = 0
        if flow.is_active:
            deactivate(flow)


def bury(task: Task) -> None:
    """Count a task that was ended while QUEUED, and never will be again, as dead in its flow: O(1) amortised."""
    flow = task.flow
    tasks = flow.tasks
    flow.dead += 1
    if flow.dead == len(tasks):
        tasks.clear()
        flow.dead = 0
        if flow.is_active:
            deactivate(flow)
    elif flow.dead > REBUILD and flow.dead * 2 > len(tasks):
        alive = [task for task in tasks if task.place is _QUEUED]
        tasks.clear()
        tasks.extend(alive)
        flow.dead = 0


def block(client: Client) -> None:
    """Let none of the client's tasks have a turn."""
    client.is_blocked = True
    for flow in client.flows:
        if flow.is_active:
            deactivate(flow)


def unblock(state: State, client: Client) -> None:
    """Let the client's tasks have their turns again."""
    client.is_blocked = False
    for flow in client.flows:
        if flow.tasks and not flow.is_active:
            activate(state, flow)

"""TAKES what happens to clients: they come, go, return, are forgotten, stop reading; and aborts what they no longer want.

Abort ends what has not begun. What waits or is queued ends at once; what an engine holds is recalled, and ends as aborted
when it comes back unrun: whether it had begun is the engine's word, not a guess. What runs goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.core.model.task import Place, Reason
from clusterd.core.scheduler.fairness import block, unblock
from clusterd.core.scheduler.outcomes import drop_client
from clusterd.core.scheduler.tasks import Client
from clusterd.core.scheduler.unbegun import end_unbegun
from clusterd.core.scheduler.watch import recall

if TYPE_CHECKING:
    from clusterd.core.scheduler.events import (
        AbortRequested,
        ClientAttached,
        ClientDetached,
        ClientForgotten,
        ClientReturned,
        ResultsBlocked,
        ResultsUnblocked,
    )
    from clusterd.core.scheduler.state import Out, State
    from clusterd.core.scheduler.tasks import Task


def client_attached(state: State, event: ClientAttached, _now: float, _out: Out) -> None:
    """Take a client in; one that is known only has its limits changed."""
    client = state.clients.get(event.client)
    if client is None:
        client = Client(event.client, event.max_tasks, event.max_bytes, state.balanced)
        client.goes_round = event.goes_round
        state.clients[event.client] = client
        return
    client.max_tasks = event.max_tasks
    client.max_bytes = event.max_bytes
    client.is_attached = True


def client_detached(state: State, event: ClientDetached, _now: float, _out: Out) -> None:
    """Note that it is away: nothing else changes."""
    client = state.clients.get(event.client)
    if client is not None:
        client.is_attached = False


def client_returned(state: State, event: ClientReturned, _now: float, _out: Out) -> None:
    """Note that it is back."""
    client = state.clients.get(event.client)
    if client is not None:
        client.is_attached = True


def client_forgotten(state: State, event: ClientForgotten, now: float, out: Out) -> None:
    """End what it has not had begun; what runs ends for nobody."""
    client = state.clients.get(event.client)
    if client is None or client.is_forgotten:
        return
    client.is_attached = False
    client.is_forgotten = True
    if client.live_tasks:
        _abort_all(state, client, now, out)
    else:
        drop_client(state, client)


def results_blocked(state: State, event: ResultsBlocked, _now: float, _out: Out) -> None:
    """Dispatch none of its tasks."""
    client = state.clients.get(event.client)
    if client is not None:
        block(client)


def results_unblocked(state: State, event: ResultsUnblocked, _now: float, _out: Out) -> None:
    """Dispatch its tasks again."""
    client = state.clients.get(event.client)
    if client is not None:
        unblock(state, client)


def abort_requested(state: State, event: AbortRequested, now: float, out: Out) -> None:
    """Abort the tasks named, those for some engines, or all; of one client, or (the operator) of all."""
    if event.client is None:
        clients = list(state.clients.values())
    else:
        clients = [client for client in (state.clients.get(event.client),) if client is not None]
    owners = set(clients)
    if event.tasks is not None:
        named = (state.tasks.get(task_id) for task_id in event.tasks)
        _abort(state, [task for task in named if task is not None and task.client in owners], now, out)
    elif event.targets is not None:
        targets = set(event.targets)
        engines = [engine for engine in map(state.engines.get, targets) if engine is not None]
        direct = [task for engine in engines for flow in engine.direct.flows.values() for task in flow.tasks]
        direct += [task for engine in engines for task in engine.held.values() if task.target == engine.id]
        direct += [task for task in state.waiting.values() if task.target in targets]
        _abort(state, [task for task in direct if task.client in owners], now, out)
    else:
        for client in clients:
            _abort_all(state, client, now, out)


def _abort_all(state: State, client: Client, now: float, out: Out) -> None:
    waiting = [task for task in state.waiting.values() if task.client is client]
    queued = [task for flow in client.flows for task in flow.tasks]
    held = [task for engine in state.engines.values() for task in engine.held.values() if task.client is client]
    _abort(state, waiting + queued + held, now, out)


def _abort(state: State, tasks: list[Task], now: float, out: Out) -> None:
    ranges: dict[int, tuple[int, int]] = {}
    for task in tasks:
        if task.place is Place.HELD:
            task.is_aborting = True
            if task.engine is not None and task.order:  # an adopted one has begun
                first, last = ranges.get(task.engine.id, (task.order, task.order))
                ranges[task.engine.id] = (min(first, task.order), max(last, task.order))
            continue
        if task.place is not Place.ENDED:
            end_unbegun(state, task, Reason.ABORTED, "aborted before it ran", now, out)
    for engine_id, (first, last) in ranges.items():
        recall(state.engines[engine_id], first, last, out)

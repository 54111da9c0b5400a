"""COUNTS what is where, for `queue_status`: from counters and lengths, never by looking at tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.core.model.task import ClientLoad, EngineLoad, QueueStatus

if TYPE_CHECKING:
    from clusterd.core.scheduler.engine import Engine
    from clusterd.core.scheduler.state import State
    from clusterd.core.scheduler.tasks import Client


def queue_status(state: State) -> QueueStatus:
    """Return all queues at this moment: O(engines + clients + flows)."""
    engines = {engine.id: engine_load(engine) for engine in state.engines.values()}
    return QueueStatus(
        engines=engines,
        clients={client.handle: _client_load(state, client) for client in state.clients.values()},
        unassigned=unassigned(state),
        waiting=len(state.waiting),
        running=sum(load.running for load in engines.values()),
        prefetched=sum(load.prefetched for load in engines.values()),
        completed=state.completed + sum(load.completed for load in engines.values()),
    )


def unassigned(state: State) -> int:
    """Return how many tasks are queued that no single engine was named for: what more engines would help with."""
    return state.balanced.queued() + sum(pool.fair.queued() for pool in state.pools.values())


def engine_load(engine: Engine) -> EngineLoad:
    """Return one engine's tasks."""
    held = len(engine.held)
    return EngineLoad(
        queued=engine.direct.queued(),
        running=1 if held else 0,
        prefetched=max(0, held - 1),
        completed=engine.completed,
    )


def _client_load(state: State, client: Client) -> ClientLoad:
    queued = sum(len(flow.tasks) - flow.dead for flow in client.flows)
    waiting = sum(1 for task in state.waiting.values() if task.client is client) if state.waiting else 0
    return ClientLoad(
        queued=queued,
        waiting=waiting,
        held=client.live_tasks - queued - waiting,
        ended=client.ended,
        bytes=client.live_bytes,
    )

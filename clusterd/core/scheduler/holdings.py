"""SAYS what an engine has in its hands, for people who are about to end it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from msgspec import Struct

from clusterd.core.model.task import TaskId

if TYPE_CHECKING:
    from clusterd.core.scheduler.state import State

__all__ = ["Holding", "holdings"]


class Holding(Struct, frozen=True):
    """One task that an engine was given and has not answered.

    Attributes:
        task: its id.
        client: handle of whose it is.
        function: digest of what it runs.
        label: that its client gave it.
        is_begun: the engine runs it; the others wait in the engine.
        since: when it went to the engine, or, the one that runs, began at the earliest; on the clock of the events.
    """

    task: TaskId
    client: int
    function: bytes
    label: str
    is_begun: bool
    since: float


def holdings(state: State, engine_id: int, limit: int) -> tuple[list[Holding], int]:
    """Return the first `limit` tasks that an engine holds, the running one first, and how many it holds or has queued for it alone."""
    engine = state.engines.get(engine_id)
    if engine is None:
        return [], 0
    found = [
        Holding(
            task.id,
            task.client.handle,
            task.spec.function,
            task.spec.label,
            index == 0,
            max(task.dispatched, engine.head_since) if index == 0 else task.dispatched,
        )
        for index, task in enumerate(islice(engine.held.values(), limit))
    ]
    return found, len(engine.held) + engine.direct.queued()

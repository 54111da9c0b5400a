"""ENDS tasks that no engine holds: aborted ones, and those that have waited for their `max_wait`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.core.model.task import Place, Reason
from clusterd.core.scheduler.dependencies import leave
from clusterd.core.scheduler.fairness import bury
from clusterd.core.scheduler.outcomes import fail, history
from clusterd.core.scheduler.placement import settle

if TYPE_CHECKING:
    from clusterd.core.scheduler.state import Out, State
    from clusterd.core.scheduler.tasks import Task


def end_unbegun(state: State, task: Task, reason: Reason, text: str, now: float, out: Out) -> None:
    """End a task that waits or is queued."""
    if task.place is Place.WAITING:
        leave(state, task)
    else:
        # bury() rebuilds by what is QUEUED: the task must not count as that any more.
        task.place = Place.WAITING
        bury(task)
    fail(state, task, reason, text, now, out)


def end_waits(state: State, now: float, out: Out) -> None:
    """End what has waited for too long. What can be placed is placed first: it never ends this way."""
    waits = state.waits
    if waits.due(now) is not None:
        settle(state, now, out)
        while (task := waits.due(now)) is not None:
            what = "its dependencies" if task.place is Place.WAITING else "an engine to take it"
            text = f"it waited {task.spec.max_wait:g} s for {what}, as long as it may{history(task)}"
            end_unbegun(state, task, Reason.TIMEOUT, text, now, out)
    if waits.heap:
        state.timers.arm(waits, waits.heap[0][0])

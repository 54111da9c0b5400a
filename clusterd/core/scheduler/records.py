"""REMEMBERS ended tasks: a ring bounded by number and by result bytes, which never holds, and so never culls, a pending one.

It serves repeats (a result or submission that comes again), dependencies on what has ended already, and questions. The Task itself is the
record until it is culled: ending a task costs no copy. What is handed out is an immutable TaskRecord.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from clusterd.core.model.task import Place, TaskRecord
from clusterd.core.scheduler.actions import Forget

if TYPE_CHECKING:
    from clusterd.core.model.task import TaskId
    from clusterd.core.scheduler.settings import Settings
    from clusterd.core.scheduler.state import Out
    from clusterd.core.scheduler.tasks import Task


class Records:
    """The ring: ended tasks, oldest first. `bytes` is the sum of their result sizes."""

    __slots__ = ("bytes", "max_bytes", "max_records", "ring")

    def __init__(self, settings: Settings) -> None:
        self.ring: deque[Task] = deque()
        self.bytes = 0
        self.max_records = settings.max_records
        self.max_bytes = settings.max_record_bytes

    def cull(self, tasks: dict[TaskId, Task], out: Out) -> None:
        """Drop the oldest until both bounds hold, and a sixteenth more: so one Forget serves many."""
        ring = self.ring
        most = self.max_records - (self.max_records >> 4)
        most_bytes = self.max_bytes - (self.max_bytes >> 4)
        culled: list[TaskId] = []
        while len(ring) > most or self.bytes > most_bytes:
            task = ring.popleft()
            self.bytes -= task.result_size
            del tasks[task.id]
            culled.append(task.id)
        out.append(Forget(tuple(culled)))


def record_of(task: Task) -> TaskRecord:
    """Return what is known of a task."""
    is_ended = task.place is Place.ENDED
    return TaskRecord(
        task=task.id,
        client=task.client.handle,
        place=task.place,
        engine=-1 if task.engine is None else task.engine.id,
        attempt=task.attempt,
        label=task.spec.label,
        submitted=task.submitted,
        dispatched=task.dispatched,
        ended=task.ended,
        duration=task.duration,
        status=task.status if is_ended else None,
        reason=task.reason,
        size=task.size,
        result_size=task.result_size,
    )

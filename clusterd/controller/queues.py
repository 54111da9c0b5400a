"""Which unfinished tasks are where, by name: what queue status lists. Looked up when somebody asks, so that nothing is counted twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from clusterd.core.model.task import Place

if TYPE_CHECKING:
    from clusterd.controller.tasks import Tasks


class Outstanding(NamedTuple):
    """Unfinished tasks by msg_id.

    Attributes:
        queue: by engine (wire id): those for this engine alone, running or not.
        tasks: by engine: those that any may run, and that this one has.
        unassigned: those of the latter that no engine has.
    """

    queue: dict[int, list[str]]
    tasks: dict[int, list[str]]
    unassigned: list[str]


def outstanding(tasks: Tasks) -> Outstanding:
    """All unfinished tasks: O(tasks), some microseconds each."""
    queue: dict[int, list[str]] = {}
    assigned: dict[int, list[str]] = {}
    unassigned: list[str] = []
    known = tasks.scheduler.state.tasks
    for task_id, payload in tasks.payloads.items():
        task = known.get(task_id)
        if task is None or task.place is Place.ENDED:
            continue
        row = payload.row
        msg_id = task_id.hex() if row is None else row.msg_id
        target = task.spec.target
        if isinstance(target, int):
            queue.setdefault(target, []).append(msg_id)
        elif task.engine is not None and task.place is Place.HELD:
            assigned.setdefault(task.engine.id, []).append(msg_id)
        else:
            unassigned.append(msg_id)
    return Outstanding(queue, assigned, unassigned)

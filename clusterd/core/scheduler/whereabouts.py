"""SAYS where an unfinished task is and why it is not further, in words for people; asked now and then, so nothing is kept for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from clusterd.core.model.task import Place, TaskId
from clusterd.core.scheduler.engine import CONDEMNED, DRAINING, OCCUPIED, STALLED, SUSPECT, Engine, Pool

if TYPE_CHECKING:
    from clusterd.core.scheduler.state import State
    from clusterd.core.scheduler.tasks import FairQueue, Task

_FLAGS: Final = {
    SUSPECT: "is not heard of",
    DRAINING: "takes no new work: it drains",
    STALLED: "is busy for longer than expected",
    CONDEMNED: "is being killed",
    OCCUPIED: "runs what it had from an earlier controller",
}


class Whereabouts(Struct, frozen=True):
    """Where a task is.

    Attributes:
        is_begun: its engine runs it; false while it waits, inside an engine or here.
        engine: who has it; -1: nobody.
        since: when it went to that engine, else when it was accepted; on the clock of the events.
        why: what it waits for; empty where it waits for nothing.
        waits_for: tasks that it depends on and that have not ended.
    """

    is_begun: bool
    engine: int
    since: float
    why: str
    waits_for: tuple[TaskId, ...] = ()


def whereabouts(state: State, task_id: TaskId) -> Whereabouts | None:
    """Return where a task is; None when it is not known, or has ended."""
    task = state.tasks.get(task_id)
    if task is None or task.place is Place.ENDED:
        return None
    if task.place is Place.HELD and task.engine is not None:
        engine = task.engine
        is_begun = next(iter(engine.held)) == task_id
        why = "" if is_begun else f"{engine.name} has it, and runs another task first"
        return Whereabouts(is_begun, engine.id, task.dispatched, why)
    if task.place is Place.WAITING:
        left = {name: None for condition in task.conditions for name in sorted(condition.left)}
        return Whereabouts(False, -1, task.submitted, f"it depends on {_tasks(len(left))}", tuple(left))
    return Whereabouts(False, -1, task.submitted, _why_queued(state, task))


def _why_queued(state: State, task: Task) -> str:
    if task.client.is_blocked:
        return "its client does not read its results, and is not served until it does"
    owner = task.flow.fair.owner
    if isinstance(owner, Engine):
        return f"it is for {owner.name} alone, which {_state(owner)}{_behind(task.flow.fair)}"
    engines = owner.members if isinstance(owner, Pool) else list(state.engines.values())
    if not engines:
        return "there is no engine"
    which = "" if owner is None else " that it may run on"
    if len(engines) == 1:
        text = f"the only engine{which}, {engines[0].name}, {_state(engines[0])}"
    elif flagged := [engine for engine in engines if engine.flags]:
        text = f"of {len(engines)} engines{which} {len(flagged)} get no work ({flagged[0].name} {_state(flagged[0])})"
    else:
        text = f"all {len(engines)} engines{which} are busy"
    return f"{text}{_behind(task.flow.fair)}"


def _state(engine: Engine) -> str:
    for flag, text in _FLAGS.items():
        if engine.flags & flag:
            return text
    return "is busy" if engine.held else "is about to get it"


def _behind(fair: FairQueue) -> str:
    others = fair.queued() - 1
    return f"; {_tasks(others)} wait{'s' * (others == 1)} in the same queue" if others > 0 else ""


def _tasks(count: int) -> str:
    return "one other task" if count == 1 else f"{count} other tasks"

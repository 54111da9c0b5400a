"""DECIDES when a task that depends on others may run: `after` in time, `follow` in place (on an engine where they ran).

A task waits until all of its conditions are met or one can never be. Dependencies name tasks that are known already, so there
are no cycles; a task that names another one (never submitted, not accepted, or culled from the records), or itself, fails at once, whatever
else it names. Each end of a task costs each of its dependents O(1); the cascade of failures is a worklist, not a recursion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterd.core.model.task import Place, Reason, Status, Unmet
from clusterd.core.scheduler.outcomes import fail, queue_or_fail

if TYPE_CHECKING:
    from clusterd.core.model.task import Dependency, TaskId
    from clusterd.core.scheduler.state import Out, State
    from clusterd.core.scheduler.tasks import Task

_ENDED: Final = Place.ENDED


class Condition:
    """One dependency of one task, on its way to a verdict.

    Attributes:
        left: tasks that have not ended, as far as this has been told.
        engines: for `follow`: where the task may run, as far as is known: where all of the others ran, or (any) where one did.
        is_met: True or False once it is decided, None before.
        why: for people, where it is False.
    """

    __slots__ = ("dependency", "engines", "is_met", "is_place", "left", "why")

    def __init__(self, dependency: Dependency, *, is_place: bool) -> None:
        self.dependency = dependency
        self.is_place = is_place
        self.left = set(dependency.tasks)
        self.engines: set[int] | None = None
        self.is_met: bool | None = None if self.left else True
        self.why = ""

    @property
    def name(self) -> str:
        """What people call it."""
        return "`follow` dependency" if self.is_place else "`after` dependency"

    def tell(self, state: State, ended: Task) -> None:
        """Take the end of one of its tasks."""
        self.left.discard(ended.id)
        # Decided, but for this: what may follow any of several has one more place to go to.
        if self.is_met is False or (self.is_met and not self.is_place):
            return
        why = self._why_not(state, ended)
        if self.dependency.is_all:
            if why:
                self.is_met, self.why = False, why
            elif not self.left:
                self.is_met = True
        elif not why:
            self.is_met = True
        elif not self.left and not self.is_met:
            self.is_met, self.why = False, f"none of its {len(set(self.dependency.tasks))} tasks is as asked for; {why}"

    def look_again(self, state: State) -> None:
        """Wait on where it is met in places alone that are gone by now, and another may come."""
        if self.is_met and self.engines and self.left and state.engines.keys().isdisjoint(self.engines):
            self.is_met = self.engines = None

    def _why_not(self, state: State, ended: Task) -> str:
        """Return why this end does not count, or an empty string when it does."""
        is_ok = ended.status is Status.OK
        if not (self.dependency.on_success if is_ok else self.dependency.on_failure):
            return f"task {ended.id.hex()} {'succeeded' if is_ok else 'failed'}"
        if self.is_place:
            return self._why_not_there(state, ended)
        return ""

    def _why_not_there(self, state: State, ended: Task) -> str:
        engine = ended.engine
        if engine is None or engine.id not in state.engines:
            return f"the engine of task {ended.id.hex()} is gone" if engine else f"task {ended.id.hex()} ran nowhere"
        if self.engines is None:
            self.engines = {engine.id}
        elif not self.dependency.is_all:
            self.engines.add(engine.id)
        elif engine.id not in self.engines:
            return f"task {ended.id.hex()} ran on another engine than those before it"
        return ""


def begin(state: State, task: Task, now: float, out: Out) -> None:
    """Let a new task wait for what it depends on, or go on at once when all of that has ended."""
    spec = task.spec
    task.place = Place.WAITING
    task.conditions = tuple(
        Condition(dependency, is_place=is_place)
        for dependency, is_place in ((spec.after, False), (spec.follow, True))
        if dependency is not None
    )
    state.waiting[task.id] = task
    for condition in task.conditions:
        for task_id in dict.fromkeys(condition.dependency.tasks):
            other = state.tasks.get(task_id)
            if other is None or other is task:
                leave(state, task)
                text = f"its {condition.name} {_why_invalid(state, task_id, other)}"
                fail(state, task, Reason.UNSCHEDULABLE, text, now, out, unmet=Unmet.INVALID)
                return
            if other.place is _ENDED:
                condition.tell(state, other)
            else:
                if other.dependents is None:
                    other.dependents = {}
                other.dependents[task.id] = task
    _decide(state, task, now, out)


def resolve(state: State, now: float, out: Out) -> None:
    """Tell the dependents of all tasks that have ended; what fails by that tells its own dependents in turn."""
    while state.resolving:
        ended = state.resolving.popleft()
        dependents, ended.dependents = ended.dependents or {}, None
        for task in dependents.values():
            if task.place is not Place.WAITING:
                continue  # aborted in the same batch in which this one ended and was culled
            for condition in task.conditions:
                if ended.id in condition.left:
                    condition.tell(state, ended)
            _decide(state, task, now, out)


def leave(state: State, task: Task) -> None:
    """Take a task out of those that wait: it is decided, or aborted."""
    del state.waiting[task.id]
    for condition in task.conditions:
        for task_id in condition.left:
            other = state.tasks.get(task_id)
            if other is not None and other.dependents is not None:
                other.dependents.pop(task.id, None)
    task.conditions = ()


def _decide(state: State, task: Task, now: float, out: Out) -> None:
    """Queue a task whose conditions are all met; fail one that has an impossible one."""
    conditions = task.conditions
    impossible = next((condition for condition in conditions if condition.is_met is False), None)
    if impossible is not None:
        leave(state, task)
        text = f"its {impossible.name} can not be met: {impossible.why}"
        fail(state, task, Reason.UNSCHEDULABLE, text, now, out, unmet=Unmet.IMPOSSIBLE)
        return
    if all(condition.is_met for condition in conditions):
        for condition in conditions:
            condition.look_again(state)
    if not all(condition.is_met for condition in conditions):
        return
    leave(state, task)
    for condition in conditions:
        if condition.engines is not None:
            _narrow(task, condition.engines)
    queue_or_fail(state, task, Reason.UNSCHEDULABLE, "its dependencies are met", now, out)


def _why_invalid(state: State, task_id: TaskId, other: Task | None) -> str:
    if other is not None:
        return "names the task itself"
    return (
        f"names task {task_id.hex()}, which is not known: it was never accepted here, or ended so long ago that it was "
        f"forgotten (up to {state.records.max_records} ended tasks are remembered)"
    )


def _narrow(task: Task, engines: set[int]) -> None:
    target = task.target
    if target is not None:
        engines = engines & ({target} if isinstance(target, int) else target)
    task.target = next(iter(engines)) if len(engines) == 1 else frozenset(engines)

"""DECIDES when a task that depends on others may run: `after` in time, `follow` in place (on an engine where they ran).

A task waits until all of its conditions are met or one can never be. Dependencies name tasks that are known already, so there
are no cycles; one that is not known (never submitted, refused, or culled from the records) counts as ended in neither way.
Each end of a task costs each of its dependents O(1); the cascade of failures is a worklist, not a recursion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterd.core.model.task import Place, Reason, Status
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
        engines: for `follow`: where the task may run.
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

    def tell(self, state: State, task_id: TaskId, ended: Task | None) -> None:
        """Take the end of one of its tasks; None: that task is not known."""
        self.left.discard(task_id)
        if self.is_met is not None:
            return
        why = self._why_not(state, task_id, ended)
        if self.dependency.is_all:
            if why:
                self.is_met, self.why = False, why
            elif not self.left:
                self.is_met = True
        elif not why:
            self.is_met = True
        elif not self.left:
            self.is_met, self.why = False, f"none of its {len(set(self.dependency.tasks))} tasks is as asked for; {why}"

    def _why_not(self, state: State, task_id: TaskId, ended: Task | None) -> str:
        """Return why this end does not count, or an empty string when it does."""
        if ended is None:
            return f"task {task_id.hex()} is not known (any more)"
        is_ok = ended.status is Status.OK
        if not (self.dependency.on_success if is_ok else self.dependency.on_failure):
            return f"task {task_id.hex()} {'succeeded' if is_ok else 'failed'}"
        if self.is_place:
            return self._why_not_there(state, ended)
        return ""

    def _why_not_there(self, state: State, ended: Task) -> str:
        engine = ended.engine
        if engine is None or engine.id not in state.engines:
            return f"the engine of task {ended.id.hex()} is gone" if engine else f"task {ended.id.hex()} ran nowhere"
        if self.engines and engine.id not in self.engines:  # only `all` asks on: `any` is decided by the first
            return f"task {ended.id.hex()} ran on another engine than those before it"
        self.engines = {engine.id}
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
                condition.tell(state, task_id, None)
            elif other.place is _ENDED:
                condition.tell(state, task_id, other)
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
                    condition.tell(state, ended.id, ended)
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
        kind = "follow" if impossible.is_place else "after"
        fail(state, task, Reason.UNSCHEDULABLE, f"its `{kind}` dependency can not be met: {impossible.why}", now, out)
        return
    if not all(condition.is_met for condition in conditions):
        return
    leave(state, task)
    for condition in conditions:
        if condition.engines is not None:
            _narrow(task, condition.engines)
    queue_or_fail(state, task, Reason.UNSCHEDULABLE, "its dependencies are met", now, out)


def _narrow(task: Task, engines: set[int]) -> None:
    target = task.target
    if target is not None:
        engines = engines & ({target} if isinstance(target, int) else target)
    task.target = next(iter(engines)) if len(engines) == 1 else frozenset(engines)

"""A queued task that turns out to run already leaves its queue for good: however it comes back, it is in one place."""

from __future__ import annotations

import pytest

from clusterd.core.model.task import Status
from clusterd.core.scheduler import Scheduler, actions, events
from clusterd.core.scheduler.invariants import check_settled

TASKS = (b"a", b"b", b"c")


class Late:
    """Three queued tasks; then an engine comes that runs one of them, and another engine that takes the first of the rest."""

    def __init__(self, adopted):
        self.scheduler = Scheduler()
        self.now = 0.0
        self.do(events.ClientAttached(1))
        for task in TASKS:
            self.do(events.TaskSubmitted(task, 1, b"f", 1, retries=3))
        out = []
        self.scheduler.handle_into(events.EngineAttached(0, b"0", "engines", 0), self.now, out)
        self.scheduler.handle_into(events.EngineInventory(0, ((adopted, 0),)), self.now, out)
        self.scheduler.settle(self.now, out)
        assert out == []
        self.do(events.EngineAttached(1, b"1", "engines", 1))

    def do(self, event):
        self.now += 0.001
        out = self.scheduler.handle(event, self.now)
        check_settled(self.scheduler.state, self.now)
        return out

    def run_all(self) -> list[bytes]:
        """Answer for whatever the engines hold until nothing is left; the tasks in the order in which they were delivered."""
        delivered = []
        while held := [
            (engine, task) for engine in self.scheduler.state.engines.values() for task in engine.held.values()
        ]:
            engine, task = held[0]
            out = self.do(events.TaskFinished(task.id, engine.id, task.attempt, Status.OK, 0.1))
            delivered += [action.task for action in out if isinstance(action, actions.Deliver)]
        return delivered


@pytest.mark.parametrize("adopted", TASKS)
def test_an_adopted_task_that_is_retried_elsewhere_runs_once(adopted):
    late = Late(adopted)
    late.do(events.TaskFinished(adopted, 0, 0, Status.ERROR, 0.1))
    assert sorted(late.run_all()) == list(TASKS)


@pytest.mark.parametrize("adopted", TASKS)
def test_an_adopted_task_whose_engine_is_lost_runs_once_more(adopted):
    late = Late(adopted)
    late.do(events.EngineLost(0, "killed", running=adopted))
    assert sorted(late.run_all()) == list(TASKS)


def test_the_last_task_of_a_queue_may_be_adopted():
    scheduler = Scheduler()
    scheduler.handle(events.ClientAttached(1), 0.0)
    scheduler.handle(events.TaskSubmitted(b"a", 1, b"f", 1), 0.0)
    out = []
    scheduler.handle_into(events.EngineAttached(0, b"0", "engines", 0), 0.0, out)
    scheduler.handle_into(events.EngineInventory(0, ((b"a", 0),)), 0.0, out)
    scheduler.settle(0.0, out)
    check_settled(scheduler.state, 0.0)
    assert not scheduler.state.balanced.ring

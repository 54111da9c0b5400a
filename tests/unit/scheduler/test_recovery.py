"""After a lost link or a restarted controller: what is running is adopted, what never arrived is sent again."""

from __future__ import annotations

import pytest

from clusterd.core.model.task import Dependency, Place, Reason, Status
from clusterd.core.scheduler import Scheduler, Settings, actions, events
from clusterd.core.scheduler.invariants import check_settled
from tests.unit.scheduler.world import World, kinds


@pytest.fixture
def world():
    world = World(Settings(max_orphans=2, orphan_patience=10.0))
    world.client(0)
    return world


class Restarted:
    """A controller that has just come back: one client, one engine that holds what nobody knows here."""

    def __init__(self, *held):
        self.scheduler = Scheduler(Settings(max_orphans=2, orphan_patience=10.0))
        self.now = 100.0
        self.do(events.ClientAttached(0))
        self.do(events.EngineAttached(3, b"uuid", "engines", 3))
        self.out = self.do(events.EngineInventory(3, held))

    def do(self, event):
        out = self.scheduler.handle(event, self.now)
        check_settled(self.scheduler.state, self.now)
        return out

    def offer(self, task, **fields):
        return self.do(events.TaskSubmitted(task, 0, b"f", 1, **fields))

    def finish(self, task, attempt, engine=3, status=Status.OK):
        return self.do(events.TaskFinished(task, engine, attempt, status, 0.1))


def test_what_did_not_arrive_is_queued_again_in_order_without_a_charge(world):
    engine = world.engine()
    world.teach(0.0005)
    for number in range(4):
        world.submit(b"%d" % number)
    engine.inside.pop()
    engine.inside.pop()
    for task in (b"2", b"3"):
        world.promises[task].engine = None
    out = world.do(events.EngineInventory(0, tuple((held.task, held.attempt) for held in engine.inside)))
    assert [(action.task, action.attempt) for action in kinds(out, actions.Dispatch)] == [(b"2", 1), (b"3", 1)]


def test_what_it_holds_as_known_stays(world):
    world.engine()
    world.submit(b"a")
    assert world.do(events.EngineInventory(0, ((b"a", 0),))) == []


def test_an_execution_that_is_stale_is_left_to_its_fence(world):
    engine = world.engine()
    world.submit(b"a")
    world.finish(engine)
    assert world.do(events.EngineInventory(0, ((b"a", 0),))) == []


def test_strangers_are_reported_and_the_engine_gets_nothing_else():
    restarted = Restarted((b"x", 4), (b"y", 0))
    assert restarted.out == [actions.AdoptUnknown(b"x", 3, 4), actions.AdoptUnknown(b"y", 3, 0)]
    assert restarted.do(events.EngineInventory(3, ((b"x", 4), (b"y", 0)))) == [], "they are reported once"
    assert restarted.offer(b"new", target=3) == []
    assert restarted.offer(b"newer") == []


def test_a_task_that_is_offered_again_is_found_running():
    restarted = Restarted((b"x", 4))
    assert restarted.offer(b"x", retries=1, timeout=60.0) == []
    assert restarted.scheduler.record(b"x").place is Place.HELD
    assert restarted.finish(b"x", 4) == [actions.Deliver(b"x", 0, 3, 4)]


def test_what_was_adopted_has_begun_and_is_not_recalled_by_an_abort():
    restarted = Restarted((b"x", 4))
    restarted.offer(b"x")
    assert restarted.do(events.AbortRequested(0)) == []


def test_two_that_run_on_one_engine_are_both_found():
    restarted = Restarted((b"x", 4), (b"y", 0))
    restarted.offer(b"x")
    restarted.offer(b"y", after=Dependency((b"never",)))
    restarted.now += 1.0
    assert restarted.do(events.Tick()) == [], "what was adopted has no order to recall it by"
    assert restarted.finish(b"x", 4) == [actions.Deliver(b"x", 0, 3, 4)]
    assert restarted.finish(b"y", 0) == [actions.Deliver(b"y", 0, 3, 0)]
    assert kinds(restarted.offer(b"z"), actions.Dispatch)


def test_a_task_that_is_offered_again_is_found_done():
    restarted = Restarted((b"x", 4))
    assert restarted.finish(b"x", 4) == [actions.Keep(b"x", 3, 4)]
    assert restarted.do(events.EngineInventory(3, ((b"x", 4),))) == []
    assert restarted.offer(b"x") == [actions.Deliver(b"x", 0, 3, 4)]


def test_a_failure_that_was_kept_uses_a_retry():
    restarted = Restarted((b"x", 4))
    restarted.finish(b"x", 4, status=Status.ERROR)
    assert restarted.offer(b"x", retries=1) == [
        actions.Discard(b"x", 3, 4, actions.WhyDiscarded.RETRIED),
        actions.Dispatch(b"x", 3, 5, 1),
    ]


def test_an_offer_that_came_before_the_inventory_is_taken_out_of_its_queue():
    scheduler = Scheduler()
    scheduler.handle(events.ClientAttached(0), 0.0)
    scheduler.handle(events.TaskSubmitted(b"x", 0, b"f", 1), 0.0)
    out: list[actions.AnyAction] = []
    for event in (events.EngineAttached(3, b"", "engines", 3), events.EngineInventory(3, ((b"x", 4),))):
        scheduler.handle_into(event, 0.0, out)
    scheduler.settle(0.0, out)
    check_settled(scheduler.state, 0.0)
    assert out == []
    assert scheduler.record(b"x").place is Place.HELD


def test_kept_results_are_given_up_in_time():
    restarted = Restarted((b"x", 4), (b"y", 0))
    restarted.finish(b"x", 4)
    restarted.now += 1.0
    restarted.finish(b"y", 0)
    restarted.now = restarted.scheduler.next_deadline()
    assert restarted.do(events.Tick()) == [actions.Discard(b"x", 3, 4, actions.WhyDiscarded.EXPIRED)]
    restarted.now = restarted.scheduler.next_deadline()
    assert restarted.do(events.Tick()) == [actions.Discard(b"y", 3, 0, actions.WhyDiscarded.EXPIRED)]
    assert restarted.scheduler.next_deadline() is None


def test_kept_results_are_bounded_in_number():
    restarted = Restarted((b"x", 0), (b"y", 0), (b"z", 0))
    restarted.finish(b"x", 0)
    restarted.finish(b"y", 0)
    assert restarted.finish(b"z", 0) == [
        actions.Keep(b"z", 3, 0),
        actions.Discard(b"x", 3, 0, actions.WhyDiscarded.EXPIRED),
    ]


@pytest.mark.parametrize(("engine", "attempt"), [(3, 5), (4, 4)])
def test_a_result_that_is_not_the_strangers_is_unknown(engine, attempt):
    restarted = Restarted((b"x", 4))
    assert restarted.finish(b"x", attempt, engine) == [
        actions.Discard(b"x", engine, attempt, actions.WhyDiscarded.UNKNOWN)
    ]


def test_a_stranger_that_will_not_run_is_a_new_task_when_it_is_offered():
    restarted = Restarted((b"x", 4))
    restarted.do(events.TaskNotRun(b"x", 9, 4))
    restarted.do(events.TaskNotRun(b"x", 3, 4))
    assert restarted.offer(b"x") == [actions.Dispatch(b"x", 3, 0, 1)]


def test_a_stranger_that_its_engine_does_not_hold_is_a_new_task_when_it_is_offered():
    # Its page showed it as running for a moment, before the engine saw that it was revoked.
    restarted = Restarted((b"x", 4), (b"y", 0))
    restarted.do(events.EngineInventory(3, ((b"y", 0),)))
    assert restarted.scheduler.state.orphanage.running.keys() == {b"y"}
    assert restarted.finish(b"y", 0) == [actions.Keep(b"y", 3, 0)]
    assert restarted.offer(b"x") == [actions.Dispatch(b"x", 3, 0, 1)]


def test_a_stranger_dies_with_its_engine():
    restarted = Restarted((b"x", 4))
    restarted.do(events.EngineLost(3, "killed", "last words"))
    assert restarted.scheduler.state.orphanage.running == {}
    [failure] = restarted.offer(b"x")
    assert (failure.reason, failure.engine, failure.attempt) == (Reason.ENGINE_LOST, 3, 4)
    assert failure.text == "engine 3 (engines/3) was lost: killed; its last output: last words"


def test_a_stranger_that_died_with_its_engine_uses_a_retry():
    restarted = Restarted((b"x", 4))
    restarted.do(events.EngineLost(3, "killed"))
    restarted.do(events.EngineAttached(5, b"", "engines", 3))
    assert restarted.offer(b"x", retries=1) == [actions.Dispatch(b"x", 5, 5, 1)]


def test_a_stranger_that_died_and_runs_elsewhere_runs():
    restarted = Restarted((b"x", 4))
    restarted.do(events.EngineLost(3, "killed"))
    restarted.do(events.EngineAttached(5, b"", "engines", 3))
    restarted.do(events.EngineInventory(5, ((b"x", 5),)))
    assert restarted.offer(b"x") == []
    assert restarted.finish(b"x", 5, engine=5) == [actions.Deliver(b"x", 0, 5, 5)]


def test_the_deaths_of_strangers_are_forgotten_in_time_and_bounded():
    restarted = Restarted((b"x", 0), (b"y", 0), (b"z", 0))
    restarted.do(events.EngineLost(3, "killed"))
    assert list(restarted.scheduler.state.orphanage.lost) == [b"y", b"z"]
    restarted.now = restarted.scheduler.next_deadline()
    assert restarted.do(events.Tick()) == []
    assert not restarted.scheduler.state.orphanage.is_used

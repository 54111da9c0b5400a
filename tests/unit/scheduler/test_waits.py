"""`max_wait`: a task ends when it has waited for that long for its dependencies and an engine, and never otherwise."""

from __future__ import annotations

import pytest

from clusterd.core.model.task import Dependency, Place, Reason, Status
from clusterd.core.scheduler import actions, events
from clusterd.core.scheduler.waits import LEAST
from tests.unit.scheduler.world import World, kinds


@pytest.fixture
def world():
    world = World()
    world.client(0)
    return world


def one(out, kind):
    found = kinds(out, kind)
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("fields", [{}, {"target": 0}, {"target": (0,)}, {"target": (0, 1)}])
def test_a_task_that_no_engine_takes_in_time_ends(world, fields):
    for number in range(2):
        world.engine()
        world.submit(b"busy%d" % number, target=number)
    world.submit(b"a", max_wait=3.0, **fields)
    assert kinds(world.pass_time(2.9), actions.Fail) == []
    failure = one(world.pass_time(0.1), actions.Fail)
    assert failure == actions.Fail(
        b"a", 0, Reason.TIMEOUT, "it waited 3 s for an engine to take it, as long as it may", -1, -1
    )
    assert world.scheduler.record(b"a").reason == "timeout"
    assert world.scheduler.next_deadline() is None


def test_without_any_engine_it_ends_too(world):
    world.submit(b"a", max_wait=3.0)
    assert one(world.pass_time(3.0), actions.Fail).reason is Reason.TIMEOUT


def test_a_task_that_waits_for_others_ends_and_says_what_it_waited_for(world):
    engine = world.engine()
    world.submit(b"a")
    world.submit(b"child", after=Dependency((b"a",)), max_wait=0.5)
    world.submit(b"grandchild", after=Dependency((b"child",), on_success=False, on_failure=True), max_wait=9.0)
    failure = one(world.pass_time(0.5), actions.Fail)
    assert (failure.task, failure.text) == (b"child", "it waited 0.5 s for its dependencies, as long as it may")
    assert kinds(world.finish(engine), actions.Fail) == []
    assert [held.task for held in engine.inside] == [b"grandchild"]


def test_dependencies_and_engine_are_one_wait(world):
    engine = world.engine()
    world.submit(b"a")
    world.submit(b"child", after=Dependency((b"a",)), max_wait=3.0)
    world.pass_time(2.0)
    world.submit(b"busy")
    world.finish(engine)
    assert [held.task for held in engine.inside] == [b"busy"]
    assert one(world.pass_time(1.0), actions.Fail).task == b"child"


def test_what_an_engine_holds_never_ends_this_way(world):
    world.engine()
    world.teach(0.0005)
    world.submit(b"runs", max_wait=0.01)
    world.submit(b"behind", max_wait=0.01)
    assert kinds(world.pass_time(0.02), actions.Fail) == []
    assert len(world.engines[0].inside) == 2


def test_without_any_patience_a_task_is_placed_at_once_or_ends(world):
    engine = world.engine()
    assert kinds(world.submit(b"a", max_wait=0.0), actions.Dispatch)
    assert kinds(world.submit(b"b", max_wait=0.0), actions.Fail) == []
    assert one(world.pass_time(0.0), actions.Fail).task == b"b"
    assert [held.task for held in engine.inside] == [b"a"]


def test_what_can_be_placed_in_the_turn_in_which_its_wait_is_over_is_placed(world):
    engine = world.engine()
    world.submit(b"busy")
    world.submit(b"a", max_wait=1.0)
    world.now += 5.0  # the controller was late: the result and the tick come in one batch
    engine.inside.clear()
    out = world.do(events.TaskFinished(b"busy", 0, 0, Status.OK, 0.1), events.Tick())
    assert kinds(out, actions.Fail) == []
    assert [held.task for held in engine.inside] == [b"a"]


def test_each_time_a_task_is_put_back_it_may_wait_anew(world):
    first, second = world.engine(), world.engine()
    world.submit(b"busy", target=1)
    world.submit(b"a", max_wait=3.0)
    world.pass_time(10.0)
    world.finish(first, status=Status.UNMET)
    assert kinds(world.pass_time(2.9), actions.Fail) == []
    world.finish(second)
    assert [held.task for held in second.inside] == [b"a"]
    world.pass_time(10.0)
    world.finish(second, status=Status.UNMET)
    failure = one(world.pass_time(3.0), actions.Fail)
    assert failure.text == ("it waited 3 s for an engine to take it, as long as it may; it was refused by engines 0, 1")


def test_what_was_recalled_may_wait_anew(world):
    world.engine()
    world.teach(0.0005)
    second = world.engine()
    world.submit(b"slow", target=1)
    world.submit(b"head")
    world.submit(b"a", max_wait=0.05)
    first = world.engines[0]
    assert [held.task for held in first.inside] == [b"head", b"a"]
    world.pass_time(0.04)
    world.recalled(first)
    assert kinds(world.pass_time(0.04), actions.Fail) == []
    assert one(world.pass_time(0.01), actions.Fail).task == b"a"
    assert second.inside[0].task == b"slow"


def test_a_retry_with_a_patience_of_its_own_waits_for_an_engine_that_has_not_failed_it(world):
    for _ in range(2):
        world.engine()
    world.submit(b"a", retries=5, max_wait=3.0)
    for _ in range(2):
        world.finish(next(engine for engine in world.engines.values() if engine.inside), status=Status.ERROR)
    failure = one(world.pass_time(3.0), actions.Fail)
    assert failure.reason is Reason.TIMEOUT
    assert failure.text.endswith("as long as it may; it failed on engines 0, 1")


def test_and_takes_a_new_engine_that_comes_in_time(world):
    engine = world.engine()
    world.submit(b"a", retries=1, max_wait=3.0)
    world.finish(engine, status=Status.ERROR)
    world.pass_time(2.0)
    new = world.engine()
    assert [held.task for held in new.inside] == [b"a"]
    assert kinds(world.finish(new, status=Status.ERROR), actions.Deliver)


@pytest.mark.parametrize("target", [0, (0,), (0, 1)])
def test_but_where_only_its_targets_may_run_it_no_other_can_come(world, target):
    for _ in range(3):
        world.engine()
    world.submit(b"a", retries=3, max_wait=3.0, target=target)
    for _ in range(4):
        out = world.finish(next(engine for engine in world.engines.values() if engine.inside), status=Status.ERROR)
    assert kinds(out, actions.Deliver)


def test_a_patient_task_in_front_does_not_hold_up_the_others(world):
    world.submit(b"patient", max_wait=9.0)
    for number in range(5):
        world.submit(b"%d" % number, max_wait=1.0 + number)
    assert [fail.task for fail in kinds(world.pass_time(3.0), actions.Fail)] == [b"0", b"1", b"2"]
    engine = world.engine()
    assert [held.task for held in engine.inside] == [b"patient"]


def test_an_aborted_task_is_not_ended_twice(world):
    world.submit(b"a", max_wait=1.0)
    world.do(events.AbortRequested(0))
    assert world.pass_time(2.0) == []


def test_a_client_that_does_not_read_keeps_its_tasks_waiting(world):
    world.engine()
    world.blocked.add(0)
    world.do(events.ResultsBlocked(0))
    world.submit(b"a", max_wait=1.0)
    assert one(world.pass_time(1.0), actions.Fail).task == b"a"


def test_tasks_that_need_not_wait_leave_little_behind(world):
    engine = world.engine()
    for number in range(3 * LEAST):
        world.scheduler.handle(events.TaskSubmitted(b"%d" % number, 0, b"f", 1, max_wait=3600.0), world.now)
        order = engine.last_order + 1
        engine.last_order = order
        world.scheduler.handle(events.TaskFinished(b"%d" % number, 0, 0, Status.OK, 0.1), world.now)
    assert len(world.scheduler.state.waits.heap) <= LEAST
    assert world.scheduler.state.tasks[b"%d" % (3 * LEAST - 1)].place is Place.ENDED
    world.submit(b"busy")
    world.submit(b"a", max_wait=5.0)
    assert one(world.pass_time(5.0), actions.Fail).task == b"a"

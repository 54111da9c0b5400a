"""An engine may refuse a task, because what it requires is not there: the task looks for another engine, at no charge."""

from __future__ import annotations

import pytest

from clusterd.core.model.task import Dependency, Place, Reason, Status, Unmet
from clusterd.core.scheduler import Settings, actions, events
from clusterd.core.scheduler.actions import WhyDiscarded
from tests.unit.scheduler.world import World, kinds


@pytest.fixture
def world():
    world = World()
    world.client(0)
    return world


def where(world, task):
    """The engine that holds a task."""
    return next((engine for engine in world.engines.values() if any(held.task == task for held in engine.inside)), None)


def refuse(world, task):
    """Let the engine that runs a task refuse it."""
    return world.finish(where(world, task), status=Status.UNMET)


def test_a_refused_task_goes_to_each_other_engine_once_and_keeps_its_retries(world):
    for _ in range(3):
        world.engine()
    world.submit(b"a", retries=1)
    seen = [where(world, b"a").id]
    for _ in range(2):
        out = refuse(world, b"a")
        assert kinds(out, actions.Discard) == [actions.Discard(b"a", seen[-1], len(seen) - 1, WhyDiscarded.REFUSED)]
        seen.append(where(world, b"a").id)
    assert sorted(seen) == [0, 1, 2]
    world.finish(where(world, b"a"), status=Status.ERROR)  # that uses the retry: the others still refuse it
    assert where(world, b"a").id == seen[-1]
    assert kinds(world.finish(where(world, b"a"), status=Status.ERROR), actions.Deliver)


def test_refused_by_all_it_waits_for_a_new_engine_as_long_as_it_takes(world):
    for _ in range(2):
        world.engine()
    world.submit(b"a")
    refuse(world, b"a")
    refuse(world, b"a")
    assert world.scheduler.record(b"a").place is Place.QUEUED
    assert world.scheduler.unassigned() == 1
    world.pass_time(3600.0)
    assert where(world, b"a") is None
    world.submit(b"b")  # an idle engine stays free for others
    assert where(world, b"b") is not None
    assert kinds(world.finish(world.engine()), actions.Deliver)[0].task == b"a"


def test_a_refusal_holds_for_ever_also_after_others_came_and_went(world):
    world.engine()
    world.submit(b"a", retries=1)
    refuse(world, b"a")
    second = world.engine()
    assert where(world, b"a") is second
    world.lose(second)
    assert where(world, b"a") is None  # the first is idle, and still refuses it
    assert world.scheduler.record(b"a").place is Place.QUEUED
    assert world.engine().inside[0].task == b"a"


def test_when_all_that_refuse_it_are_gone_it_is_an_ordinary_task_again(world):
    world.submit(b"a")
    refusing = world.engine()
    refuse(world, b"a")
    world.lose(refusing)
    engine = world.engine()
    assert [held.task for held in engine.inside] == [b"a"]


@pytest.mark.parametrize("target", [(0, 1), (1, 0, 1)])
def test_refused_by_all_of_its_targets_it_fails_and_says_so(world, target):
    for _ in range(3):
        world.engine()
    world.submit(b"a", target=target, retries=7)
    first = where(world, b"a").id
    assert kinds(refuse(world, b"a"), actions.Fail) == []
    last = where(world, b"a").id
    assert {first, last} == {0, 1}
    (failure,) = kinds(refuse(world, b"a"), actions.Fail)
    assert (failure.reason, failure.unmet) == (Reason.UNSCHEDULABLE, Unmet.IMPOSSIBLE)
    assert failure.text == (
        f"engine {last} (engines/{last}) refused it: what it requires is not there; no engine that it may run on is left; "
        f"it was refused by engines 0, 1"
    )


def test_a_retry_within_targets_goes_neither_where_it_failed_nor_where_it_is_refused(world):
    for _ in range(4):
        world.engine()
    world.submit(b"a", target=(0, 1, 2), retries=2)
    seen = [where(world, b"a").id]
    refuse(world, b"a")
    for _ in range(2):
        seen.append(where(world, b"a").id)
        world.finish(where(world, b"a"), status=Status.ERROR)
    assert sorted(seen) == [0, 1, 2]
    assert where(world, b"a").id in seen[1:]  # both have failed it: any of them, not the one that refuses it


def test_refused_where_it_has_to_follow_another_it_fails(world):
    for _ in range(2):
        world.engine()
    world.submit(b"a", target=1)
    world.submit(b"child", follow=Dependency((b"a",)))
    world.finish(world.engines[1])
    (failure,) = kinds(refuse(world, b"child"), actions.Fail)
    assert (failure.reason, failure.unmet, failure.engine) == (Reason.UNSCHEDULABLE, Unmet.IMPOSSIBLE, -1)


def test_when_the_targets_that_did_not_refuse_it_are_lost_it_fails(world):
    for _ in range(3):
        world.engine()
    world.submit(b"busy", target=1)
    world.submit(b"a", target=(0, 1))
    refuse(world, b"a")
    (failure,) = [fail for fail in kinds(world.lose(world.engines[1]), actions.Fail) if fail.task == b"a"]
    assert failure.unmet is Unmet.IMPOSSIBLE
    assert failure.text.endswith("; no engine that it may run on is left; it was refused by engine 0")


def test_direct_work_gets_what_its_engine_said_as_its_result(world):
    world.engine()
    world.engine()
    world.submit(b"a", target=0, retries=3)
    assert kinds(refuse(world, b"a"), actions.Deliver) == [actions.Deliver(b"a", 0, 0, 0)]
    assert world.scheduler.record(b"a").status is Status.UNMET


def test_one_target_in_a_list_is_a_restriction_not_direct_work(world):
    world.engine()
    world.submit(b"a", target=(0,))
    (failure,) = kinds(refuse(world, b"a"), actions.Fail)
    assert failure.unmet is Unmet.IMPOSSIBLE


def test_a_refused_task_is_first_in_the_queue_again(world):
    first = world.engine()
    second = world.engine()
    world.submit(b"busy", target=1)
    world.submit(b"a", target=(0, 1))
    world.submit(b"b", target=(0, 1))
    assert where(world, b"a") is first
    refuse(world, b"a")
    world.submit(b"c", target=(1,))
    world.finish(first)
    world.finish(second)
    assert where(world, b"a") is second


def test_dependents_hear_of_the_end_alone(world):
    world.engine()
    world.engine()
    world.submit(b"a")
    world.submit(b"child", after=Dependency((b"a",)))
    assert kinds(refuse(world, b"a"), actions.Fail) == []
    world.finish(where(world, b"a"))
    assert where(world, b"child") is not None


def test_a_refusal_is_no_run(world):
    engine = world.engine()
    world.engine()
    for number in range(6):
        world.submit(b"%d" % number, function=b"f")
        held = next(engine for engine in world.engines.values() if engine.inside)
        world.finish(held, 0.0001, Status.UNMET)
        assert world.scheduler.state.functions.by_digest[b"f"].count == number
        world.finish(where(world, b"%d" % number), 0.5)
    assert world.scheduler.state.functions.by_digest[b"f"].weight == 1.0
    status = world.scheduler.queue_status()
    assert status.completed == 6
    assert (status.running, status.prefetched, status.unassigned) == (0, 0, 0)
    assert all(load.running == load.queued == 0 for load in status.engines.values())
    assert engine.id in status.engines


def test_counters_are_right_after_retries(world):
    for _ in range(3):
        world.engine()
    world.submit(b"a", retries=2)
    for _ in range(3):
        world.finish(where(world, b"a"), status=Status.ERROR)
    status = world.scheduler.queue_status()
    assert status.completed == 3  # runs
    assert {(load.queued, load.running, load.prefetched, load.completed) for load in status.engines.values()} == {
        (0, 0, 0, 1)
    }
    assert (status.unassigned, status.waiting, status.running) == (0, 0, 0)
    assert status.clients[0].ended == 1


def test_an_aborted_task_that_is_refused_ends_as_aborted(world):
    world.engine()
    world.engine()
    world.submit(b"a", retries=1)
    world.do(events.AbortRequested(0, tasks=(b"a",)))
    (failure,) = kinds(refuse(world, b"a"), actions.Fail)
    assert failure.reason is Reason.ABORTED


def test_of_a_client_that_is_gone_it_is_forgotten(world):
    world.engine()
    world.engine()
    world.submit(b"a")
    world.do(events.ClientForgotten(0))
    assert kinds(refuse(world, b"a"), actions.Forget) == [actions.Forget((b"a",))]


def test_an_interrupted_task_that_is_refused_is_not_timed_out(world):
    world.engine()
    world.engine()
    world.submit(b"a", timeout=1.0)
    world.pass_time(1.5)
    out = refuse(world, b"a")
    assert kinds(out, actions.Fail) == []
    assert kinds(out, actions.Dispatch)


def test_a_repeated_refusal_is_fenced(world):
    world.engine()
    world.engine()
    world.submit(b"a")
    at = where(world, b"a").id
    refuse(world, b"a")
    assert world.do(events.TaskFinished(b"a", at, 0, Status.UNMET, 0.0)) == [
        actions.Discard(b"a", at, 0, WhyDiscarded.STALE)
    ]


def test_an_orphan_that_was_refused_before_its_client_came_back_goes_elsewhere(world):
    world.engine()
    world.do(events.EngineInventory(0, ((b"a", 4),)))
    assert world.do(events.TaskFinished(b"a", 0, 4, Status.UNMET, 0.0)) == [actions.Keep(b"a", 0, 4)]
    out: list[actions.AnyAction] = []
    world.scheduler.handle_into(events.TaskSubmitted(b"a", 0, b"f", 10), world.now, out)
    world.scheduler.settle(world.now, out)
    assert out == [actions.Discard(b"a", 0, 4, WhyDiscarded.REFUSED)]
    out = world.scheduler.handle(events.EngineAttached(1, b"", "engines", 1), world.now)
    assert out == [actions.Dispatch(b"a", 1, 5, 1)]


def test_refusals_in_many_combinations_leave_no_pools_behind():
    world = World(Settings(max_records=1000))
    world.client(0)
    engines = [world.engine() for _ in range(7)]
    for number in range(127):
        refusing = {bit for bit in range(7) if number >> bit & 1}
        task = b"%d" % number
        world.submit(task)
        while (engine := where(world, task)) is not None and engine.id in refusing:
            refuse(world, task)
        world.finish(where(world, task))
    assert all(not engine.inside for engine in engines)
    assert len(world.scheduler.state.pools) <= 65

from __future__ import annotations

from itertools import combinations

import pytest

from clusterd.core.model.task import Place, Reason, Status
from clusterd.core.scheduler import actions, events
from clusterd.core.scheduler.submission import KNOWN_TARGETS
from tests.unit.scheduler.world import World, kinds


@pytest.fixture
def world():
    world = World()
    world.client(0, max_tasks=3, max_bytes=100)
    return world


def test_a_task_goes_to_an_idle_engine_at_once(world):
    world.engine()
    assert world.submit(b"a") == [actions.Dispatch(b"a", 0, 0, 1)]


def test_a_task_waits_for_the_first_engine(world):
    assert world.submit(b"a") == []
    engine = world.engine()
    assert [held.task for held in engine.inside] == [b"a"]


def test_attempts_go_on_where_a_recovered_controller_says(world):
    world.engine()
    assert world.submit(b"a", attempt=5) == [actions.Dispatch(b"a", 0, 5, 1)]


@pytest.mark.parametrize(
    ("sizes", "is_refused"), [([1, 1, 1, 1], True), ([60, 41], True), ([60, 40], False), ([500], False)]
)
def test_a_client_has_a_credit_in_tasks_and_bytes_and_may_have_one_task_of_any_size(world, sizes, is_refused):
    for number, size in enumerate(sizes[:-1]):
        assert world.submit(b"%d" % number, size=size) == []
    before = len(world.promises)
    world.submit(b"last", size=sizes[-1])
    assert len(world.promises) == before + (not is_refused)


def test_a_refusal_says_how_much_is_too_much_and_leaves_no_trace(world):
    for number in range(3):
        world.submit(b"%d" % number)
    refusal = world.scheduler.handle(events.TaskSubmitted(b"x", 0, b"f", 7), world.now)
    assert [type(action) for action in refusal] == [actions.Fail]
    assert refusal[0].reason == Reason.OVERLOADED
    assert "3 tasks of 30 bytes unfinished, and may have 3 tasks of 100 bytes: this one of 7 bytes" in refusal[0].text
    assert world.scheduler.record(b"x") is None
    engine = world.engine()
    world.finish(engine)
    world.submit(b"x")
    assert world.scheduler.record(b"x").place is Place.QUEUED


def test_credit_comes_back_with_each_end(world):
    engine = world.engine()
    for number in range(20):
        world.submit(b"%d" % number, size=100)
        world.finish(engine)
    assert world.scheduler.queue_status().clients[0].bytes == 0


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (7, "not registered: engines 7; an engine that was replaced has a new id"),
        ((7, 8), "not registered: engines 7, 8; an engine that was replaced has a new id"),
        ((), "not registered: engines (none); an engine that was replaced has a new id"),
        (0, "draining, no new work is taken: engine 0 (engines/0)"),
        ((0,), "draining, no new work is taken: engine 0 (engines/0)"),
    ],
)
def test_a_target_that_takes_nothing_is_refused_with_its_name(world, target, text):
    world.engine().is_draining = True
    world.do(events.EngineDraining(0))
    refusal = world.scheduler.handle(events.TaskSubmitted(b"x", 0, b"f", 7, target), world.now)
    assert refusal == [actions.Fail(b"x", 0, Reason.UNSCHEDULABLE, text)]


@pytest.mark.parametrize("is_forgotten", [True, False])
def test_a_client_that_is_not_there_is_refused(world, is_forgotten):
    world.engine()
    world.submit(b"a")
    if is_forgotten:
        world.do(events.ClientForgotten(0))
    handle = 0 if is_forgotten else 9
    refusal = world.scheduler.handle(events.TaskSubmitted(b"x", handle, b"f", 7), world.now)
    assert refusal == [actions.Fail(b"x", handle, Reason.UNSCHEDULABLE, f"client {handle} is not attached")]


def test_a_repeated_submission_changes_nothing_and_tells_whose_it_is_and_where(world):
    world.client(1)
    world.submit(b"a")
    again = events.TaskSubmitted(b"a", 1, b"g", 9)
    assert world.do(again) == [actions.AnswerKnown(b"a", 1, 0, Place.QUEUED)]
    engine = world.engine()
    assert world.do(again) == [actions.AnswerKnown(b"a", 1, 0, Place.HELD)]
    world.finish(engine)
    assert world.do(again) == [actions.AnswerKnown(b"a", 1, 0, Place.ENDED)]


def test_several_targets_take_turns_and_no_other_engine_takes_part(world):
    world.client(1)
    for _ in range(4):
        world.engine()
    for number in range(6):
        world.submit(b"%d" % number, 1, target=(1, 3))
    assert [len(engine.inside) for engine in world.engines.values()] == [0, 1, 0, 1]
    world.finish(world.engines[3])
    assert [held.task for held in world.engines[3].inside] == [b"2"]


def test_one_target_named_twice_is_direct_work(world):
    world.engine()
    world.engine()
    world.submit(b"a", target=(0, 0))
    world.submit(b"b", target=(0, 0))
    assert world.scheduler.engine_load(0).queued == 1


def test_a_pool_is_spread_over_the_least_loaded_of_its_members(world):
    world.client(1)
    for _ in range(20):
        world.engine()
    world.teach(0.0005, client=1)
    batch = [events.TaskSubmitted(b"t%d" % number, 1, b"f", 1, tuple(range(10))) for number in range(40)]
    world.do(*batch)
    assert [len(engine.inside) for engine in world.engines.values()] == [4] * 10 + [0] * 10


def use_many_pools(world):
    for targets in list(combinations(range(4, 14), 3))[:80]:
        world.submit(b"%d/%d/%d" % targets, 1, target=targets)
        for number in targets:
            if world.engines[number].inside:
                world.finish(world.engines[number])


def test_pools_without_work_are_dropped_when_there_are_many_and_others_are_not(world):
    world.client(1)
    world.client(2)
    for _ in range(14):
        world.engine()
    for task in (b"busy", b"busier", b"waiting"):
        world.submit(task, 1, target=(2, 3))
    world.do(events.AbortRequested(1, tasks=(b"waiting",)))  # the pool still stands in the lists of its members
    world.blocked.add(2)
    world.do(events.ResultsBlocked(2))
    world.submit(b"blocked", 2, target=(0, 1))
    use_many_pools(world)
    pools = world.scheduler.state.pools
    assert len(pools) <= 64
    assert (frozenset({0, 1}), False) in pools
    assert (frozenset({2, 3}), False) not in pools
    world.blocked.clear()
    world.do(events.ResultsUnblocked(2))
    assert world.promises[b"blocked"].engine in {0, 1}


def test_an_engine_joins_a_pool_that_has_no_work_and_gets_its_next(world):
    engine = world.engine()
    world.submit(b"a", target=(0, 1))
    world.finish(engine)
    other = world.engine()
    world.submit(b"b", target=0)
    world.submit(b"c", target=(0, 1))
    assert [held.task for held in other.inside] == [b"c"]


def test_an_engine_that_comes_is_in_no_pool_that_does_not_name_it(world):
    world.engine()
    world.engine()
    for task in (b"a", b"b", b"c"):
        world.submit(task, target=(0, 1))
    assert not world.engine().inside


def test_an_engine_that_was_named_before_it_came_joins_the_pool(world):
    world.engine()
    world.submit(b"a", target=(0, 1))
    world.submit(b"b", target=(0, 1))
    engine = world.engine()
    assert [held.task for held in engine.inside] == [b"b"]
    assert kinds(world.finish(engine), actions.Deliver)


def test_what_tuples_of_targets_mean_is_remembered_for_the_last_few(world):
    for _ in range(24):
        world.engine()
    scheduler, now = world.scheduler, world.now  # without the checks at each step: there are many
    targets = list(combinations(range(24), 2))
    assert len(targets) > KNOWN_TARGETS
    for number, target in enumerate(targets):
        for order in (target, target[::-1]):
            task = b"%d.%d" % (number, order[0])
            (dispatch,) = scheduler.handle(events.TaskSubmitted(task, 0, b"f", 1, order), now)
            assert dispatch.engine in target
            scheduler.handle(events.TaskFinished(task, dispatch.engine, 0, Status.OK, 0.1), now)
        assert len(scheduler.state.targets) <= KNOWN_TARGETS

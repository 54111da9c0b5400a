"""What an engine holds in advance, and what happens when that was a mistake."""

from __future__ import annotations

import pytest

from clusterd.core.model.task import Status
from clusterd.core.scheduler import Settings, actions, events
from clusterd.core.scheduler.runtimes import CLOSED, FLOOR, QUANTUM, Function, FunctionCache
from tests.unit.scheduler.world import World, kinds


@pytest.fixture
def world():
    world = World()
    world.client(0)
    return world


def flood(world, count=200, function=b"f", client=0, prefix=b"", **fields):
    number = len(world.promises)
    return world.do(
        *(
            events.TaskSubmitted(prefix + b"%d" % (number + index), client, function, 10, **fields)
            for index in range(count)
        )
    )


@pytest.mark.parametrize(
    ("duration", "held"),
    [
        (0.000_001, 64),  # the cap
        (0.000_5, 10),  # 5 ms of work
        (0.002, 3),
        (0.0049, 2),
        (0.005, 1),
        (10.0, 1),
    ],
)
def test_an_engine_is_given_what_runs_for_about_its_window_and_one_of_what_runs_longer(world, duration, held):
    world.engine()
    world.teach(duration)
    flood(world)
    assert len(world.engines[0].inside) == held


def test_the_hop_to_an_engine_is_covered_by_work(world):
    world.engine(hop=0.011)
    world.teach(0.001)
    flood(world)
    assert len(world.engines[0].inside) == 15


def test_what_is_not_known_is_given_one_at_a_time_until_it_has_run_three_times(world):
    engine = world.engine()
    flood(world)
    for _ in range(2):
        assert len(engine.inside) == 1
        world.finish(engine, 0.0001)
    world.finish(engine, 0.0001)
    assert len(engine.inside) > 10


def test_an_unknown_task_may_wait_behind_short_ones_but_nothing_waits_behind_it(world):
    engine = world.engine()
    world.teach(0.0001)
    flood(world, 3)
    flood(world, 2, b"unknown")
    flood(world, 3)
    assert len(engine.inside) == 4


def test_the_cap_in_tasks_and_in_bytes(world):
    engine = world.engine(max_held=5)
    world.teach(0.0001)
    flood(world)
    assert len(engine.inside) == 5
    other = world.engine(max_bytes=25)
    assert len(other.inside) == 3, "the one that goes beyond is the last"


def test_work_is_spread_before_it_is_stacked(world):
    for _ in range(4):
        world.engine()
    world.teach(0.0005)
    flood(world, 12)
    assert [len(engine.inside) for engine in world.engines.values()] == [3, 3, 3, 3]


def test_what_waits_behind_a_dispatch_that_is_held_is_not_recalled(world):
    world.engine(), world.engine()
    world.teach(0.0005)
    flood(world, 8)
    world.do(events.DispatchesHeld(0.5))
    assert kinds(world.pass_time(0.5), actions.Recall) == []
    assert len(kinds(world.pass_time(0.03), actions.Recall)) == 2


def test_a_long_task_that_looked_short_delays_nothing_by_100_ms(world):
    slow, other = world.engine(), world.engine()
    world.teach(0.0005)
    flood(world, 8)
    assert [len(slow.inside), len(other.inside)] == [4, 4]
    began = world.now
    while other.inside:
        world.finish(other, 0.0005)
    victims = [held.task for held in slow.inside][1:]  # its head takes 10 s
    recall = kinds(world.pass_time(0.026), actions.Recall)
    assert recall == [actions.Recall(slow.id, slow.inside[1].order, slow.inside[3].order)]
    dispatched = kinds(world.recalled(slow), actions.Dispatch)
    assert [action.task for action in dispatched] == victims, "in their order"
    assert {action.engine for action in dispatched} == {other.id}
    assert world.now - began < 0.1
    flood(world, 200)
    assert len(slow.inside) == 1, "nothing is put behind a head that is late"
    world.finish(slow, 10.0)
    assert len(slow.inside) > 1


def test_a_late_head_is_noticed_when_work_is_to_be_put_behind_it(world):
    slow = world.engine()
    world.teach(0.0005)
    world.submit(b"late")
    world.pass_time(1.0)
    world.submit(b"next")
    world.submit(b"direct", target=0)
    assert len(slow.inside) == 1
    world.finish(slow, 1.0)
    assert len(slow.inside) == 2


@pytest.mark.parametrize("target", [0, (0, 1)])
def test_a_late_head_is_noticed_by_targeted_work(world, target):
    slow = world.engine()
    world.teach(0.0005)
    world.submit(b"late")
    world.pass_time(1.0)
    world.submit(b"next", target=target)
    assert len(slow.inside) == 1
    world.finish(slow, 1.0)
    assert [held.task for held in slow.inside] == [b"next"]


def test_an_unanswered_recall_is_repeated_and_never_answered_for(world):
    slow, other = world.engine(), world.engine()
    world.teach(0.0005)
    flood(world, 4)
    while other.inside:
        world.finish(other)
    assert len(kinds(world.pass_time(3.1), actions.Recall)) == 4
    assert len(slow.inside) == 2
    assert not other.inside, "no task is in two engines"


def test_a_recalled_task_that_runs_after_all_counts(world):
    slow, _other = world.engine(), world.engine()
    world.teach(0.0005)
    flood(world, 4)
    world.pass_time(0.03)
    slow.revoked = (1, 0)  # the engine was faster than the page
    assert kinds(world.finish(slow), actions.Deliver)
    assert kinds(world.finish(slow), actions.Deliver)


def test_the_engines_own_answer_after_the_agents_is_fenced(world):
    slow, other = world.engine(), world.engine()
    world.teach(0.0005)
    flood(world, 4)
    world.finish(other)
    world.pass_time(0.03)
    victim = slow.inside[1]
    world.recalled(slow)
    assert world.do(events.TaskNotRun(victim.task, slow.id, victim.attempt)) == []


def test_a_lone_engine_is_not_asked_to_give_back_until_another_comes(world):
    slow = world.engine()
    world.teach(0.0005)
    flood(world, 4)
    assert kinds(world.pass_time(2.0), actions.Recall) == []
    other = world.engine()
    assert kinds(world.pass_time(1.1), actions.Recall)
    world.recalled(slow)
    assert other.inside


def test_direct_work_behind_a_late_head_stays_where_it_has_to_run(world):
    world.engine()
    world.engine()
    world.teach(0.0005)
    flood(world, 4, target=0)
    assert kinds(world.pass_time(1.0), actions.Recall) == []


def test_a_head_that_is_given_back_has_a_successor(world):
    engine = world.engine()
    world.teach(0.0005)
    flood(world, 4)
    world.pass_time(0.020)
    out = world.give_back(engine, engine.inside[0])
    assert len(kinds(out, actions.Dispatch)) == 1
    assert kinds(world.pass_time(0.020), actions.Recall) == []


def test_a_timer_of_an_engine_without_work_does_nothing(world):
    engine = world.engine()
    world.teach(0.0005)
    flood(world, 2)
    world.finish(engine)
    world.finish(engine)
    assert world.pass_time(1.0) == []
    assert world.scheduler.next_deadline() is None


def test_what_is_recalled_of_an_engine_that_is_gone_is_old_news(world):
    assert world.do(events.EngineRecalled(3, 1, 2, 0)) == []


def test_a_reported_start_moves_the_moment_from_which_a_head_is_late(world):
    engine, _other = world.engine(), world.engine()
    world.teach(0.0005)
    flood(world, 4)
    world.pass_time(0.020)
    head = engine.inside[0]
    world.do(events.TaskStarted(head.task, engine.id, head.attempt))
    world.do(events.TaskStarted(b"never", engine.id, 0))
    recalls = kinds(world.pass_time(0.020), actions.Recall)
    assert engine.id not in {action.engine for action in recalls}
    assert engine.id in {action.engine for action in kinds(world.pass_time(0.020), actions.Recall)}


# --- estimates ---


def test_the_median_ignores_outliers_and_follows_a_change():
    function = Function(0.005)
    for duration in [9.0, 0.001, 0.001, 0.001]:
        function.add(duration)
    assert function.weight == 0.001
    for _ in range(20):
        function.add(0.001)
    for _ in range(7):
        function.add(3.0)
    assert function.weight == 0.001
    for _ in range(3):
        function.add(3.0)
    assert (function.weight, function.share) == (CLOSED, 0.1)
    for _ in range(24):
        function.add(0.000_001)
    assert (function.weight, function.share) == (FLOOR, FLOOR)


def test_nothing_is_known_before_the_third_run():
    function = Function(0.005)
    for _ in range(2):
        function.add(0.001)
        assert (function.weight, function.share) == (CLOSED, QUANTUM)
    function.add(0.001)
    assert function.weight == 0.001


def test_the_cache_of_functions_is_bounded_and_forgets_the_older_half():
    cache = FunctionCache(Settings(max_functions=4))
    for number in range(5):
        cache.make(b"%d" % number)
    assert list(cache.by_digest) == [b"2", b"3", b"4"]


def test_a_failed_run_is_measured_too(world):
    engine = world.engine()
    for number in range(3):
        world.submit(b"%d" % number)
        world.finish(engine, 0.001, Status.ERROR)
    flood(world)
    assert len(engine.inside) == 5

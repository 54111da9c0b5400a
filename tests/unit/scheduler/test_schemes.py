"""Which engine gets a task, by scheme."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from clusterd.core.model.task import Scheme, Status
from clusterd.core.scheduler import Settings, actions, events
from clusterd.core.scheduler.schemes import LEAST, Dice, LeastRecent, Weighted
from tests.unit.scheduler.world import World, kinds

BY_LOT = [Scheme.PLAINRANDOM, Scheme.TWOBIN, Scheme.WEIGHTED]


def world_of(scheme, engines=4, seed=1, **limits):
    world = World(Settings(scheme=scheme, seed=seed))
    world.client(0)
    for _ in range(engines):
        world.engine(**limits)
    return world


def run_one_by_one(world, count, **fields):
    """Run tasks, each alone, and return where."""
    places = []
    for _ in range(count):
        (dispatch,) = kinds(world.submit(b"one%d" % len(world.promises), **fields), actions.Dispatch)
        places.append(dispatch.engine)
        world.finish(world.engines[dispatch.engine])
        world.now += 0.001
    return places


@pytest.mark.parametrize("scheme", Scheme)
@pytest.mark.parametrize("fields", [{}, {"target": (0, 1, 3)}])
def test_each_scheme_serves_all_that_asks_and_uses_all_engines(scheme, fields):
    world = world_of(scheme)
    for number in range(40):
        world.submit(b"%d" % number, **fields)
    allowed = {0, 1, 3} if fields else {0, 1, 2, 3}
    assert {number for number, engine in world.engines.items() if engine.inside} == allowed
    while any(engine.inside for engine in world.engines.values()):
        world.finish(next(engine for engine in world.engines.values() if engine.inside), 1.0)
    assert {promise.end for promise in world.promises.values()} == {"delivered"}


@pytest.mark.parametrize("scheme", Scheme)
def test_a_scheme_may_be_given_by_its_word(scheme):
    assert run_one_by_one(world_of(scheme.value), 6) == run_one_by_one(world_of(scheme), 6)


@pytest.mark.parametrize("scheme", [Scheme.LRU, Scheme.PURE])
@pytest.mark.parametrize("fields", [{}, {"target": (0, 1, 2, 3)}])
def test_lru_and_pure_take_turns(scheme, fields):
    assert run_one_by_one(world_of(scheme), 8, **fields) == [0, 1, 2, 3, 0, 1, 2, 3]


def test_leastload_takes_the_engine_that_is_warm():
    assert len(set(run_one_by_one(world_of(Scheme.LEASTLOAD), 8))) == 1


def test_a_client_may_ask_to_go_round_and_leaves_the_others_their_warm_engine():
    world = world_of(Scheme.LEASTLOAD)
    world.client(1, goes_round=True)
    first = run_one_by_one(world, 4, client=1)
    assert sorted(first) == [0, 1, 2, 3]
    assert run_one_by_one(world, 8, client=1) == first * 2
    # An engine that is busy is no choice, whenever it was used last.
    (dispatch,) = kinds(world.submit(b"busy", client=1), actions.Dispatch)
    assert dispatch.engine == first[0]
    assert run_one_by_one(world, 3, client=1) == first[1:]
    assert len(set(run_one_by_one(world, 4))) == 1


def test_who_goes_round_gets_what_the_scheme_says():
    world = world_of(Scheme.PLAINRANDOM)
    world.client(1, goes_round=True)
    assert run_one_by_one(world, 6, client=1) == run_one_by_one(world_of(Scheme.PLAINRANDOM), 6)


def test_lru_goes_by_the_last_dispatch_not_by_the_last_result():
    world = world_of(Scheme.LRU, 3)
    for number in range(3):
        world.submit(b"%d" % number)
    for number in (2, 1, 0):
        world.finish(world.engines[number])
    assert run_one_by_one(world, 3) == [0, 1, 2]


def test_a_new_engine_is_the_least_recently_used():
    world = world_of(Scheme.LRU, 2)
    run_one_by_one(world, 2)
    world.engine()
    (dispatch,) = kinds(world.submit(b"next"), actions.Dispatch)
    assert dispatch.engine == 2


def test_direct_work_is_use_too():
    world = world_of(Scheme.LRU, 3)
    world.submit(b"direct", target=0)
    world.finish(world.engines[0])
    assert run_one_by_one(world, 3) == [1, 2, 0]


def test_pure_goes_round_whatever_engines_hold_and_leaves_it_there():
    world = world_of(Scheme.PURE, 3, max_held=4)
    out = []
    for number in range(14):
        out += world.submit(b"%d" % number)
    assert [dispatch.engine for dispatch in kinds(out, actions.Dispatch)] == [0, 1, 2] * 4
    assert world.scheduler.unassigned() == 2
    world.finish(world.engines[1], 100.0)
    assert len(world.engines[1].inside) == 4
    assert kinds(world.pass_time(3600.0), actions.Recall) == []
    assert world.scheduler.next_deadline() is None


def test_pure_has_timeouts_all_the_same():
    world = world_of(Scheme.PURE, 1)
    world.submit(b"a")
    world.submit(b"b", timeout=2.0)
    world.finish(world.engines[0])
    assert kinds(world.pass_time(2.0), actions.Interrupt) == [actions.Interrupt(0, b"b", 0)]


def test_what_a_lost_engine_had_not_begun_goes_round_again():
    world = world_of(Scheme.PURE, 2)
    for number in range(6):
        world.submit(b"%d" % number)
    out = world.lose(world.engines[0], running=b"0")
    assert [dispatch.engine for dispatch in kinds(out, actions.Dispatch)] == [1, 1]


@pytest.mark.parametrize("scheme", BY_LOT)
def test_lots_are_drawn_by_the_seed(scheme):
    draws = [run_one_by_one(world_of(scheme, seed=seed), 20) for seed in (1, 1, 2)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_plainrandom_is_even():
    counts = Counter(run_one_by_one(world_of(Scheme.PLAINRANDOM), 400))
    assert min(counts.values()) > 70


def test_twobin_never_takes_the_most_recently_used_of_two_and_seldom_of_many():
    assert all(a != b for a, b in pairwise(run_one_by_one(world_of(Scheme.TWOBIN, 2), 50)))
    places = run_one_by_one(world_of(Scheme.TWOBIN, 4), 200)
    assert sum(a == b for a, b in pairwise(places)) == 0  # of two different ones, one was used before it
    counts = Counter(places)
    assert min(counts.values()) > 35


def test_weighted_takes_an_idle_engine_where_there_is_one():
    world = world_of(Scheme.WEIGHTED, 4)
    world.teach(0.0001)
    out = [action for number in range(4) for action in world.submit(b"%d" % number)]
    assert {dispatch.engine for dispatch in kinds(out, actions.Dispatch)} == {0, 1, 2, 3}


def test_weighted_evens_out_what_engines_hold():
    world = world_of(Scheme.WEIGHTED, 4, max_held=30)
    world.teach(0.00005)
    held = [20, 10, 2, 2]
    for number, count in enumerate(held):
        for more in range(count):
            world.submit(b"d%d.%d" % (number, more), target=number)
    out = [action for number in range(16) for action in world.submit(b"%d" % number)]
    counts = Counter(dispatch.engine for dispatch in kinds(out, actions.Dispatch))
    assert counts[2] + counts[3] > counts[0] + counts[1]
    assert counts[0] <= 2


def test_weighted_draws_by_what_engines_hold_and_takes_the_lighter_of_two():
    world = world_of(Scheme.WEIGHTED, 2, max_held=30)
    world.teach(0.00005)
    for number, count in ((0, 2), (1, 10)):
        for more in range(count):
            world.submit(b"d%d.%d" % (number, more), target=number)
    levels = world.scheduler.state.levels
    assert isinstance(levels, Weighted)
    engines = [world.scheduler.state.engines[number] for number in (0, 1)]
    assert [len(engine.held) for engine in engines] == [2, 10]
    counts = Counter(levels.among(engines).id for _ in range(1000))
    # The heavy one is drawn once in six times, and must be drawn twice. By the draw alone it would have 167, by the choice alone 250.
    assert 10 < counts[1] < 60


@pytest.mark.parametrize("scheme", [scheme for scheme in Scheme if scheme is not Scheme.PURE])
def test_restricted_and_balanced_floods_share_engines_in_each(scheme):
    world = world_of(scheme, 2)
    world.teach(0.01)
    for number in range(60):
        world.submit(b"balanced%d" % number)
        world.submit(b"restricted%d" % number, target=(0, 1))
    order = []
    for _ in range(20):
        for engine in world.engines.values():
            order.append(engine.inside[0].task.rstrip(b"0123456789"))
            world.finish(engine, 0.01)
    assert 15 <= Counter(order)[b"restricted"] <= 25


@pytest.mark.parametrize("scheme", Scheme)
def test_restricted_work_that_lets_balanced_work_go_first_has_its_turn_at_once(scheme):
    world = world_of(scheme, 2)
    world.engines[1].is_suspect = True
    world.do(events.EngineSuspected(1))
    world.teach(0.0005)
    for number in range(10):  # more than balanced work has had
        world.submit(b"before%d" % number, function=b"f%d" % number, target=(0, 1))
        world.finish(world.engines[0], 0.0005)
    assert world.scheduler.state.engines[0].debt > 0.0
    batch = [events.TaskSubmitted(task, 0, b"f", 1, target) for task, target in ((b"a", (0, 1)), (b"b", None))]
    world.do(*batch)
    assert {held.task for held in world.engines[0].inside} == {b"a", b"b"}


@pytest.mark.parametrize("scheme", [scheme for scheme in Scheme if scheme is not Scheme.LEASTLOAD])
def test_engines_that_take_no_work_are_not_drawn(scheme):
    world = world_of(scheme, 4)
    world.engines[1].is_suspect = True
    world.do(events.EngineSuspected(1))
    world.engines[2].is_draining = True
    world.do(events.EngineDraining(2))
    assert set(run_one_by_one(world, 20)) == {0, 3}
    world.lose(world.engines[0])
    assert kinds(world.submit(b"last"), actions.Dispatch)[0].engine == 3


@pytest.mark.parametrize("scheme", Scheme)
def test_a_retry_goes_to_another_engine_in_each(scheme):
    world = world_of(scheme, 3)
    world.submit(b"a", retries=2)
    seen = []
    for _ in range(3):
        engine = next(engine for engine in world.engines.values() if engine.inside)
        seen.append(engine.id)
        world.finish(engine, status=Status.ERROR)
    assert sorted(seen) == [0, 1, 2]


def test_the_heap_of_lru_does_not_grow_by_direct_work():
    world = world_of(Scheme.LRU, 2)
    levels = world.scheduler.state.levels
    assert isinstance(levels, LeastRecent)
    for number in range(3 * LEAST):
        world.submit(b"%d" % number, target=0)
        world.finish(world.engines[0])
        assert len(levels.heap) <= LEAST + 6
    assert run_one_by_one(world, 2) == [1, 0]


def test_dice_are_fair_and_the_same_everywhere():
    dice = Dice(7)
    counts = Counter(dice.below(6) for _ in range(6000))
    assert sorted(counts) == [0, 1, 2, 3, 4, 5]
    assert all(900 < count < 1100 for count in counts.values())
    dice = Dice(1234567)
    assert [dice.below(2**64) for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]

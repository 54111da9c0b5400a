from __future__ import annotations

import pytest

from clusterd.core.scheduler import actions, events
from tests.unit.scheduler.world import World, kinds


@pytest.fixture
def world():
    world = World()
    world.client(0)
    return world


def suspect(world, engine, *, is_suspect):
    engine.is_suspect = is_suspect
    event = events.EngineSuspected if is_suspect else events.EngineReturned
    return world.do(event(engine.id))


def test_a_suspect_gets_nothing_new_and_keeps_what_it_has_for_as_long_as_nobody_knows_better(world):
    engine = world.engine()
    world.submit(b"held")
    suspect(world, engine, is_suspect=True)
    world.submit(b"direct", target=0)
    world.submit(b"balanced")
    assert world.pass_time(3600.0) == []
    suspect(world, engine, is_suspect=False)
    assert kinds(world.finish(engine), actions.Deliver)
    assert len(engine.inside) == 1


def test_a_suspect_may_still_answer(world):
    engine = world.engine()
    world.submit(b"held")
    suspect(world, engine, is_suspect=True)
    assert kinds(world.finish(engine), actions.Deliver)


def test_an_engine_that_attaches_again_has_returned(world):
    engine = world.engine()
    suspect(world, engine, is_suspect=True)
    world.submit(b"a")
    engine.is_suspect = False
    world.do(events.EngineAttached(0, b"uuid", "engines", 0))
    assert engine.inside


def test_a_draining_engine_gets_nothing_new_ends_what_it_has_and_reports_once(world):
    engine = world.engine()
    world.submit(b"held")
    world.submit(b"direct", target=0)
    engine.is_draining = True
    assert world.do(events.EngineDraining(0)) == []
    world.submit(b"balanced")
    out = world.finish(engine)
    assert [action.task for action in kinds(out, actions.Dispatch)] == [b"direct"]
    assert actions.Drained(0) in world.finish(engine)
    assert world.pass_time(1.0) == []
    engine.is_draining = False
    world.do(events.EngineUndrained(0))
    assert [held.task for held in engine.inside] == [b"balanced"]


def test_an_idle_engine_is_drained_at_once(world):
    world.engine().is_draining = True
    assert world.do(events.EngineDraining(0)) == [actions.Drained(0)]


def test_an_engine_is_drained_when_its_last_direct_task_is_aborted(world):
    engine = world.engine()
    world.submit(b"a", target=0)
    world.submit(b"b", target=0)
    engine.is_draining = True
    world.do(events.EngineDraining(0))
    assert actions.Drained(0) not in world.finish(engine)
    engine.inside.clear()
    world.submit(b"c")
    out = world.lose(engine)
    assert kinds(out, actions.Drained) == []


def test_draining_does_not_wait_for_its_turn_beside_balanced_work(world):
    engine = world.engine()
    world.teach(0.01)
    for number in range(20):
        world.submit(b"direct%d" % number, target=0)
        world.submit(b"balanced%d" % number)
    engine.is_draining = True
    world.do(events.EngineDraining(0))
    while engine.inside:
        world.finish(engine, 0.01)
    assert all(world.promises[b"direct%d" % number].end for number in range(20))
    assert world.scheduler.unassigned() >= 19


@pytest.mark.parametrize(
    "event",
    [
        events.EngineSuspected(9),
        events.EngineReturned(9),
        events.EngineDraining(9),
        events.EngineUndrained(9),
        events.EngineLost(9, "gone"),
        events.EngineInventory(9, ((b"x", 0),)),
        events.EngineRecalled(9, 1, 2, 0),
        events.TaskNotRun(b"x", 9, 0),
        events.TaskStarted(b"x", 9, 0),
        events.AbortRequested(9),
        events.AbortRequested(9, targets=(9,)),
        events.ClientDetached(9),
        events.ClientReturned(9),
        events.ClientForgotten(9),
    ],
)
def test_news_of_what_is_not_known_change_nothing(world, event):
    world.engine()
    assert world.do(event) == []


def test_engines_of_equal_load_are_found_without_a_scan(world):
    """4,096 engines: the pick looks at levels, not at engines."""
    state = world.scheduler.state
    for number in range(4096):
        world.scheduler.handle(events.EngineAttached(number, b"", "engines", number), 0.0)
    out: list[actions.AnyAction] = []
    for number in range(4096):
        world.scheduler.handle_into(events.TaskSubmitted(b"%d" % number, 0, b"f", 1), 0.0, out)
    world.scheduler.settle(0.0, out)
    assert len({action.engine for action in out}) == 4096
    assert state.levels.pick() is None

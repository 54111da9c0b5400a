"""Where a task is that has not ended, and why it is not further."""

from __future__ import annotations

import pytest

from clusterd.core.model.task import Dependency
from clusterd.core.scheduler import events
from tests.unit.scheduler.world import World


@pytest.fixture
def world():
    world = World()
    world.client(0)
    return world


def told(world, task):
    return world.scheduler.whereabouts(task)


def why(world, task):
    return told(world, task).why


def test_what_is_not_known_or_has_ended(world):
    engine = world.engine()
    assert told(world, b"nobody") is None
    world.submit(b"a")
    world.finish(engine)
    assert told(world, b"a") is None


def test_without_an_engine(world):
    world.submit(b"a")
    assert told(world, b"a") == (where := told(world, b"a"))
    assert (where.is_begun, where.engine, where.since, where.why) == (False, -1, world.now, "there is no engine")


def test_what_runs_and_what_waits_inside_the_engine(world):
    engine = world.engine()
    world.teach(0.0001)
    world.submit(b"a")
    world.submit(b"b")
    assert [held.task for held in engine.inside] == [b"a", b"b"]
    first, second = told(world, b"a"), told(world, b"b")
    assert (first.is_begun, first.engine, first.why) == (True, 0, "")
    assert (second.is_begun, second.engine) == (False, 0)
    assert second.why == "engine 0 (engines/0) has it, and runs another task first"


def test_what_waits_for_others(world):
    world.submit(b"b")
    world.submit(b"a")
    world.submit(b"c", after=Dependency((b"a", b"b")), follow=Dependency((b"a",)))
    where = told(world, b"c")
    assert (where.why, where.waits_for) == ("it depends on 2 other tasks", (b"a", b"b"))
    world.submit(b"d", after=Dependency((b"a",)))
    assert why(world, b"d") == "it depends on one other task"


def test_behind_others_in_a_queue(world):
    engine = world.engine(max_held=1)
    for task in (b"a", b"b", b"c", b"d"):
        world.submit(task)
    assert why(world, b"b") == "the only engine, engine 0 (engines/0), is busy; 2 other tasks wait in the same queue"
    world.engine(max_held=1)
    assert why(world, b"d") == "all 2 engines are busy; one other task waits in the same queue"
    world.do(events.EngineSuspected(engine.id))
    assert why(world, b"d").startswith("of 2 engines 1 get no work (engine 0 (engines/0) is not heard of); one")


@pytest.mark.parametrize("target", [0, (0,)])
def test_what_is_for_one_engine(world, target):
    engine = world.engine(max_held=1)
    world.submit(b"a")
    world.submit(b"b", target=target)
    assert why(world, b"b") == "it is for engine 0 (engines/0) alone, which is busy"
    world.do(events.EngineSuspected(engine.id))
    assert why(world, b"b") == "it is for engine 0 (engines/0) alone, which is not heard of"


def test_what_is_for_some_engines(world):
    for _ in range(3):
        world.engine(max_held=1)
    for number in range(3):
        world.submit(b"busy%d" % number, target=number)
    world.submit(b"a", target=(0, 1))
    assert why(world, b"a") == "all 2 engines that it may run on are busy"
    world.lose(world.engines[1])
    assert why(world, b"a") == "the only engine that it may run on, engine 0 (engines/0), is busy"


def test_of_a_client_that_does_not_read(world):
    world.engine()
    world.blocked.add(0)
    world.do(events.ResultsBlocked(0))
    world.submit(b"a")
    assert why(world, b"a") == "its client does not read its results, and is not served until it does"


def test_before_it_is_placed(world):
    world.engine()
    # A batch that is not settled yet: the controller may be asked in the middle of a turn.
    out = []
    world.scheduler.handle_into(events.TaskSubmitted(b"a", 0, b"f", 10, 0), world.now, out)
    assert why(world, b"a") == "it is for engine 0 (engines/0) alone, which is about to get it"

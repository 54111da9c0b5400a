"""What a task says about itself beside its call, and what an engine says beside a value: told to the scheduler as it is meant."""

from __future__ import annotations

import pytest

from clusterd.controller.submits import submitted
from clusterd.core.model.task import Dependency, Scheme
from clusterd.core.wire import messages as m
from tests.unit.controller.world import result_of, submit


def test_each_option_is_told():
    after, follow = m.Dependency([b"a"], True, False, True), m.Dependency([b"b", b"c"], False)
    options = m.TaskOptions(3, 1.5, "label", after, follow, 7.5)
    event = submitted(submit(b"t", target=[4, 5], options=options), 9, ())
    assert (event.task, event.client, event.target) == (b"t", 9, (4, 5))
    assert (event.retries, event.timeout, event.label, event.max_wait) == (3, 1.5, "label", 7.5)
    assert event.after == Dependency((b"a",), True, False, True)
    assert event.follow == Dependency((b"b", b"c"), False)
    assert event.attempt == 0


def test_a_task_without_options_waits_without_end():
    assert submitted(submit(), 0, ()).max_wait is None
    assert submitted(submit(options=m.TaskOptions(retries=1)), 0, ()).max_wait is None


def test_a_task_that_no_engine_takes_in_time_fails(world):
    client = world.client()
    client.say(submit(b"t", options=m.TaskOptions(max_wait=2.0)))
    world.turn()
    assert client.messages(m.Failed) == []
    world.pass_time(2.0)
    (failed,) = client.messages(m.Failed)
    assert (failed.task, failed.code, failed.engine) == (b"t", "timeout", -1)
    assert failed.message.startswith("it waited 2 s for an engine")
    assert world.tasks.payloads == {}


def test_a_refused_task_moves_on_and_its_refusal_is_dropped(world):
    client, engines = world.client(), [world.engine(), world.engine()]
    client.say(submit(b"t"))
    world.turn()
    for status in (2, 0):
        ((engine, dispatch),) = [(engine, told) for engine in engines for told in engine.messages(m.Dispatch)]
        engine.say(result_of(dispatch, b"value", status=status))
        world.turn()
    (deliver,) = client.messages(m.Deliver)
    assert (deliver.status, deliver.attempt) == (0, 1)
    assert world.status()["discarded"] == {"refused": 1}
    assert world.tasks.payloads == {}


def test_refused_by_all_of_its_targets_it_fails(world):
    client, engine = world.client(), world.engine()
    client.say(submit(b"t", target=[engine.wire_id]))
    world.turn()
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch, status=2))
    world.turn()
    (failed,) = client.messages(m.Failed)
    assert failed.code == "unschedulable"
    assert "it was refused by engine" in failed.message


@pytest.mark.parametrize("status", [1, 2])
def test_an_error_and_a_refusal_of_direct_work_are_delivered_as_what_they_are(world, status):
    client, engine = world.client(), world.engine()
    client.say(submit(b"t", target=engine.wire_id))
    world.turn()
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch, b"why", status=status))
    world.turn()
    (deliver,) = client.messages(m.Deliver)
    assert (deliver.status, deliver.body) == (status, b"why")


@pytest.mark.parametrize("scheme", Scheme)
def test_the_scheme_of_the_profile_is_the_schedulers(make_world, scheme):
    world = make_world(task_scheme=scheme.value)
    settings = world.tasks.scheduler.state.settings
    assert settings.scheme is scheme
    assert settings.seed != 0
    assert len(world.run(world.client(), world.engine(), count=3)) == 3

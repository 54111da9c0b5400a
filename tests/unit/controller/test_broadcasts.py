"""One payload for several engines: single tasks in everything, and what they count for together is the payload, once."""

from __future__ import annotations

import pytest

from clusterd.controller import submits
from clusterd.core.wire import messages as m
from tests.unit.controller.world import Peer, result_of

DIGEST = b"f" * 16


def broadcast(tasks, engines, body=b"body", **fields):
    targets = [getattr(engine, "wire_id", engine) for engine in engines]
    fields = {"kind": m.APPLY, "function": b"", **fields}
    return m.Broadcast(list(tasks), targets, fields.pop("kind"), fields.pop("function"), body, **fields)


def test_each_engine_gets_the_payload_and_answers_for_itself(world):
    client, engines = world.client(), [world.engine() for _ in range(3)]
    client.say(broadcast([b"a", b"b", b"c"], engines, b"", frames=2), payload=[b"first", b"second"])
    world.turn()
    assert len({id(payload.frames[0]) for payload in world.tasks.payloads.values()}) == 1
    for engine, task in zip(engines, (b"a", b"b", b"c"), strict=True):
        ((dispatch, frames),) = engine.hear(m.Dispatch)
        assert (dispatch.task, dispatch.frames, [bytes(frame) for frame in frames]) == (task, 2, [b"first", b"second"])
        engine.say(result_of(dispatch, b"of " + task))
        world.turn()
    assert [(each.task, each.body) for each in client.messages(m.Deliver)] == [
        (b"a", b"of a"),
        (b"b", b"of b"),
        (b"c", b"of c"),
    ]
    assert world.tasks.payloads == {}


def test_they_have_the_credit_for_their_payload_together(make_world):
    world = make_world(client_credit={"tasks": 100, "memory": 1048576})
    client, engines = world.client(), [world.engine() for _ in range(4)]
    client.say(broadcast([b"a", b"b", b"c", b"d"], engines, b"x" * 600_000))
    world.turn()
    assert client.messages(m.Failed) == []
    assert len(world.tasks.payloads) == 4
    client.say(broadcast([b"e", b"f"], engines[:2], b"x" * 600_000))
    world.turn()
    # Half of it each: the first has room.
    assert [(failed.task, failed.code) for failed in client.messages(m.Failed)] == [(b"f", "overloaded")]


def test_an_engine_that_is_not_there_fails_its_own_task(world):
    client, engine = world.client(), world.engine()
    client.say(broadcast([b"a", b"b", b"c"], [engine, 77, -1]))
    world.turn()
    assert [(failed.task, failed.code) for failed in client.messages(m.Failed)] == [
        (b"b", "unschedulable"),
        (b"c", "unschedulable"),
    ]
    assert [dispatch.task for dispatch in engine.messages(m.Dispatch)] == [b"a"]


def test_a_function_that_is_not_here_is_asked_for_once(world):
    client, engines = world.client(), [world.engine(), world.engine()]
    client.say(broadcast([b"a", b"b"], engines, function=DIGEST, options=m.TaskOptions(label="all")))
    world.turn()
    assert client.messages() == [m.NeedFunction(DIGEST)]
    client.say(m.Function(DIGEST, "f", "3.11", b"x"))
    world.turn()
    assert [engine.messages(m.Dispatch)[0].task for engine in engines] == [b"a", b"b"]
    assert world.tasks.scheduler.record(b"b").label == "all"


def test_one_of_them_is_aborted(world):
    client, engine = world.client(), world.engine()
    control = Peer(world, "client", "control", client.uuid)
    control.token = client.token
    control.attach()
    # The abort overtakes what it names.
    control.say(m.Abort(1, [b"b"]))
    world.turn()
    client.say(broadcast([b"a", b"b", b"c"], [engine] * 3))
    world.turn()
    assert [(failed.task, failed.code) for failed in client.messages(m.Failed)] == [(b"b", "aborted")]
    assert set(world.tasks.payloads) == {b"a", b"c"}


def test_sent_again_they_are_the_same_tasks(world):
    client, engines = world.client(), [world.engine(), world.engine()]
    client.say(broadcast([b"a", b"b"], engines))
    world.turn()
    client.say(broadcast([b"a", b"b"], engines, is_offered_again=True))
    world.turn()
    assert [len(engine.messages(m.Dispatch)) for engine in engines] == [1, 1]
    assert client.messages() == []


@pytest.mark.parametrize("targets", [[0], [0, 1, 2], []])
def test_what_does_not_fit_together_resets_who_says_it(world, targets):
    client, other = world.client(), world.client()
    client.say(broadcast([b"a", b"b"], targets))
    world.turn()
    client.read()
    assert client.is_reset
    assert world.tasks.payloads == {}
    other.say(broadcast([b"x"], [world.engine()]))
    world.turn()
    assert list(world.tasks.payloads) == [b"x"]


def test_no_more_engines_than_it_said(world, monkeypatch):
    monkeypatch.setattr(submits, "MAX_TARGETS", 2)
    client = world.client()
    client.say(broadcast([b"a", b"b", b"c"], [0, 1, 2]))
    world.turn()
    client.read()
    assert client.is_reset

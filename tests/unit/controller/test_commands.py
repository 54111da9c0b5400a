"""Commands that agents carry out, and what agents report: each request is answered once, in time, and what waits is bounded."""

from __future__ import annotations

import pytest

from clusterd.controller import operations
from clusterd.core.wire import messages as m
from tests.unit.controller.world import submit


@pytest.fixture
def set_of_three(world):
    """An agent and its three engines."""
    agent = world.agent()
    engines = [world.engine(slot=slot, agent="l-0") for slot in range(3)]
    return agent, engines


def command(*engines, name="interrupt", request=1) -> m.EngineCommand:
    return m.EngineCommand(request, list(engines), name)


def test_a_command_goes_to_the_agent_and_its_answer_comes_back(world, set_of_three):
    agent, engines = set_of_three
    client = world.client("control")
    client.say(command(*(engine.wire_id for engine in engines)))
    world.turn()
    signals = agent.messages(m.EngineSignal)
    assert [signal.uuid for signal in signals] == [engine.uuid for engine in engines]
    assert client.messages() == []
    agent.say(m.CommandDone(signals[0].request), m.CommandDone(signals[1].request, "it is stuck"))
    world.turn()
    assert client.messages() == []
    agent.say(m.CommandDone(signals[2].request), m.CommandDone(signals[2].request), m.CommandDone(99))
    world.turn()
    (reply,) = client.messages(m.Reply)
    assert reply.value == {
        "done": [engines[0].wire_id, engines[2].wire_id],
        "failed": {engines[1].wire_id: "it is stuck"},
    }


def test_an_agent_that_is_silent_is_named_after_a_while(world, set_of_three):
    _, engines = set_of_three
    client = world.client("control")
    client.say(command(engines[0].wire_id, request=7))
    world.turn()
    assert world.operations.next_deadline() == pytest.approx(world.now + operations.COMMAND_SECONDS, abs=0.01)
    world.pass_time(operations.COMMAND_SECONDS)
    (reply,) = client.messages(m.Reply)
    assert reply.request == 7
    assert "did not answer" in reply.value["failed"][engines[0].wire_id]
    assert world.operations.next_deadline() is None


def test_a_command_for_an_engine_twice_is_one_command(world, set_of_three):
    agent, engines = set_of_three
    world.client("control").say(command(*[engines[0].wire_id] * 1000))
    world.turn()
    assert len(agent.messages(m.EngineSignal)) == 1


def test_engines_that_are_not_there_are_named_with_those_that_are(world, set_of_three):
    client = world.client("control")
    reply = world.ask(client, command(*range(100, 60_000)))
    assert reply.value["failed"][100] == "there is no engine 100; registered: 0-2"
    assert len(reply.value["failed"]) == 59_900


@pytest.mark.parametrize(
    ("ids", "text"),
    [([], "none"), ([3], "3"), ([0, 1, 2], "0-2"), ([0, 2, 3, 9], "0, 2-3, 9")],
)
def test_ids_are_written_in_ranges(ids, text):
    assert operations._ranges(ids) == text


def test_a_long_list_of_ids_is_cut():
    assert len(operations._ranges(list(range(0, 100_000, 2)))) < 2 * operations.MAX_LISTED


def test_commands_that_wait_are_bounded(world, set_of_three, monkeypatch):
    monkeypatch.setattr(operations, "MAX_PENDING", 4)
    _, engines = set_of_three
    client = world.client("control")
    ids = [engine.wire_id for engine in engines]
    client.say(command(*ids, request=1), command(*ids, request=2), command(*ids, request=3))
    world.turn()
    (refused,) = client.messages()
    assert (refused.request, refused.code) == (3, "overloaded")


def test_an_unknown_command_and_an_unknown_agent_are_named(world):
    operator = world.operator()
    assert "fly" in world.ask(operator, command(name="fly")).message
    assert world.ask(operator, m.SetDesired(2, "l-9", 1, [0])).code == "unknown_agent"


def test_the_wanted_slots_are_forwarded_and_acknowledged(world):
    operator, agent = world.operator(), world.agent()
    operator.say(m.SetDesired(5, "l-0", 3, [0, 1]))
    world.turn()
    (forwarded,) = agent.messages(m.SetDesired)
    assert (forwarded.generation, forwarded.slots) == (3, [0, 1])
    agent.say(m.CommandDone(forwarded.request))
    world.turn()
    (reply,) = operator.messages(m.Reply)
    assert reply.request == 5


def test_what_an_agent_tells_of_a_death_is_cut(world, set_of_three):
    agent, engines = set_of_three
    client = world.client()
    client.say(submit(target=engines[0].wire_id))
    world.turn()
    end = {"exit_code": 1, "signal": 0, "is_oom": False, "is_wanted": False}
    agent.say(m.EngineExited(engines[0].uuid, 0, 1, cause="c" * 10**6, output_tail="o" * 10**6, **end))
    world.turn()
    (failed,) = client.messages(m.Failed)
    assert len(failed.message) < 20_000


def test_the_death_of_who_was_never_there_is_harmless(world, set_of_three):
    agent, _ = set_of_three
    end = {"exit_code": 1, "signal": 0, "is_oom": False, "is_wanted": False, "cause": "c", "output_tail": ""}
    agent.say(m.EngineExited(b"u" * 16, 0, 1, **end), m.Recalled(b"u" * 16, 1, 2, 3), m.Ping())
    world.turn()
    assert agent.messages(m.Pong)
    assert world.status()["engines"] == 3


def test_what_engines_hold_is_told_to_who_asks(world):
    worker, other = world.engine(slot=0), world.engine(slot=1)
    client = world.client()
    names = [b"\1" * 15 + bytes([number]) for number in range(6)]
    client.say(
        submit(names[0], target=worker.wire_id, options=m.TaskOptions(label="fit")),
        *(submit(name, target=worker.wire_id) for name in names[1:]),
    )
    world.turn()
    world.pass_time(3.0)
    operator = world.operator()
    reply = world.ask(operator, m.EngineTasks(5, [worker.wire_id, other.wire_id, 999]))
    assert reply.value["engines"].keys() == {worker.wire_id, other.wire_id}
    assert reply.value["engines"][other.wire_id] == {"tasks": [], "more": 0}
    held = reply.value["engines"][worker.wire_id]
    first = held["tasks"][0]
    assert (first["task"], first["label"], first["is_running"]) == (names[0].hex(), "fit", True)
    assert first["for"] == pytest.approx(3.0, abs=0.5)
    assert "@" in first["owner"]
    assert len(held["tasks"]) + held["more"] == 6
    assert not any(task["is_running"] for task in held["tasks"][1:])
    assert world.ask(operator, m.EngineTasks(6)).value["engines"].keys() == {worker.wire_id, other.wire_id}

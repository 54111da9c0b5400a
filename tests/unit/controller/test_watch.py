"""Who lives: what the controller believes of engines, agents and clients that are silent, cut off, stopped, replaced or dead."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clusterd.controller import watch
from clusterd.core.liveness import Settings
from clusterd.core.wire import messages as m
from clusterd.system import process
from tests.unit.controller.world import Peer, result_of, submit

SETTINGS = Settings()


def back(world, peer: Peer, **fields) -> Peer:
    """The same peer on a new connection."""
    again = Peer(world, peer.role, peer.channel, peer.uuid)
    again.token = peer.token
    assert isinstance(again.attach(again.attach_message(**fields)), m.Attached)
    return again


def state_of(world, engine: Peer) -> str | None:
    known = world.hub.engines_by_id.get(engine.wire_id)
    return None if known is None else world.hub.notices.info(known).state


def cut_off(world, peer: Peer) -> None:
    peer.vanish()
    world.turn()


def ping(world, agent: Peer, seconds: float) -> None:
    """Let time pass while an agent pings, as it does."""
    until = world.now + seconds
    while world.now < until:
        agent.say(m.Ping())
        world.turn(1.0)
        agent.acknowledge()


def state(engine: Peer, **fields) -> m.EngineState:
    return m.EngineState(
        engine.uuid, fields.pop("slot", 0), 1, fields.pop("state", "idle"), id=engine.wire_id, **fields
    )


# --- engines ---


@pytest.mark.parametrize("watcher", ["nobody", "alive", "dead"])
def test_an_idle_engine_on_this_host_is_well_for_hours(world, watcher):
    agent = None if watcher == "nobody" else world.agent()
    engine = world.engine(agent="" if agent is None else "l-0")
    if watcher == "dead":
        cut_off(world, agent)
    for _ in range(600):
        if watcher == "alive":
            agent.say(m.Ping())
        world.turn(6.0)
        if watcher == "alive":
            agent.acknowledge()
    assert state_of(world, engine) == "idle"
    world.run(world.client(), engine)


def test_elsewhere_an_idle_engine_is_well_as_long_as_its_agent_speaks(make_world):
    world = make_world(is_unix=False)
    agent = world.agent()
    engine = world.engine(agent="l-0")
    ping(world, agent, 60)
    assert state_of(world, engine) == "idle"
    cut_off(world, agent)
    world.pass_time(SETTINGS.silent_after + 2)
    assert state_of(world, engine) == "suspect"
    ping(world, back(world, agent, engines=[state(engine)]), 2)
    assert state_of(world, engine) == "idle"


def test_an_engine_that_is_cut_off_gets_no_work_until_it_is_back(world):
    client, engine = world.client(), world.engine()
    cut_off(world, engine)
    assert state_of(world, engine) == "suspect"
    client.say(submit())
    world.turn()
    again = back(world, engine)
    world.turn()
    assert state_of(world, engine) == "busy"
    assert len(again.messages(m.Dispatch)) == 1


def test_an_engine_that_nobody_watches_is_given_up_after_a_while(world):
    client, engine = world.client(), world.engine()
    client.say(submit())
    world.turn()
    cut_off(world, engine)
    world.pass_time(SETTINGS.expire_after - 2, step=1.0)
    assert state_of(world, engine) == "suspect"
    world.pass_time(4, step=1.0)
    assert state_of(world, engine) is None
    (failed,) = client.messages(m.Failed)
    assert failed.code == "engine_lost"
    assert "no agent watches it" in failed.message


def test_an_engine_whose_agent_says_it_lives_is_never_given_up(world):
    agent = world.agent()
    engine = world.engine(agent="l-0")
    cut_off(world, engine)
    agent.hear()
    ping(world, agent, 10 * SETTINGS.expire_after)
    assert state_of(world, engine) == "suspect"


def test_the_agent_of_a_suspect_is_asked(world):
    agent = world.agent()
    engine = world.engine(agent="l-0")
    agent.hear()
    cut_off(world, engine)
    assert len(agent.messages(m.InventoryRequest)) == 1
    agent.say(m.Inventory([state(engine)]))
    world.turn()
    assert state_of(world, engine) == "suspect", "it lives, and nothing can be sent to it"


@pytest.fixture
def real_process():
    """A process, and its identity."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child, process.of(child.pid)
    child.kill()
    child.wait()
    child.stdin.close()


@pytest.mark.parametrize("is_dead", [True, False])
def test_without_an_agent_the_process_of_a_suspect_is_looked_at(world, real_process, is_dead):
    child, identity = real_process
    agent = world.agent()
    engine = world.engine(agent="l-0")
    world.hub.engines_by_id[engine.wire_id].process = identity
    cut_off(world, agent)
    cut_off(world, engine)
    if is_dead:
        child.kill()
        child.wait()
    world.pass_time(watch.PROBE_AFTER - 1)
    assert state_of(world, engine) == "suspect", "the next agent would know more"
    world.pass_time(SETTINGS.ask_again + 2)
    assert state_of(world, engine) == (None if is_dead else "suspect")


def test_who_flaps_is_quarantined(world):
    client, engine = world.client(), world.engine()
    for _ in range(SETTINGS.flaps):
        cut_off(world, engine)
        engine = back_with_id(world, engine)
    assert state_of(world, engine) == "suspect"
    client.say(submit())
    world.turn()
    assert engine.messages(m.Dispatch) == []
    world.pass_time(SETTINGS.quarantine + 2)
    assert state_of(world, engine) == "busy"
    assert len(engine.messages(m.Dispatch)) == 1


def back_with_id(world, engine: Peer) -> Peer:
    again = back(world, engine)
    again.wire_id = engine.wire_id
    return again


def test_status_says_who_is_suspect_since_when_and_why(world):
    engine = world.engine(slot=3)
    assert world.status()["suspects"] == []
    cut_off(world, engine)
    world.turn(2.0)
    (suspect,) = world.status()["suspects"]
    assert (suspect["id"], suspect["name"]) == (engine.wire_id, "engines/3")
    assert suspect["since"] == pytest.approx(2.0, abs=0.1)
    assert "its connection has been closed" in suspect["why"]


def test_a_death_that_the_agent_tells_ends_the_engine(world):
    client, agent = world.client(), world.agent()
    engine = world.engine(agent="l-0")
    client.say(submit())
    world.turn()
    (dispatch,) = engine.messages(m.Dispatch)
    agent.say(
        m.EngineExited(
            engine.uuid,
            0,
            1,
            exit_code=-1,
            signal=9,
            is_oom=False,
            is_wanted=False,
            cause="killed by SIGKILL",
            output_tail="last words",
            running=dispatch.task,
            order=1,
            epoch=world.operations._epoch,
        )
    )
    world.turn()
    assert state_of(world, engine) is None
    assert not engine.is_open
    (failed,) = client.messages(m.Failed)
    assert "killed by SIGKILL" in failed.message
    assert "last words" in failed.message


def test_an_engine_that_says_goodbye_is_gone_and_its_death_no_news(world, caplog):
    agent = world.agent()
    engine = world.engine(agent="l-0")
    engine.say(m.Goodbye("stopped"))
    world.turn()
    assert state_of(world, engine) is None
    end = {"exit_code": 0, "signal": 0, "is_oom": False, "is_wanted": True, "cause": "exited", "output_tail": ""}
    agent.say(m.EngineExited(engine.uuid, 0, 1, **end))
    world.turn()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_an_id_that_an_engine_has_chosen_is_not_given_again(world):
    first = world.engine(wanted_id=5)
    assert first.wire_id == 5
    first.say(m.Goodbye())
    world.turn()
    given = [world.engine(slot=slot).wire_id for slot in range(8)]
    assert 5 not in given
    assert len(set(given)) == 8


# --- agents ---


def test_the_next_agent_adopts_and_the_dead_one_is_forgotten(world):
    first = world.agent()
    engine = world.engine(agent="l-0")
    cut_off(world, first)
    world.agent(launch="l-1", engines=[state(engine)])
    world.turn()
    assert list(world.hub.agents) == ["l-1"]
    assert world.hub.engines_by_id[engine.wire_id].agent == "l-1"
    assert state_of(world, engine) == "idle"


def test_agents_that_died_without_engines_are_forgotten_by_the_next(world):
    for number in range(5):
        agent = world.agent(launch=f"l-{number}")
        agent.say(m.AgentReport(0, []))
        world.turn()
        cut_off(world, agent)
    agent = world.agent(launch="l-9")
    agent.say(m.AgentReport(0, []))
    world.turn()
    assert list(world.hub.agents) == ["l-9"]


def test_what_an_agent_held_and_the_next_one_does_not_find_is_dead(world):
    client, first = world.client(), world.agent()
    engine = world.engine(agent="l-0")
    client.say(submit())
    world.turn()
    cut_off(world, engine)
    cut_off(world, first)
    second = world.agent(launch="l-1")
    assert state_of(world, engine) == "suspect", "how it ended is perhaps told in what follows"
    second.say(m.AgentReport(0, []))
    world.turn()
    assert state_of(world, engine) is None
    (failed,) = client.messages(m.Failed)
    assert "a new agent looked for it" in failed.message


def test_an_engine_that_is_connected_is_not_dead_because_another_agent_of_its_set_has_not_got_it(world):
    first = world.agent()
    engine = world.engine(agent="l-0")
    stranger = world.engine(agent="l-7", slot=1)  # its agent has not come yet
    cut_off(world, first)
    second = world.agent(launch="l-1")
    second.say(m.AgentReport(0, []))
    world.turn()
    assert state_of(world, engine) == "idle"
    assert state_of(world, stranger) == "idle"


def test_a_new_process_under_the_same_launch_takes_the_place(world):
    first = world.agent()
    second = world.agent()
    assert not first.is_open
    assert world.hub.agents["l-0"].uuid == second.uuid


def test_engines_of_an_earlier_controller_are_expected_and_adopted(make_world):
    world = make_world(has_predecessor=True)
    engine = Peer(world, "engine", "data")
    engine.wire_id = 7
    world.agent(engines=[state(engine, state="running", task=b"t", attempt=0)])
    assert state_of(world, engine) == "suspect"
    client = world.client()
    client.say(submit(b"t", is_offered_again=True))
    world.pass_time(3)
    answer = engine.attach(engine.attach_message(agent="l-0", wanted_id=7, held=[(b"t", 0)]))
    assert (answer.id, answer.is_resumed) == (7, True)
    engine.say(result_of(m.Dispatch(b"t", 0, 0, 0, b"", b"")))
    world.turn()
    assert len(client.messages(m.Deliver)) == 1


def test_a_peer_cannot_put_lines_into_the_log(world, caplog):
    caplog.set_level("INFO")
    peer = Peer(world, "client", "data")
    peer.attach(peer.attach_message(label="evil\n2026-01-01 INFO hub: all is well" + "x" * 10_000))
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert max(len(record.getMessage()) for record in caplog.records) < 1000


# --- clients ---


def test_a_client_that_is_away_for_too_long_is_forgotten_with_what_it_has_queued(world):
    client, engine = world.client(), world.engine()
    client.say(submit(b"1"), submit(b"2"))
    world.turn()
    cut_off(world, client)
    world.pass_time(SETTINGS.client_grace - 1)
    assert client.uuid in world.hub.clients
    world.pass_time(2)
    assert world.hub.clients == {}
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch))
    world.turn()
    assert world.tasks.payloads == {}
    assert engine.messages(m.Dispatch) == []


def test_a_client_that_is_stopped_on_this_host_is_not_forgotten(world):
    client, engine = world.client(), world.engine()
    client.say(submit())
    world.turn()
    world.pass_time(3600, step=5.0)
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch))
    world.turn()
    assert len(client.messages(m.Deliver)) == 1


def test_elsewhere_a_client_that_pings_stays_and_a_silent_one_goes(make_world):
    world = make_world(is_unix=False)
    silent, alive = world.client(), world.client("control")
    until = world.now + SETTINGS.silent_after + SETTINGS.client_grace + 2
    while world.now < until:
        alive.say(m.Ping())
        world.turn(1.0)
        alive.acknowledge()
    assert list(world.hub.clients) == [alive.uuid]
    assert silent.uuid not in world.hub.clients


def test_a_client_whose_process_is_gone_is_forgotten_at_once(world, real_process):
    child, identity = real_process
    client = world.client()
    world.hub.clients[client.uuid].process = identity
    cut_off(world, client)
    world.pass_time(2)
    assert client.uuid in world.hub.clients
    child.kill()
    child.wait()
    world.pass_time(2)
    assert world.hub.clients == {}


def test_a_controller_that_was_stopped_holds_that_against_nobody(make_world):
    world = make_world(is_unix=False)
    client, agent = world.client("control"), world.agent()
    engine = world.engine(agent="l-0")
    ping(world, agent, 3)
    client.say(m.Ping())
    world.turn()
    world.turn(600.0)
    client.say(m.Ping())
    agent.say(m.Ping())
    world.turn(0.5)
    assert client.uuid in world.hub.clients
    assert state_of(world, engine) == "idle"


def test_data_and_control_of_an_operator_are_one_client_and_control_says_what_it_may(world):
    data = world.client("data")
    operator = Peer(world, "operator", "control", data.uuid)
    operator.token = data.token
    operator.attach()
    assert isinstance(world.ask(operator, m.Drain(1, [])), m.Reply)
    back(world, data)
    assert isinstance(world.ask(operator, m.Drain(2, [])), m.Reply), "its data connection took its rights away"
    plain = Peer(world, "client", "control", data.uuid)
    plain.token = data.token
    plain.attach()
    assert world.ask(plain, m.Drain(3, [])).code == "denied"


def test_a_list_of_engines_tells_its_asker_alone_of_the_agents(world):
    world.agent()
    first, second = world.operator(), world.operator()
    world.ask(first, m.ListEngines(1))
    first.hear()
    world.ask(second, m.ListEngines(1))
    world.turn()
    assert [notice.event for notice in second.messages(m.AgentNotice)] == ["attached"]
    assert first.messages(m.AgentNotice) == []


def test_goodbye_on_either_connection_is_goodbye(world):
    for channel in ("data", "control"):
        client = world.client(channel)
        client.say(m.Goodbye("done"))
        world.turn()
        assert world.hub.clients == {}
        assert not client.is_open


def test_nothing_of_who_left_is_kept(world):
    for _ in range(3):
        client, agent, engine = world.client(), world.agent(), world.engine(agent="l-0")
        client.say(submit(), submit(function=b"f" * 16))
        world.turn()
        for peer in (client, engine, agent):
            peer.say(m.Goodbye())
            world.turn()
    world.pass_time(5)
    hub = world.hub
    assert (hub.clients, hub.clients_by_handle, hub.engines, hub.engines_by_id, hub.agents) == ({}, {}, {}, {}, {})
    liveness = hub.watch._liveness.state
    assert (liveness.engines, liveness.agents, liveness.clients) == ({}, {}, {})
    assert world.tasks.payloads == {}
    assert len(world.tasks._parking) == 0
    assert all(endpoint.connections == {} for endpoint in world.endpoints.values())

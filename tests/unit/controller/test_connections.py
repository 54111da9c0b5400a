"""Connections: who is bound by what, what a message costs its sender, what is kept and sent again, and what is not."""

from __future__ import annotations

import logging

import pytest

from clusterd.controller import endpoint as endpoint_module
from clusterd.core.wire import messages as m
from tests.unit.controller.world import Peer, result_of, submit, task_id


def test_a_task_goes_there_and_back(world):
    client, engine = world.client(), world.engine()
    (delivered,) = world.run(client, engine)
    assert (delivered.engine, delivered.body) == (engine.wire_id, b"value")
    assert world.tasks.payloads == {}


def test_hello_is_welcome_and_binds_nothing(world):
    peer = Peer(world, "client", "data")
    peer.greet()
    assert peer.id in peer.server.welcomed
    assert world.hub.clients == {}


def test_the_oldest_without_attach_gives_way(world, monkeypatch):
    monkeypatch.setattr(endpoint_module, "MAX_UNATTACHED", 2)
    peers = [Peer(world, "client", "data") for _ in range(3)]
    for peer in peers:
        peer.greet()
    assert [peer.is_open for peer in peers] == [False, True, True]


def test_who_does_not_attach_is_forgotten_and_counted(world):
    late, _ = Peer(world, "client", "data"), world.client()
    late.greet()
    world.pass_time(endpoint_module.UNATTACHED_SECONDS - 1)
    assert late.is_open
    world.pass_time(2)
    assert not late.is_open
    assert world.counters["client-data"] == {"late": 1}
    assert len(world.hub.clients) == 1


@pytest.mark.parametrize(
    "message",
    [m.Submit(b"t", 0, b"", None, b""), m.AttachClient(b"short", b"", 1, "here"), m.Goodbye("never was here")],
    ids=["task", "uuid", "goodbye"],
)
def test_what_is_no_attach_is_refused_as_malformed(world, message):
    peer = Peer(world, "client", "data")
    answer = peer.attach(message)
    assert isinstance(answer, m.Refuse)
    assert answer.code == "malformed"
    assert not peer.is_open
    assert world.counters["client-data"] == {"malformed": 1}


def test_an_unknown_session_gets_a_reset_and_is_closed(world):
    peer = world.client()
    del world.endpoints["client-data"].connections[peer.id]
    peer.say(submit())
    world.turn()
    peer.read()
    assert peer.is_reset
    assert not peer.is_open


def test_an_old_version_is_refused_and_closed(world):
    peer = Peer(world, "client", "data")
    peer.handshake._hello.versions = (0, 0)
    peer.send_raw(peer.handshake.hello())
    world.turn()
    assert len(peer.server.told[peer.id]) == 1
    assert not peer.is_open
    assert world.counters["client-data"] == {"version": 1}


# --- nonsense, signed ---


def nonsense_of_clients():
    yield "more frames than there are", [submit(frames=2)], [b"one"]
    yield "frames that no message owns", [submit()], [b"one"]
    yield "attach again", [m.AttachClient(b"u" * 16, b"", 1, "here")], []


def nonsense_of_engines():
    yield "a status that is none", [m.Result(b"t", 0, 7, 1.0, 2.0, "", "", b"")], []
    yield "more frames than there are", [m.Result(b"t", 0, 0, 1.0, 2.0, "", "", b"", 3)], [b"one", b"two"]
    yield "attach again", [m.AttachEngine(b"u" * 16, b"", "e", 0, "", 1, "h", "3", "")], []


def nonsense_of_agents():
    yield "payload", [m.Ping()], [b"one"]
    yield "attach again", [m.AttachAgent(b"u" * 16, b"", "l", "e", "h", 1, 0, [])], []


@pytest.mark.parametrize(
    ("role", "said", "payload"),
    [
        pytest.param(role, said, payload, id=f"{role}: {name}")
        for role, cases in (
            ("client", nonsense_of_clients()),
            ("engine", nonsense_of_engines()),
            ("agent", nonsense_of_agents()),
        )
        for name, said, payload in cases
    ],
)
def test_signed_nonsense_costs_its_sender_the_connection_and_nobody_else(world, role, said, payload):
    client, engine = world.client(), world.engine()
    culprit = getattr(world, role)()
    culprit.say(*said, payload=payload)
    world.turn()
    culprit.read()
    assert culprit.is_reset
    assert not culprit.is_open
    assert world.counters[culprit.endpoint] == {"malformed": 1}
    world.run(client, engine)


def test_what_came_before_the_nonsense_counts(world):
    client, engine = world.client(), world.engine()
    good = submit()
    client.say(good, submit(frames=1))
    world.turn()
    assert [dispatch.task for dispatch in engine.messages(m.Dispatch)] == [good.task]
    assert world.tasks.payloads.keys() == {good.task}


def test_a_bug_in_a_handler_costs_its_sender_the_connection_and_nobody_else(world, monkeypatch, caplog):
    client, engine, victim = world.client(), world.engine(), world.client("control")
    monkeypatch.setattr(world.requests, "_queue_status", lambda _: {}["no such key"])
    victim.say(m.QueueStatus(1))
    with caplog.at_level(logging.ERROR):
        world.turn()
    victim.read()
    assert victim.is_reset
    assert world.counters["client-control"] == {"failed": 1}
    assert "no such key" in caplog.text
    world.run(client, engine)


# --- who is gone ---


def test_an_engine_that_is_found_gone_when_it_is_spoken_to_is_suspect_in_the_same_turn(world):
    watcher = world.client("control")
    world.ask(watcher, m.ListEngines(1))
    client, gone, other = world.client(), world.engine(), world.engine()
    world.turn()
    watcher.hear()
    gone.server.broken.add(gone.id)
    gone.server.broken.add(other.id)
    client.say(submit(target=gone.wire_id))
    world.turn()
    (notice,) = watcher.messages(m.EnginesChanged)
    assert [(info.id, info.state) for info in notice.added] == [(gone.wire_id, "suspect")]


def test_the_moment_of_a_loss_is_now_and_not_when_its_endpoint_was_last_heard(world):
    client, engine = world.client(), world.engine()
    for _ in range(100):
        # Time passes without a word of any engine.
        world.now += 1.0
        world.loop.turn([world.endpoints["client-data"]], world.now)
    engine.server.broken.add(engine.id)
    client.say(submit())
    world.loop.turn([world.endpoints["client-data"]], world.now)
    assert world.hub.engines_by_id[engine.wire_id].is_suspect
    world.turn(1.0)
    assert engine.wire_id in world.hub.engines_by_id, "given up at once: its silence was counted from long ago"


def test_a_result_for_who_is_found_gone_is_kept(world):
    client, engine = world.client(), world.engine()
    tasks = [task_id(), task_id()]
    client.say(*(submit(task) for task in tasks))
    for _ in tasks:
        world.turn()
        (dispatch,) = engine.messages(m.Dispatch)
        client.server.broken.add(client.id)
        engine.say(result_of(dispatch))
    world.turn()
    back = world_client_again(world, client)
    assert sorted(message.task for message in back.messages(m.Deliver)) == tasks


def world_client_again(world, client):
    back = Peer(world, client.role, client.channel, client.uuid)
    back.token = client.token
    assert isinstance(back.attach(), m.Attached)
    return back


def test_what_was_sent_and_not_acknowledged_is_sent_again_once_and_in_order(world):
    client, engine = world.client(), world.engine()
    world.run(client, engine)
    sent = []
    for _ in range(3):
        client.say(submit())
        world.turn()
        (dispatch,) = engine.messages(m.Dispatch)
        engine.say(result_of(dispatch))
        world.turn()
        sent.append(dispatch.task)
    client.vanish()
    world.turn()
    back = world_client_again(world, client)
    heard = back.messages()
    assert [message.task for message in heard] == sent, "an Attached of the old connection has no place here"


def test_a_client_may_not_take_the_place_of_another(world):
    real = world.client()
    real.acknowledge()
    world.turn()
    impostor = Peer(world, "client", "data", real.uuid)
    answer = impostor.attach()
    assert (answer.code, impostor.is_open, real.is_open) == ("token", False, True)
    assert world.counters["client-data"] == {"impostor": 1}


# --- sizes ---


def test_no_batch_has_more_frames_than_a_message_may_have(world):
    client, engines = world.client(), [world.engine(slot=slot) for slot in range(2)]
    client.say(*(submit(target=engine.wire_id) for engine in engines))
    world.turn()
    for engine in engines:
        (dispatch,) = engine.messages(m.Dispatch)
        engine.say(result_of(dispatch, b"", frames=600), payload=[b"x"] * 600)
    world.turn()
    assert [len(parts) - 2 for parts in client.server.told[client.id] if len(parts) > 2] == [600, 600]
    assert len(client.messages(m.Deliver)) == 2


def test_a_body_at_the_limit_of_a_header_gets_through(make_world):
    world = make_world()
    client, engine = world.client(), world.engine()
    limits = world.controller._limits
    body = b"x" * (limits.max_header - 100)
    client.say(submit(body=body))
    world.turn()
    (dispatch,) = engine.messages(m.Dispatch)
    assert dispatch.body == body
    engine.say(result_of(dispatch, body))
    world.turn()
    assert [message.body for message in client.messages(m.Deliver)] == [body]


# --- who does not read ---


def test_a_control_connection_that_is_not_read_is_cut(world):
    reader, silent = world.client("control"), world.client("control")
    for _ in range(12):
        for peer in (reader, silent):
            if peer.is_open:
                peer.say(*(m.EngineCommand(1, list(range(1000)), "no such command" * 100) for _ in range(1000)))
        world.turn()
        reader.acknowledge()
    assert reader.is_open
    assert not silent.is_open
    told = sum(len(part) for parts in silent.server.told[silent.id] for part in parts)
    assert told < 10 * 1024**2
    assert world.hub.clients[silent.uuid].control is None
    again = world_client_again(world, silent)
    assert isinstance(world.ask(again, m.ListEngines(1)), m.Reply)


def test_acknowledgements_do_not_heap_up_for_who_does_not_read(world):
    client = world.client()
    client.server.congested.add(client.id)
    client.server.told.clear()
    for _ in range(20):
        for _ in range(300):
            client.say(m.Function(task_id(), "f", "", b"body"))
        world.turn(0.2)
    assert client.server.told[client.id] == []
    client.server.congested.clear()
    world.turn(0.2)
    world.turn(0.2)
    assert len(client.server.told[client.id]) == 1
    client.read()
    assert client.session.acked == client.session.sent

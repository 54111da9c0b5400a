"""The stock key is changed: in the grace everybody is answered with the key that it has, afterwards who has the old one is heard no more.

Each reading below verifies the signature: `Framing.read` fails at one that is not made with the reader's own key.
"""

from __future__ import annotations

import pytest

from clusterd.controller import rotation
from clusterd.controller.compat.sockets import CLIENT_SIDE
from clusterd.core.wire import messages as m
from tests.unit.controller.stock import StockClient, StockEngine, StockWorld
from tests.unit.controller.test_stock_clients import answer, name_of

GRACE = 60.0


def rotate(world, grace=GRACE):
    answer = world.ask(world.operator(), m.RotateKeys(7, grace))
    assert isinstance(answer, m.Reply), answer
    world.key = world.controller._secrets.stock_key
    return answer.value


def after_the_grace(world):
    """Let it pass, with every engine beating, as real ones do."""
    for _ in range(int(GRACE) + 1):
        world.turn(1.0)
        for name in list(world.hub.engines):
            if not world.hub.engines[name].agent:
                world.arrive("hb_pong", [name, world.sockets.sent["hb_ping"][-1][0]])
        world.sockets.sent["hb_ping"][:-1] = []
    world.pass_time(0.3, 0.05)


@pytest.fixture
def world(tmp_path):
    return StockWorld(tmp_path)


@pytest.fixture
def old(world):
    return StockClient(world, "old").listen()


@pytest.fixture
def guest(world):
    """A stock engine from before the change."""
    return StockEngine(world).join()


@pytest.fixture
def new(world, old):
    """Its world is another: the key is changed when it comes."""
    old.ask("connection_request")
    rotate(world)
    world.sockets.take("notification")
    return StockClient(world, "new")


# --- in the grace ---


def test_both_are_answered_with_their_own_key(world, old, new):
    for client in (old, new):
        assert client.ask("queue_request", {"targets": None, "verbose": False}).status == "ok"
    assert old.framing.key != new.framing.key
    assert world.status()["keys"]["using_old"]["stock_clients"] == ["hand, heard 0 s ago"]


def test_our_engines_results_and_output_are_signed_for_whom_they_are(world, old, new):
    engine = world.engine()
    for client in (old, new):
        header = client.apply(name_of(engine))
        answer(engine)
        assert client.hear("mux").parent == header
        assert ("status", "idle", header["msg_id"]) in client.output()


def test_a_task_from_before_is_answered_with_the_key_from_before(world, old):
    engine = world.engine()
    header = old.apply(name_of(engine))
    rotate(world)
    answer(engine)
    assert old.hear("mux").parent == header


def test_a_stock_engine_from_before_works_for_both(world, guest, old, new):
    for client in (old, new):
        header = client.apply(guest.name)
        (request,) = guest.requests()
        assert request.header == header
        guest.reply(request)
        assert client.hear("mux").parent == header
    # A control request passes through, and so does what comes back.
    for client in (old, new):
        header = client.send("control", "clear_request", to=guest.name)
        (request,) = guest.commands()
        assert request.header == header
        frames = guest.frames("clear_reply", {"status": "ok"}, parent=request.header)
        world.arrive("control_engine", [guest.identity, *request.identities[1:], *frames])
        assert client.hear("control").parent == header


def test_an_engine_with_the_new_key_works_for_both_as_well(world, old, new):
    guest = StockEngine(world).join()
    for client in (old, new):
        client.balanced()
        (request,) = guest.requests()
        guest.reply(request)
        assert client.hear("task").status == "ok"


def test_what_a_stock_engine_shows_is_signed_for_whom_it_is(world, guest, old, new):
    for client in (old, new):
        client.apply(guest.name)
        (request,) = guest.requests()
        frames = guest.frames("stream", {"name": "stdout", "text": "x"}, parent=request.header)
        world.arrive("iopub_engine", [b"engine.0.stream", *frames])
        assert [kind for kind, _, _ in client.output()] == ["stream"]
        guest.reply(request)
        client.heard("mux")


def test_native_tasks_and_commands_reach_an_engine_from_before(world, guest):
    rotate(world)
    client, control = world.client(), world.client("control")
    client.say(m.Submit(b"t" * 16, m.EXECUTE, b"", None, b"1"))
    world.turn()
    (request,) = guest.requests()
    assert request.kind == "apply_request"
    control.say(m.EngineCommand(1, [guest.id], "interrupt"))
    world.turn()
    (command,) = guest.commands()
    assert command.content == {"sig": 2}


def test_who_comes_and_goes_is_said_with_each_key_that_a_client_has(world, old, new):
    new.ask("connection_request")
    StockEngine(world).join()
    said = world.sockets.take("notification")
    assert len(said) == 2
    for client in (old, new):
        assert sum(frames[1] == client.framing.sign(frames[2:6]) for frames in said) == 1


def test_with_clients_of_one_key_it_is_said_once(world, old):
    old.ask("connection_request")
    rotate(world)
    StockEngine(world).join()
    (said,) = world.sockets.take("notification")
    assert old.framing.read(said).kind == "registration_notification"


def test_an_engine_that_registers_with_the_old_file_has_the_old_key(world, old):
    late = StockEngine(world)
    old.ask("connection_request")
    rotate(world)
    late.join()
    assert world.status()["keys"]["using_old"]["stock_engines"] == ["stock/0"]
    old.apply(late.name)
    assert len(late.requests()) == 1


def test_a_thief_cannot_have_answers_for_a_new_client_signed_with_the_old_key(world, new):
    new.ask("connection_request")
    thief = StockClient(world, "new")
    thief.framing.key = world.controller._secrets.retired[0].stock_key.encode()
    thief.send("registration", "connection_request")
    assert world.sockets.take("registration") == []
    assert world.stock_counters["malformed"] == 1
    assert new.ask("connection_request").status == "ok"


def test_through_curve_nothing_passes_unsigned_once_the_key_was_changed(world, new, monkeypatch):
    monkeypatch.setattr(world.loop.front._edge, "is_curve", True)
    new.send("registration", "connection_request", signature=b"")
    assert new.heard("registration") == []
    assert world.stock_counters["bad_mac"] == 1


# --- afterwards ---


def test_who_has_the_old_key_is_dismissed_and_hears_no_more(world, guest, old, new):
    new.ask("connection_request")
    engine = world.engine()
    header = old.apply(name_of(engine))
    assert guest.peer is not None
    world.sockets.take("notification")
    after_the_grace(world)
    said = world.sockets.take("notification")
    mine = [old.framing.read(frames) for frames in said if frames[1] == old.framing.sign(frames[2:6])]
    assert [message.kind for message in mine] == ["shutdown_notification"]
    # The task goes on, and its result is there for who has the new key.
    answer(engine)
    assert [frames for channel in CLIENT_SIDE[:-1] for frames in world.sockets.take(channel, old.route)] == []
    found = new.ask("result_request", {"msg_ids": [header["msg_id"]]})
    assert found.content["completed"] == [header["msg_id"]]
    old.send("registration", "connection_request")
    assert old.heard("registration") == []
    assert world.stock_counters["old_key"] == 2
    assert new.ask("connection_request").status == "ok"


def test_a_stock_engine_with_the_old_key_is_lost_and_its_heart_counts_for_nothing(world, guest, old, new):
    lasting = StockEngine(world).join()
    header = new.apply(guest.name)
    guest.requests()
    after_the_grace(world)
    assert guest.peer is None
    assert lasting.peer is not None
    reply = new.hear("mux")
    assert reply.parent == header
    assert "the key of this cluster was changed" in reply.content["evalue"]
    world.beat(guest, lasting, periods=3)
    assert guest.peer is None
    assert world.controller._secrets.retired[-1].stock_engines == []
    assert lasting.name in world.loop.front.engines.known
    assert guest.name not in world.loop.front.engines.known
    new.apply(lasting.name)
    assert len(lasting.requests()) == 1


def test_without_grace_it_is_so_at_once(world, guest, old):
    old.ask("connection_request")
    world.sockets.take("notification")
    rotate(world, 0.0)
    world.turn(rotation.ANSWER_SECONDS)
    assert guest.peer is None
    said = [frames for frames in world.sockets.take("notification") if frames[1] == old.framing.sign(frames[2:6])]
    assert [old.framing.read(frames).kind for frames in said] == ["shutdown_notification"]


def test_a_change_without_grace_ends_that_of_another(world, guest, old, new):
    new.ask("connection_request")
    rotate(world, 0.0)
    assert guest.peer is None
    old.send("registration", "connection_request")
    assert old.heard("registration") == []
    world.turn(rotation.ANSWER_SECONDS)
    new.send("registration", "connection_request")
    assert new.heard("registration") == []
    assert StockClient(world, "newest").ask("connection_request").status == "ok"


def test_where_nobody_has_the_old_key_nobody_is_dismissed(world):
    rotate(world)
    StockClient(world, "new").ask("connection_request")
    after_the_grace(world)
    assert world.sockets.take("notification") == []


# --- the controller after it ---


@pytest.mark.parametrize("is_over", [False, True])
def test_a_successor_knows_which_engines_have_the_old_key(tmp_path, monkeypatch, is_over):
    (tmp_path / "security").mkdir(mode=0o700)
    world = StockWorld(tmp_path, reuse=True)
    guest, old = StockEngine(world).join(), StockClient(world, "old")
    old.ask("connection_request")
    rotate(world)
    world.pass_time(2.0)  # what it knows is written down
    world.store.close()
    if is_over:
        now = rotation.time.time()
        monkeypatch.setattr(rotation.time, "time", lambda: now + GRACE + 1)
    after = StockWorld(tmp_path, reuse=True, has_predecessor=True)
    guest.world = old.world = after
    after.beat(guest, periods=2)
    assert (guest.peer is not None) is not is_over
    old.send("registration", "connection_request")
    assert len(old.heard("registration")) == (not is_over)
    if not is_over:
        old.apply(guest.name)
        (request,) = guest.requests()
        guest.reply(request)
        assert old.hear("mux").status == "ok"

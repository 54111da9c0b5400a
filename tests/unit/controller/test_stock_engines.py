"""Stock engines as the controller sees them: message by message, in memory."""

from __future__ import annotations

import pytest

from clusterd.controller.compat.announcements import RECENT_SECONDS
from clusterd.controller.compat.commands import STOP_SECONDS
from clusterd.controller.compat.heartbeat import HURRY_FOR, HURRY_SECONDS
from clusterd.controller.compat.registration import LAST_WORDS, OUTPUT_SECONDS
from clusterd.core.wire import jupyter
from clusterd.core.wire import messages as m
from tests.compat.framing import Framing, call
from tests.unit.controller.stock import PING, StockEngine, StockWorld
from tests.unit.controller.world import task_id

MISSED = 12
"""Beats after which an engine is silent: the one that was answered, and more than ten."""
GRACE_BEATS = 22


@pytest.fixture
def world(tmp_path):
    return StockWorld(tmp_path)


@pytest.fixture
def engine(world):
    return StockEngine(world).join()


def stock_task(client, target=None, *, options=None, task=None):
    """Give in a task of kind STOCK by our own wire: what the client side of the edge makes of a stock request; its framing and id."""
    framing = Framing("", "a client")
    header = framing.header("apply_request")
    _, _, *parts = framing.frames(header, {}, metadata={"label": "it"}, buffers=call(abs, -1))
    task = task or task_id()
    body = jupyter.pack_request(jupyter.Request(*parts[:4]))
    client.say(m.Submit(task, m.STOCK, b"", target, body, len(parts[4:]), options), payload=parts[4:])
    return header, task


def one(list_of_one):
    (only,) = list_of_one
    return only


# --- coming ---


def test_an_engine_is_announced_at_its_first_pong(world):
    engine = StockEngine(world)
    reply = engine.register()
    assert (reply["status"], reply["id"], reply["hb_period"]) == ("ok", 0, PING * 1000)
    assert reply["connection_info"]["mux_engine"] == world.sockets.ports["mux_engine"]
    world.beat(periods=3)
    assert engine.peer is None
    engine.welcome()
    assert engine.peer is None
    assert world.notices() == []
    world.beat(engine)
    assert world.notices() == [("registration", 0, engine.name)]
    assert (engine.peer.engine_set, engine.peer.slot, engine.peer.pid) == ("stock", 0, 0)


def test_nor_before_its_output_is_heard(world):
    engine = StockEngine(world)
    engine.register()
    world.turn(0.01)
    engine.pong()
    assert world.notices() == []
    engine.welcome()
    assert world.notices() == [("registration", 0, engine.name)]


def test_one_that_does_not_say_when_its_output_is_heard_is_given_a_moment(world):
    engine = StockEngine(world)
    engine.register()
    world.turn(0.01)
    engine.pong()
    world.turn(OUTPUT_SECONDS / 2)
    engine.pong()
    assert world.notices() == []
    world.turn(OUTPUT_SECONDS)
    engine.pong()
    assert world.notices() == [("registration", 0, engine.name)]


def test_nobody_waits_a_period_for_the_first_beat_of_one_that_joins(world):
    other = StockEngine(world).join()
    world.beat(other, periods=int(HURRY_FOR / PING) + 1)
    engine = StockEngine(world)
    before = world.sockets.sent["hb_ping"][-1]
    world.sockets.sent["hb_ping"].clear()
    engine.register()
    world.pass_time(HURRY_SECONDS + 0.02, 0.01)
    assert world.sockets.sent["hb_ping"] == [before], "the same beat again, which nobody can miss"
    engine.welcome()
    engine.pong()
    assert engine.peer is not None
    world.beat(engine, other, periods=2)
    world.pass_time(HURRY_FOR, 0.01)
    world.sockets.sent["hb_ping"].clear()
    world.pass_time(2 * PING, 0.01)
    assert len(world.sockets.sent["hb_ping"]) <= 3, "and then it beats as ever"


def test_who_begins_to_listen_is_told_of_what_it_has_missed(world):
    stays, leaves = StockEngine(world).join(), StockEngine(world).join()
    leaves.unregister()
    world.notices(after=0.2)
    world.arrive("notification", [b"\1"])
    assert world.notices() == [("registration", 0, stays.name), ("unregistration", 1, leaves.name)]
    world.arrive("notification", [b"\0"])
    assert world.notices() == []
    world.beat(stays, periods=int(RECENT_SECONDS / PING) + 1)
    world.arrive("notification", [b"\1"])
    assert world.notices() == []


def test_a_pong_of_nobody_announces_nobody(world):
    stranger = StockEngine(world)
    world.beat(stranger)
    assert world.hub.engines == {}
    world.arrive("hb_pong", [b"only one frame"])
    world.arrive("hb_pong", [stranger.identity, b""])
    assert world.hub.engines == {}


def test_a_registration_without_a_pong_is_dropped_and_its_id_is_nobodys(world):
    slow = StockEngine(world)
    slow.register()
    for _ in range(31):
        world.turn(1.0)
    slow.pong()
    assert world.hub.engines == {}
    assert slow.register()["id"] == 1


def test_ids_are_one_engines_for_ever(world):
    first, second = StockEngine(world).join(), StockEngine(world).join(5)
    assert (first.id, second.id) == (0, 5)
    # While one that wants an id is on its way, no other gets it.
    joining, rival = StockEngine(world), StockEngine(world)
    assert joining.register(9)["id"] == 9
    assert rival.register(9)["id"] != 9
    assert world.engine(wanted_id=9).wire_id != 9
    # A silent engine keeps its own.
    world.beat(second, periods=MISSED + GRACE_BEATS + 1)
    assert first.peer is None
    assert StockEngine(world).register(0)["id"] != 0
    assert world.engine(slot=0).wire_id != 0
    world.beat(first, second)
    assert first.peer.id == 0


@pytest.mark.parametrize("wanted", [-1, 2**31, True, "3", 1.5, [1]])
def test_a_wish_that_makes_no_sense_is_no_error(world, wanted):
    assert StockEngine(world).register(wanted)["id"] == 0


def test_a_uuid_in_use_is_refused(world, engine):
    again = StockEngine(world, engine.name).register(identity=b"another socket")
    assert (again["status"], again["ename"], again["evalue"]) == ("error", "KeyError", f"uuid {engine.name!r} in use")
    ours = world.engine()
    reply = StockEngine(world, ours.uuid.hex()).register()
    assert reply["ename"] == "KeyError"
    joining = StockEngine(world)
    joining.register()
    assert StockEngine(world, joining.name).register(identity=b"x")["status"] == "error"


@pytest.mark.parametrize("name", ["", "ü", "a" * 256, "two\nlines", None, 5])
def test_a_uuid_that_cannot_be_one_is_refused(world, name):
    engine = StockEngine(world)
    engine.name = name
    assert engine.register(identity=b"x")["ename"] == "ValueError"


def test_ours_and_stock_engines_have_different_ids(world):
    ours = [world.engine(slot=slot) for slot in range(2)]
    stock = [StockEngine(world).join() for _ in range(2)]
    later = world.engine(slot=2)
    ids = [*(peer.wire_id for peer in ours), *(engine.id for engine in stock), later.wire_id]
    assert len(set(ids)) == 5
    operator = world.operator()
    infos = {row[0]: row for row in world.ask(operator, m.ListEngines(1)).value}
    name = stock[0].identity
    assert infos[stock[0].id][1:4] == [name, "stock", stock[0].id]


# --- going ---


def test_a_nanny_is_believed_at_once(world, engine):
    world.notices()
    engine.unregister()
    assert engine.peer is None
    assert world.notices(after=0.2) == [("unregistration", 0, engine.name)]


def test_a_result_that_was_on_its_way_when_its_engine_died_is_a_result(world, engine):
    client = world.client()
    _, task = stock_task(client)
    world.turn()
    request = one(engine.requests())
    engine.unregister()
    # Suspect, so it gets nothing more; its result comes by another connection.
    assert engine.peer.is_suspect
    engine.reply(request)
    assert one(client.messages(m.Deliver)).task == task
    world.turn()
    assert engine.peer is None


def test_a_task_dies_with_its_engine_and_the_cause_is_told(world, engine):
    client = world.client()
    _, task = stock_task(client)
    world.turn()
    engine.unregister()
    world.pass_time(LAST_WORDS + 0.01, 0.01)
    failed = one(client.messages(m.Failed))
    assert (failed.task, failed.code, failed.engine) == (task, "engine_lost", 0)
    assert "nanny" in failed.message


def test_an_engine_that_unregisters_or_shuts_down_has_left(world):
    leaving, ending = StockEngine(world).join(), StockEngine(world).join()
    world.notices()
    leaving.unregister(identity=leaving.identity)
    ending_frames = ending.frames("shutdown_reply", {"status": "ok", "restart": False})
    world.arrive("iopub_engine", [b"engine.1.shutdown", *ending_frames])
    assert [leaving.peer, ending.peer] == [None, None]
    assert [notice[:2] for notice in world.notices(after=0.2)] == [("unregistration", 0), ("unregistration", 1)]


@pytest.mark.parametrize("wire_id", [7, None, "0", 0.5, [0], {}])
def test_nobody_is_unregistered_by_another_id(world, engine, wire_id):
    content = {"id": wire_id}
    world.arrive("registration", [b"nanny", *engine.frames("unregistration_request", content)])
    assert engine.peer is not None


def test_a_native_engine_is_not_unregistered_by_a_stock_message(world):
    ours = world.engine()
    stock = StockEngine(world)
    stock.unregister(wire_id=ours.wire_id)
    assert ours.wire_id in world.hub.engines_by_id


# --- hearts ---


def test_ten_missed_beats_are_forgiven(world, engine):
    world.notices()
    for _ in range(2):
        world.beat(periods=10)
        world.beat(engine)
    assert world.notices() == []
    assert not engine.peer.is_suspect


def test_silence_is_suspect_then_given_up_and_comes_back(world, engine):
    other = StockEngine(world).join()
    world.notices()
    client = world.client()
    _, task = stock_task(client, target=0)
    world.turn()
    late = one(engine.requests())
    world.beat(other, periods=MISSED)
    assert engine.peer.is_suspect
    assert world.notices() == []
    # Nothing new goes to it, and nothing that it has is failed yet.
    _, next_task = stock_task(client, target=0)
    world.turn()
    assert engine.requests() == []
    assert client.messages(m.Failed) == []
    world.beat(other, periods=GRACE_BEATS)
    assert engine.peer is None
    assert world.notices(after=0.2) == [("unregistration", 0, engine.name)]
    assert {failed.task for failed in client.messages(m.Failed)} == {task, next_task}
    # It was frozen, and goes on: what it says late is nobody's, and it is there again under its own id.
    engine.reply(late)
    assert world.stock_counters["strangers"] == 1
    world.beat(engine, other)
    assert world.notices() == [("registration", 0, engine.name)]
    _, again = stock_task(client, target=0)
    world.turn()
    engine.reply(one(engine.requests()))
    assert [delivered.task for delivered in client.messages(m.Deliver)] == [again]


def test_an_engine_that_wakes_in_time_keeps_its_work(world, engine):
    client = world.client()
    _, task = stock_task(client)
    world.turn()
    request = one(engine.requests())
    world.notices()
    world.beat(periods=MISSED)
    assert engine.peer.is_suspect
    world.beat(engine)
    # Nobody was told, so nobody has given up what it does.
    assert world.notices() == []
    assert not engine.peer.is_suspect
    engine.reply(request)
    assert one(client.messages(m.Deliver)).task == task


def test_one_that_liveness_gives_up_before_its_heart_does_comes_back_too(world, engine):
    # With a long period its silence would be waited for longer than anybody waits for an engine that nobody watches.
    world.beat(periods=MISSED)
    for _ in range(300):
        world.now += 0.5
        world.hub.watch.tick(world.now)
    assert engine.peer is None
    world.beat(engine)
    assert engine.peer.id == 0


def test_one_that_has_ended_does_not_come_back(world, engine):
    engine.unregister()
    world.beat(engine, periods=2)
    assert world.hub.engines == {}


def test_our_own_absence_is_no_silence_of_theirs(world, engine):
    world.now += 600
    world.beat(engine)
    assert not engine.peer.is_suspect


def test_only_the_last_two_pings_count(world, engine):
    old = world.sockets.sent["hb_ping"][-1][0]
    for _ in range(MISSED):
        world.beat()
        engine.pong(old)
    # It counted once, as the previous one: by now a dozen beats later.
    world.beat()
    assert engine.peer.is_suspect


# --- work ---


def test_a_request_and_its_reply_are_passed_on_byte_by_byte(world, engine):
    client = world.client()
    header, task = stock_task(client, target=0)
    world.turn()
    request = one(engine.requests())
    assert request.header == header
    assert request.metadata == {"label": "it"}
    assert request.buffers == call(abs, -1)
    engine.reply(request, buffers=[b"a", b"bc"], metadata={"engine": engine.name, "odd": [1, None]})
    ((delivered, payload),) = client.hear(m.Deliver)
    assert (delivered.task, delivered.engine, delivered.status) == (task, 0, m.STATUS_OK)
    assert [bytes(frame) for frame in payload] == [b"a", b"bc"]
    reply = jupyter.unpack_reply(delivered.body)
    assert jupyter.dict_of(reply.metadata, "")["odd"] == [1, None]
    assert jupyter.header_of(reply.header).session == engine.name
    assert delivered.started > 0


def test_one_task_at_a_time(world, engine):
    client = world.client()
    tasks = [stock_task(client, target=0)[1] for _ in range(3)]
    for task in tasks:
        world.turn()
        engine.reply(one(engine.requests()))
        assert one(client.messages(m.Deliver)).task == task


def test_an_attempt_that_is_made_again_has_another_signature_and_the_same_msg_id(world, engine):
    client = world.client()
    header, task = stock_task(client, options=m.TaskOptions(retries=1))
    world.turn()
    first = one(engine.requests())
    engine.reply(first, {"status": "error", "ename": "E", "evalue": "", "traceback": []}, {"status": "error"}, ())
    world.turn()
    second = one(engine.requests())
    assert second.id == first.id == header["msg_id"]
    assert second.header["date"] == header["date"]
    assert second.signature != first.signature
    engine.reply(second)
    delivered = one(client.messages(m.Deliver))
    assert (delivered.task, delivered.attempt, delivered.status) == (task, 1, m.STATUS_OK)


def test_a_late_reply_to_an_earlier_attempt_is_nobodys(world, engine):
    client = world.client()
    stock_task(client, options=m.TaskOptions(retries=1))
    world.turn()
    first = one(engine.requests())
    engine.reply(first, {"status": "error"}, {"status": "error"}, ())
    world.turn()
    engine.requests()
    engine.reply(first, buffers=[b"late"])
    assert client.messages(m.Deliver) == []


def test_an_error_and_a_refusal(world, engine):
    other = StockEngine(world).join()
    client = world.client()
    stock_task(client)
    world.turn()
    refused = [(each, request) for each in (engine, other) for request in each.requests()]
    ((first, request),) = refused
    second = other if first is engine else engine
    first.reply(
        request, {"status": "error", "ename": "UnmetDependency"}, {"status": "error", "dependencies_met": False}, ()
    )
    world.turn()
    # At no charge, and on the other engine.
    moved = one(second.requests())
    second.reply(moved, {"status": "error", "ename": "ValueError"}, {"status": "error"}, ())
    assert one(client.messages(m.Deliver)).status == m.STATUS_ERROR


def test_a_reply_that_cannot_be_read_ends_its_task(world, engine):
    client = world.client()
    stock_task(client)
    world.turn()
    request = one(engine.requests())
    parts = [b'{"no": "header"}', b"{}", b"not json", b"[]"]
    frames = [jupyter.DELIMITER, engine.framing.sign(parts), *parts]
    world.arrive("mux_engine", [engine.identity, *request.identities[1:], *frames])
    delivered = one(client.messages(m.Deliver))
    assert delivered.status == m.STATUS_ERROR
    assert b"unreadable reply" in delivered.body


def test_replies_are_taken_once_and_only_when_they_are_signed(world, engine):
    client = world.client()
    stock_task(client)
    world.turn()
    request = one(engine.requests())
    engine.reply(request, signature=b"0" * 64)
    assert client.messages(m.Deliver) == []
    assert world.stock_counters["bad_mac"] == 1
    frames = engine.frames("apply_reply", {"status": "ok"}, metadata={"status": "ok"}, buffers=[b"x"])
    for _ in range(2):
        world.arrive("mux_engine", [engine.identity, *request.identities[1:], *frames])
    assert len(client.messages(m.Deliver)) == 1
    assert world.stock_counters["replayed"] == 1


@pytest.mark.parametrize("route", [[], [b""], [b"\1"], [b"\1abcd"], [b"unknown"], [b"\1", b"\2"]])
def test_what_is_no_reply_is_counted(world, engine, route):
    frames = engine.frames("apply_reply", {"status": "ok"}, metadata={"status": "ok"})
    world.arrive("mux_engine", [engine.identity, *route, *frames])
    assert world.stock_counters["malformed"] == 1
    world.arrive("mux_engine", [b"no delimiter"])
    assert world.stock_counters["malformed"] == 2


def test_work_waits_for_a_connection_that_is_not_there_yet(world):
    engine = StockEngine(world)
    world.sockets.away.add(("mux_engine", engine.identity))
    engine.join()
    client = world.client()
    stock_task(client)
    world.turn()
    assert engine.requests() == []
    world.sockets.away.clear()
    world.pass_time(0.05, 0.01)
    engine.reply(one(engine.requests()))
    assert len(client.messages(m.Deliver)) == 1


def test_an_engine_whose_nanny_is_gone_works_on(world, engine):
    world.sockets.away.add(("control_engine", engine.identity))
    world.loop.front.engines.control(
        engine.peer, jupyter.split([b"client", engine.identity, *engine.frames("clear_request", {})]),
        jupyter.Header("id", "clear_request"), world.now,
    )  # fmt: skip
    client = world.client()
    stock_task(client)
    world.turn()
    engine.reply(one(engine.requests()))
    assert len(client.messages(m.Deliver)) == 1
    # Should there be a connection again, it hears what it was told, and the client the answer.
    world.sockets.away.clear()
    world.pass_time(0.05, 0.01)
    told = one(engine.commands())
    assert told.kind == "clear_request"
    answer = engine.frames("clear_reply", {"status": "ok"}, parent=told.header)
    world.arrive("control_engine", [engine.identity, *told.identities[1:], *answer])
    assert world.sockets.take("control") == [[b"client", engine.identity, *answer]]


# --- control ---


@pytest.mark.parametrize(
    ("command", "number", "kind", "content"),
    [
        ("interrupt", 0, "signal_request", {"sig": 2}),
        ("kill", 0, "signal_request", {"sig": 9}),
        ("signal", 10, "signal_request", {"sig": 10}),
        ("stop", 0, "shutdown_request", {"restart": False}),
    ],
)
def test_commands_go_to_the_nanny(world, engine, command, number, kind, content):
    operator = world.operator()
    reply = world.ask(operator, m.EngineCommand(1, [0], command, number))
    assert reply.value == {"done": [0], "failed": {}}
    sent = one(engine.commands())
    assert (sent.kind, sent.content) == (kind, content)


def test_commands_that_cannot_be_carried_out_say_why(world, engine):
    operator = world.operator()
    failed = world.ask(operator, m.EngineCommand(1, [0], "restart")).value["failed"]
    assert "was not started by clusterd" in failed[0]
    world.sockets.away.add(("control_engine", engine.identity))
    failed = world.ask(operator, m.EngineCommand(2, [0], "interrupt")).value["failed"]
    assert "no control connection" in failed[0]


def test_an_engine_that_was_told_to_stop_ends_as_wished(world, engine):
    operator = world.operator()
    world.ask(operator, m.ListEngines(1))
    world.ask(operator, m.EngineCommand(2, [0], "stop"))
    engine.unregister()
    gone = [entry for notice in operator.messages(m.EnginesChanged) for entry in notice.removed]
    assert "a request to stop it" in one(gone).cause


def test_an_engine_that_does_not_stop_is_killed(world, engine):
    operator = world.operator()
    world.ask(operator, m.EngineCommand(1, [0], "stop"))
    assert one(engine.commands()).kind == "shutdown_request"
    world.beat(engine, periods=round(STOP_SECONDS / PING))
    world.ask(operator, m.EngineCommand(2, [0], "stop"))
    world.beat(engine, periods=2)
    assert [sent.content for sent in engine.commands() if sent.kind == "signal_request"] == [{"sig": 9}]
    engine.unregister()
    world.beat(periods=round(STOP_SECONDS / PING) + 2)
    assert engine.commands() == []


def test_output_is_passed_on_as_it_is_and_only_when_it_is_signed(world, engine):
    world.arrive("iopub", [b"\1"])
    frames = [b"engine.0.stdout", *engine.frames("stream", {"name": "stdout", "text": "hello"}, parent={"msg_id": "x"})]
    world.arrive("iopub_engine", frames)
    assert world.sockets.take("iopub") == [frames]
    world.arrive("iopub_engine", frames)
    forged = [b"t", *engine.frames("stream", {"name": "stdout", "text": "x"}, signature=b"f" * 64)]
    world.arrive("iopub_engine", forged)
    assert world.sockets.take("iopub") == []
    # ipykernel 7 says this when the first listener comes, without topic and parent.
    welcome = engine.frames("iopub_welcome", {"subscription": ""})
    world.arrive("iopub_engine", welcome)
    assert world.sockets.take("iopub") == [welcome]


# --- the next controller ---


def test_engines_of_an_earlier_controller_come_back_by_a_beat(tmp_path):
    world = StockWorld(tmp_path)
    known, gone = StockEngine(world), StockEngine(world)
    known.id, gone.id = 3, 4
    world.loop.front.engines.expect({known.name: 3, gone.name: 4})
    assert StockEngine(world).register(3)["id"] != 3
    world.beat(known)
    assert known.peer.id == 3
    assert world.notices() == [("registration", 3, known.name)]
    # The next one is to wait for both, and for the one that never came only a while.
    assert world.loop.front.engines.known == {known.name: 3, gone.name: 4}
    world.beat(known, periods=21)
    assert world.loop.front.engines.known == {known.name: 3}
    world.beat(known, gone)
    assert gone.peer.id == 4

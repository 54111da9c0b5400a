"""What stock clients ask of single engines and of the controller: control, questions, the end; and clients who do not read."""

from __future__ import annotations

import signal

import pytest

from clusterd.controller.compat import clients, outbox, sessions
from clusterd.core.wire import jupyter
from clusterd.core.wire import messages as m
from tests.unit.controller.stock import StockClient, StockWorld, Tracker
from tests.unit.controller.test_stock_clients import answer, name_of
from tests.unit.controller.world import result_of


@pytest.fixture
def world(tmp_path):
    return StockWorld(tmp_path)


@pytest.fixture
def client(world):
    return StockClient(world)


@pytest.fixture
def engine(world):
    return world.engine()


@pytest.fixture
def agent(world):
    return world.agent()


@pytest.fixture
def watched(world, agent):
    return world.engine(agent="l-0")


def control(client, engine, what, content=None):
    return client.send("control", f"{what}_request", content, to=name_of(engine))


# --- control ---


def test_clear_is_a_task_of_ours_and_answered_when_it_is_done(client, engine):
    header = control(client, engine, "clear")
    (dispatch,) = engine.messages(m.Dispatch)
    assert (dispatch.kind, dispatch.body) == (m.CLEAR, b"\x80\x04N.")
    assert client.heard("control") == []
    engine.say(result_of(dispatch))
    engine.world.turn()
    reply = client.hear("control")
    assert (reply.kind, reply.parent, reply.status) == ("clear_reply", header, "ok")
    assert reply.identities == [client.route, name_of(engine).encode()]


def test_clear_of_an_engine_that_leaves_is_failed_by_the_notice(world, client, engine):
    control(client, engine, "clear")
    engine.say(m.Goodbye("gone"))
    world.turn()
    assert client.heard("control") == []


def test_clear_that_fails_says_so(client, engine):
    control(client, engine, "clear")
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch, status=1))
    engine.world.turn()
    assert client.hear("control").status == "error"


@pytest.mark.parametrize("is_one", [True, False])
def test_abort_ends_what_is_named_and_nothing_else(client, engine, is_one):
    client.apply(name_of(engine))
    named = client.apply(name_of(engine))
    stays = client.apply(name_of(engine))
    control(client, engine, "abort", {"msg_ids": named["msg_id"] if is_one else [named["msg_id"]]})
    assert client.hear("control").status == "ok"
    reply = client.hear("mux")
    assert (reply.parent, reply.kind, reply.content) == (named, "apply_reply", {"status": "aborted"})
    assert (reply.metadata["status"], reply.metadata["engine"]) == ("aborted", name_of(engine))
    answer(engine)
    answer(engine)
    assert [reply.parent["msg_id"] for reply in client.heard("mux")][-1] == stays["msg_id"]


def test_abort_without_names_ends_all_that_waits_for_the_engine_and_for_no_other(world, client, engine):
    other = world.engine()
    for _ in range(3):
        client.apply(name_of(engine))
        client.apply(name_of(other))
    StockClient(world, "another").apply(name_of(engine))
    control(client, engine, "clear")
    control(client, engine, "abort", {"msg_ids": []})
    assert client.hear("control").status == "ok"
    assert [reply.status for reply in client.heard("mux")] == ["aborted"] * 2
    answer(engine)
    assert [dispatch.kind for dispatch in engine.messages(m.Dispatch)] == [m.CLEAR]


def test_abort_of_another_engines_work_does_nothing_to_it(world, client, engine):
    other = world.engine()
    client.apply(name_of(other))
    waits = client.apply(name_of(other))
    control(client, engine, "abort", {"msg_ids": [waits["msg_id"]]})
    assert client.hear("control").status == "ok"
    assert client.heard("mux") == []


def test_abort_of_what_comes_later_is_remembered(client, engine):
    header = client.framing.header("apply_request")
    control(client, engine, "abort", {"msg_ids": [header["msg_id"]]})
    client.apply(name_of(engine), header=header)
    assert client.hear("mux").content == {"status": "aborted"}
    assert engine.messages(m.Dispatch) == []
    # It is a task like any: it is in the history, and others may depend on it.
    assert client.ask("history_request").content["history"] == [header["msg_id"]]
    client.balanced(after=[header["msg_id"]])
    assert client.hear("task").content["ename"] == "ImpossibleDependency"


def test_abort_of_a_part_of_a_broadcast_by_its_first_name(world, client, engine):
    client.apply(name_of(engine))
    header = client.broadcast([(name_of(engine), engine.wire_id)], is_coalescing=True)
    control(client, engine, "abort", {"msg_ids": [header["msg_id"]]})
    assert client.hear("broadcast").content == {"status": "aborted"}


def test_abort_of_nonsense_is_an_error(client, engine):
    control(client, engine, "abort", {"msg_ids": 7})
    assert client.hear("control").content["ename"] == "TypeError"


@pytest.mark.parametrize("said", [int(signal.SIGUSR1), "SIGUSR1"])
def test_a_signal_goes_by_the_agent(world, client, agent, watched, said):
    control(client, watched, "signal", {"sig": said})
    world.turn()
    (order,) = agent.messages(m.EngineSignal)
    assert (order.uuid, order.command, order.number) == (watched.uuid, "signal", signal.SIGUSR1)
    assert client.heard("control") == []
    agent.say(m.CommandDone(order.request))
    world.turn()
    assert (client.hear("control").content) == {"status": "ok"}


@pytest.mark.parametrize("said", ["SIGNOTHING", 4000, None, [1]])
def test_no_signal_is_an_error(client, watched, said):
    control(client, watched, "signal", {"sig": said})
    assert client.hear("control").content["ename"] == "ValueError"


def test_a_signal_without_an_agent_is_an_error(client, engine):
    control(client, engine, "signal", {"sig": 2})
    assert client.hear("control").content["ename"] == "OSError"


@pytest.mark.parametrize(("restart", "command"), [(False, "stop"), (True, "restart")])
def test_an_engine_is_ended_by_the_agent(world, client, agent, watched, restart, command):
    control(client, watched, "shutdown", {"restart": restart})
    world.turn()
    (order,) = agent.messages(m.EngineSignal)
    assert order.command == command
    agent.say(m.CommandDone(order.request))
    world.turn()
    assert client.hear("control").content == {"status": "ok", "restart": restart}


def test_control_of_nobody(client):
    client.send("control", "clear_request", to="f" * 32)
    assert client.hear("control").content["ename"] == "EngineError"


def test_what_is_not_known_gets_no_answer(client, engine):
    control(client, engine, "strange")
    client.send("control", "strange_request", to="f" * 32)
    assert client.heard("control") == []


# --- questions ---


def test_who_is_there(client, engine):
    reply = client.ask("connection_request")
    assert (reply.kind, reply.content) == ("connection_reply", {"status": "ok", "engines": {"0": name_of(engine)}})


def test_a_question_that_nobody_knows(client):
    reply = client.ask("strange_request")
    assert (reply.kind, reply.content["ename"]) == ("hub_error", "KeyError")


def test_queues(client, engine):
    client.apply(name_of(engine))
    client.balanced()
    answer(engine)
    client.apply(name_of(engine))
    content = client.ask("queue_request", {"targets": None, "verbose": False}).content
    assert content == {"status": "ok", "0": {"queue": 1, "completed": 1, "tasks": 1}, "unassigned": 0}


def test_a_task_that_is_run_once_more_answers_nobody_and_has_a_record(client, engine):
    client.listen()
    first = client.apply(name_of(engine))
    answer(engine)
    client.hear("mux")
    new = client.ask("resubmit_request", {"msg_ids": [first["msg_id"]]}).content["resubmitted"][first["msg_id"]]
    ((given, metadata, frames),) = answer(engine, buffers=[b"again"])
    assert (given["msg_id"], given["session"], metadata) == (new, first["session"], {})
    assert [bytes(frame) for frame in frames] == [b"function", b"arguments"]
    assert client.heard("mux") == client.heard("task") == []
    assert ("status", "idle", new) in client.output()
    result = client.ask("result_request", {"msg_ids": [new]})
    assert (result.content["completed"], result.buffers) == ([new], [b"again"])


def test_what_was_dropped_is_counted_in_status(world, client, engine):
    client.apply(name_of(engine), signature=b"0" * 64)
    assert world.status()["dropped"]["stock"] == {"bad_mac": 1}


@pytest.mark.parametrize("has_answer", [True, False])
def test_who_has_come_through_curve_needs_no_signature(client, monkeypatch, has_answer):
    monkeypatch.setattr(client.world.loop.front._edge, "is_curve", has_answer)
    client.send("registration", "connection_request", signature=b"")
    assert len(client.heard("registration")) == has_answer


# --- the end ---


def test_a_client_can_end_the_controller(world, client):
    assert client.ask("shutdown_request").content == {"status": "ok"}
    (said,) = [client.framing.read(frames) for frames in world.sockets.take("notification")]
    assert said.kind == "shutdown_notification"
    world.pass_time(clients.END_AFTER / 2)
    assert world.loop.ends_because is None
    world.pass_time(clients.END_AFTER)
    assert "stock client" in world.loop.ends_because


def test_where_a_daemon_keeps_the_cluster_it_is_told(world, client):
    operator = world.operator()
    world.ask(operator, m.ListEngines(1))
    client.ask("shutdown_request")
    world.pass_time(2 * clients.END_AFTER)
    assert [notice.who for notice in operator.messages(m.StopAsked)] == ["a stock client of hand"]
    assert world.loop.ends_because is None


# --- who does not read ---


def test_what_a_socket_does_not_take_waits_in_order(world, client, engine):
    world.sockets.full.add(("mux", client.route))
    headers = [client.apply(name_of(engine)) for _ in range(3)]
    for _ in headers:
        answer(engine)
    assert client.heard("mux") == []
    world.sockets.full.clear()
    world.pass_time(0.1)
    assert [reply.parent for reply in client.heard("mux")] == headers
    assert world.loop.front.clients.outbox.next_deadline() is None


def test_replies_for_who_is_gone_are_dropped(world, client, engine):
    header = client.apply(name_of(engine))
    world.sockets.away.add(("mux", client.route))
    answer(engine)
    assert world.stock_counters["client_gone"] == 1
    world.sockets.away.clear()
    assert client.ask("result_request", {"msg_ids": [header["msg_id"]]}).content["completed"] == [header["msg_id"]]


def test_who_does_not_read_is_blocked_until_it_does(world, client, engine, monkeypatch):
    monkeypatch.setattr(outbox, "BLOCKED_BYTES", 10_000)
    monkeypatch.setattr(outbox, "UNBLOCKED_BYTES", 5_000)
    monkeypatch.setattr(outbox, "MAX_BYTES", 20_000)
    world.sockets.full |= {("mux", client.route), ("registration", client.route)}
    client.apply(name_of(engine))
    answer(engine, buffers=[b"x" * 20_000])
    assert [peer["is_blocked"] for peer in world.status()["clients"]] == [True]
    client.apply(name_of(engine))
    assert answer(engine) == []
    # Others go on.
    other = StockClient(world, "other")
    other.apply(name_of(engine))
    assert len(answer(engine)) == 1
    client.send("registration", "connection_request")
    client.apply("f" * 32)
    assert world.stock_counters["unread"] == 2
    world.sockets.full.clear()
    world.pass_time(0.1)
    assert len(answer(engine)) == 1
    assert len(client.heard("mux")) == 2


def test_large_messages_count_while_they_are_under_way(world, client, engine, monkeypatch):
    monkeypatch.setattr(outbox, "BLOCKED_BYTES", 10_000)
    monkeypatch.setattr(outbox, "UNBLOCKED_BYTES", 5_000)
    monkeypatch.setattr(outbox, "LARGE_BYTES", 4_000)
    for _ in range(3):
        client.apply(name_of(engine))
    answer(engine, buffers=[b"x" * 20_000])
    (peer,) = world.status()["clients"]
    assert peer["is_blocked"]
    for dispatch in engine.messages(m.Dispatch):  # what it held before
        body = jupyter.pack_reply(jupyter.Reply(b"{}", b'{"status":"ok"}'))
        engine.say(result_of(dispatch, body, frames=1), payload=[b"x" * 20_000])
        world.turn()
    taken = len(client.heard("mux"))
    assert taken == len(world.sockets.trackers) == 1
    monkeypatch.setattr(Tracker, "done", True)
    world.pass_time(0.1)
    answer(engine)
    world.pass_time(0.1)
    answer(engine)
    assert not world.status()["clients"][0]["is_blocked"]
    assert taken + len(client.heard("mux")) == 3


# --- who comes and goes ---


def test_a_client_that_is_silent_for_long_is_forgotten(world, client, engine):
    client.ask("connection_request")
    busy = StockClient(world, "busy")
    busy.apply(name_of(engine))
    world.now += sessions.MAX_IDLE
    world.pass_time(100, 50)
    assert len(world.loop.front.clients.sessions) == 1
    answer(engine)
    assert busy.hear("mux").status == "ok"
    assert client.ask("connection_request").status == "ok"


def test_there_may_be_so_many_clients(world, monkeypatch):
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 3)
    for index in range(5):
        world.turn()
        StockClient(world, f"client {index}").ask("connection_request")
    assert len(world.loop.front.clients.sessions) == 3
    assert len(world.status()["clients"]) == 3
    engine = world.engine()
    busy = [StockClient(world, f"busy {index}") for index in range(3)]
    for one in busy:
        one.apply(name_of(engine))
    StockClient(world, "one more").send("registration", "connection_request")
    assert world.stock_counters["malformed"] == 1
    assert len(world.loop.front.clients.sessions) == 3

"""Stock clients as the controller sees them: work for our engines, message by message, in memory."""

from __future__ import annotations

import pytest

from clusterd.controller.compat import intake
from clusterd.controller.compat.announcements import LEAVING_SECONDS
from clusterd.controller.peers import Loss
from clusterd.core.wire import jupyter
from clusterd.core.wire import messages as m
from clusterd.core.wire.session import payload_digest
from tests.unit.controller.stock import StockClient, StockWorld
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


def name_of(engine):
    return engine.uuid.hex()


def answer(engine, *, content=None, status=0, buffers=(b"value",), times=(1.0, 1.5), **metadata):
    """The engine does what it has; the requests that it had."""
    done = []
    for dispatch, frames in engine.hear(m.Dispatch):
        if dispatch.kind == m.CLEAR:
            engine.say(result_of(dispatch))
            engine.world.turn()
            continue
        assert dispatch.kind == m.STOCK
        request = jupyter.unpack_request(dispatch.body)
        done.append((jupyter.dict_of(request.header, "header"), jupyter.dict_of(request.metadata, "metadata"), frames))
        said = content or {"status": "ok" if not status else "error"}
        about = {"status": said["status"], "engine": name_of(engine), **metadata}
        body = jupyter.pack_reply(jupyter.Reply(jupyter.json_of(about), jupyter.json_of(said)))
        about = {"status": status, "frames": len(buffers), "started": times[0], "finished": times[1]}
        engine.say(result_of(dispatch, body, **about), payload=list(buffers))
        engine.world.turn()
    return done


def record(client, msg_id):
    return client.ask("db_request", {"query": {"msg_id": msg_id}}).content["records"][0]


# --- one engine ---


def test_work_for_one_engine_goes_there_and_back(world, client, engine):
    client.listen()
    header = client.apply(name_of(engine), metadata={"label": "it"})
    ((given, metadata, frames),) = answer(engine)
    assert (given, metadata, [bytes(frame) for frame in frames]) == (
        header,
        {"label": "it"},
        [b"function", b"arguments"],
    )
    reply = client.hear("mux")
    assert reply.identities == [client.route, name_of(engine).encode()]
    assert (reply.kind, reply.parent, reply.status) == ("apply_reply", header, "ok")
    assert (reply.header["session"], reply.header["date"]) == (name_of(engine), "1970-01-01T00:00:01.500000Z")
    assert reply.buffers == [b"value"]
    assert client.output() == [("status", "idle", header["msg_id"])]
    (shown,) = [peer for peer in world.status()["clients"] if peer["label"] == "ipyparallel"]
    assert shown["user"] == "hand"


def test_nothing_is_published_while_nobody_listens(world, client, engine):
    client.apply(name_of(engine))
    answer(engine)
    assert world.sockets.sent["iopub"] == []
    client.listen()
    world.arrive("iopub", [b"\0"])
    client.apply(name_of(engine))
    answer(engine)
    assert world.sockets.sent["iopub"] == []


def test_what_a_task_shows_is_published_with_busy_before_and_idle_behind(world, client, engine):
    client.listen()
    header = client.apply(name_of(engine))
    (dispatch,) = engine.messages(m.Dispatch)
    shown = m.Published(
        dispatch.task, dispatch.attempt, "stream", b'{"name":"stdout","text":"x"}', b'{"engine":"e"}', 1
    )
    engine.say(shown, payload=[b"buffer"])
    engine.say(result_of(dispatch, jupyter.pack_reply(jupyter.Reply(b"{}", b'{"status":"ok"}'))))
    world.turn()
    said = [client.framing.read(frames) for frames in world.sockets.take("iopub")]
    assert [message.kind for message in said] == ["status", "stream", "status"]
    assert [message.content.get("execution_state") for message in said] == ["busy", None, "idle"]
    assert {message.parent["msg_id"] for message in said} == {header["msg_id"]}
    assert said[1].identities == [b"engine.0.stream"]
    assert (said[1].metadata, said[1].buffers) == ({"engine": "e"}, [b"buffer"])
    assert record(client, header["msg_id"])["stdout"] == "x"


def test_an_engine_that_is_not_there_is_said_at_once(client):
    header = client.apply("f" * 32)
    reply = client.hear("mux")
    assert (reply.parent, reply.content["ename"], reply.content["engine_info"]) == (header, "EngineError", {})
    assert reply.metadata["is_broadcast"] is False


def test_an_error_goes_to_the_client_as_the_engine_says_it(client, engine):
    client.apply(name_of(engine))
    said = {"status": "error", "ename": "ValueError", "evalue": "no", "traceback": [], "engine_info": {"engine_id": 0}}
    answer(engine, content=said, status=1, buffers=())
    reply = client.hear("mux")
    assert (reply.content, reply.buffers) == (said, [])


def test_a_result_that_nobody_can_read_is_an_error(client, engine):
    client.apply(name_of(engine))
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch, b"no reply"))
    engine.world.turn()
    assert client.hear("mux").content["ename"] == "EngineError"


def test_a_message_that_is_known_is_not_executed_twice(world, client, engine):
    header = client.apply(name_of(engine))
    client.apply(name_of(engine), header=header, metadata={"label": "signed anew"})
    assert len(answer(engine)) == 1
    client.apply(name_of(engine), header=header, metadata={"label": "signed once more"})
    assert answer(engine) == []
    assert len(client.heard("mux")) == 1
    assert world.stock_counters["repeated"] == 2


def test_what_is_replayed_forged_or_makes_no_sense_is_dropped_and_counted(world, client, engine):
    header = client.framing.header("apply_request")
    frames = [client.route, name_of(engine).encode(), *client.framing.frames(header, {})]
    world.arrive("mux", frames)
    world.arrive("mux", frames)
    world.arrive("mux", [*frames[:3], b"0" * 64, *frames[4:]])
    world.arrive("mux", [b"no delimiter"])
    world.arrive("mux", [client.route, *client.framing.frames(client.framing.header("apply_request"), {})])
    client.send("task", "strange_request")
    client.send("broadcast", "apply_request", metadata={"targets": 7})
    assert len(answer(engine)) == 1
    counted = {key: world.stock_counters[key] for key in ("replayed", "bad_mac", "malformed", "failed")}
    assert counted == {"replayed": 1, "bad_mac": 1, "malformed": 4, "failed": 0}


def test_a_handler_that_fails_ends_one_message(world, client, engine, monkeypatch, caplog):
    monkeypatch.setattr(intake, "find", lambda *_: 1 / 0)
    client.apply(name_of(engine))
    assert world.stock_counters["failed"] == 1
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    client.apply(name_of(engine))
    assert len(answer(engine)) == 1


@pytest.mark.parametrize("running", [None, b"", b"another"])
def test_work_of_an_engine_that_leaves_is_answered_with_the_cause_before_the_notice(world, client, engine, running):
    header = client.apply(name_of(engine))
    client.apply(name_of(engine))
    world.hub.lose_engine(world.hub.engines[engine.uuid], Loss("killed", running=running), world.now)
    world.turn()
    assert world.notices() == [("registration", 0, name_of(engine))]
    told = [message.content for message in client.heard("mux")]
    assert [content["ename"] for content in told] == ["EngineError", "EngineError"]
    assert all("killed" in content["evalue"] for content in told)
    world.pass_time(LEAVING_SECONDS + 0.01, 0.01)
    assert world.notices() == [("unregistration", 0, name_of(engine))]
    assert record(client, header["msg_id"])["result_content"]["ename"] == "EngineError"


@pytest.fixture
def recovering(tmp_path):
    return StockWorld(tmp_path, has_predecessor=True)


def test_work_for_an_engine_that_may_come_back_waits_for_it_in_order(recovering):
    client, uuid = StockClient(recovering), b"u" * 16
    first = client.apply(uuid.hex())
    assert client.heard("mux") == []
    engine = recovering.engine(uuid)
    second = client.apply(uuid.hex())
    recovering.pass_time(0.1, 0.01)
    done = [given["msg_id"] for _ in range(2) for given, _, _ in answer(engine)]
    assert done == [first["msg_id"], second["msg_id"]]


def test_work_for_one_that_does_not_is_refused_when_the_recovery_is_over(recovering, monkeypatch):
    monkeypatch.setattr(intake, "MAX_PARKED", 1)
    client = StockClient(recovering)
    client.apply("f" * 32)
    client.apply("f" * 32)
    assert client.hear("mux").content["ename"] == "EngineError"
    recovering.pass_time(10)
    assert client.hear("mux").content["ename"] == "EngineError"


@pytest.mark.parametrize("is_right", [True, False])
def test_payload_has_digests_where_the_engines_link_needs_them(world, client, engine, monkeypatch, is_right):
    front = world.loop.front
    monkeypatch.setattr(front._edge, "has_digests", True)
    header = client.apply(name_of(engine))
    (payload,) = world.tasks.payloads.values()
    assert payload.digests == [payload_digest(b"function"), payload_digest(b"arguments")]
    (dispatch,) = engine.messages(m.Dispatch)
    body = jupyter.pack_reply(jupyter.Reply(b"{}", b'{"status":"ok"}'))
    result = result_of(dispatch, body, frames=1)
    digests = [payload_digest(b"value" if is_right else b"another")]
    world.tasks.receive_engine(world.hub.engines[engine.uuid], [result], [b"value"], digests, world.now)
    reply = client.hear("mux")
    assert (reply.parent, reply.status) == (header, "ok" if is_right else "error")


def test_too_large_a_request_is_said_to_be_so(client, engine):
    client.send("mux", "apply_request", to=name_of(engine), buffers=[b""] * 1001)
    assert "too large" in client.hear("mux").content["evalue"]


def test_messages_to_comms_get_there_and_are_not_answered(world, client, engine):
    header = client.send("mux", "comm_msg", {"comm_id": "c", "data": {}}, to=name_of(engine))
    client.send("mux", "strange_msg", to=name_of(engine))
    ((given, _, _),) = answer(engine)
    assert given == header
    assert world.tasks.payloads == {}
    assert client.heard("mux") == []
    assert client.ask("history_request").content["history"] == []


# --- errors that stop what waits ---


def test_a_cell_that_raises_aborts_the_cells_behind_it(world, client, engine):
    client.execute(name_of(engine))
    waiting = client.execute(name_of(engine))
    stays = client.apply(name_of(engine))
    (dispatch,) = engine.messages(m.Dispatch)
    body = jupyter.pack_reply(jupyter.Reply(b'{"status":"error"}', b'{"status":"error"}'))
    engine.say(result_of(dispatch, body, status=1))
    world.turn()
    replies = client.heard("mux")
    assert [(reply.kind, reply.status) for reply in replies] == [
        ("execute_reply", "error"),
        ("execute_reply", "aborted"),
    ]
    assert replies[1].parent == waiting
    assert replies[1].metadata["status"] == "aborted"
    assert [given for given, _, _ in answer(engine)] == [stays]


@pytest.mark.parametrize(("silent", "held"), [(False, 1), (True, 3)])
def test_nothing_is_put_behind_a_cell_that_stops_others(world, client, engine, silent, held):
    def run_one():
        for dispatch in engine.messages(m.Dispatch):
            body = jupyter.pack_reply(jupyter.Reply(b"{}", b'{"status":"ok"}'))
            engine.say(result_of(dispatch, body, started=1.0, finished=1.0001))
            world.turn()
            engine.acknowledge()

    for _ in range(5):
        client.execute(name_of(engine), silent=silent)
        run_one()
    for _ in range(3):
        client.execute(name_of(engine), silent=silent)
    assert len(engine.messages(m.Dispatch)) == held


@pytest.mark.parametrize(("silent", "stops"), [(True, True), (False, False)])
def test_silent_cells_and_those_that_say_so_stop_nothing(world, client, engine, silent, stops):
    client.execute(name_of(engine), silent=silent, stop_on_error=stops)
    client.execute(name_of(engine))
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch, jupyter.pack_reply(jupyter.Reply(b"{}", b'{"status":"error"}')), status=1))
    world.turn()
    assert len(answer(engine)) == 1


# --- any engine ---


def test_balanced_work_comes_back_under_the_engines_name(client, engine):
    header = client.balanced()
    answer(engine)
    reply = client.hear("task")
    assert (reply.identities, reply.parent) == ([client.route, name_of(engine).encode()], header)


def test_balanced_work_goes_where_it_may(world, client, engine):
    other = world.engine()
    client.balanced(targets=[name_of(other)])
    assert len(answer(other)) == 1
    client.balanced(targets=["f" * 32])
    replies = client.heard("task")
    assert replies[1].content["ename"] == "ImpossibleDependency"
    assert replies[1].identities == [client.route]


@pytest.mark.parametrize(
    "bad", [{"after": 7}, {"follow": {"dependencies": [1]}}, {"retries": "x"}, {"timeout": "soon"}]
)
def test_options_that_make_no_sense_are_refused(client, engine, bad):
    client.balanced(**bad)
    assert client.hear("task").content["ename"] == "InvalidDependency"


def test_what_depends_on_the_unknown_is_invalid(client, engine):
    client.balanced(after=["nobody"])
    reply = client.hear("task")
    assert (reply.content["ename"], reply.content["engine_info"]) == ("InvalidDependency", {})


def test_what_can_not_be_met_is_impossible(client, engine):
    first = client.balanced()
    client.balanced(after={"dependencies": [first["msg_id"]], "all": True, "success": False, "failure": True})
    answer(engine)
    assert [reply.content.get("ename") for reply in client.heard("task")] == [None, "ImpossibleDependency"]


def test_what_waits_too_long_times_out(world, client):
    client.balanced(timeout=2.0)
    world.pass_time(3.0)
    assert client.hear("task").content["ename"] == "TaskTimeout"


def test_work_lost_with_its_engine_is_retried_and_then_an_engine_error(world, client, engine):
    client.balanced(retries=1)
    engine.say(m.Goodbye("gone"))
    world.turn()
    other = world.engine()
    world.pass_time(2.0)
    other.vanish()
    assert other.messages(m.Dispatch)
    world.hub.lose_engine(world.hub.engines[other.uuid], Loss("killed by signal 9"), world.now)
    world.turn()
    reply = client.hear("task")
    assert (reply.kind, reply.content["ename"]) == ("apply_reply", "EngineError")
    assert reply.metadata["engine"] == name_of(other)


# --- several engines ---


@pytest.fixture
def engines(world):
    return [world.engine() for _ in range(3)]


def named(engines):
    # In another order than that of their ids.
    return [(name_of(engine), engine.wire_id) for engine in reversed(engines)]


def test_a_broadcast_is_a_copy_for_each(client, engines):
    header = client.broadcast(named(engines))
    for engine in engines:
        ((given, metadata, frames),) = answer(engine)
        assert given == {**header, "msg_id": f"{header['msg_id']}_{name_of(engine)}"}
        assert metadata["original_msg_id"] == header["msg_id"]
        assert metadata["targets"] == [[name_of(engine), engine.wire_id]]
        assert [bytes(frame) for frame in frames] == [b"function"]
    replies = client.heard("broadcast")
    assert {reply.parent["msg_id"] for reply in replies} == {f"{header['msg_id']}_{name_of(e)}" for e in engines}
    assert {tuple(reply.identities) for reply in replies} == {(client.route,)}
    assert client.ask("history_request").content["history"] == []


def test_a_coalesced_reply_has_all_results_in_the_order_of_the_request(client, engines):
    header = client.broadcast(named(engines), is_coalescing=True)
    for engine in engines:
        assert client.heard("broadcast") == []
        answer(engine, buffers=[bytes([engine.wire_id]), b"more"])
    reply = client.hear("broadcast")
    assert reply.buffers == [b"\2", b"more", b"\1", b"more", b"\0", b"more"]
    assert reply.metadata["broadcast_targets"] == [list(name) for name in named(engines)]
    assert (reply.metadata["original_msg_id"], reply.metadata["is_coalescing"]) == (header["msg_id"], True)
    assert (reply.kind, reply.status) == ("apply_reply", "ok")


def test_one_error_is_the_answer_of_a_coalesced_broadcast(client, engines):
    client.broadcast(named(engines), is_coalescing=True)
    answer(engines[0])
    answer(engines[1], content={"status": "error", "ename": "ValueError"}, status=1, buffers=())
    answer(engines[2])
    reply = client.hear("broadcast")
    assert (reply.content["ename"], reply.metadata["status"], reply.buffers) == ("ValueError", "error", [])
    assert len(reply.metadata["broadcast_targets"]) == 3


@pytest.mark.parametrize("is_coalescing", [True, False])
def test_a_death_inside_a_broadcast_is_answered_and_told_by_the_notice_where_answers_are_one(
    world, client, engines, is_coalescing
):
    client.broadcast(named(engines), is_coalescing=is_coalescing)
    answer(engines[0])
    engines[1].say(m.Goodbye("gone"))
    world.turn()
    answer(engines[2])
    assert len(client.heard("broadcast")) == (0 if is_coalescing else 3)


@pytest.mark.parametrize("is_coalescing", [True, False])
def test_a_broadcast_to_somebody_who_is_not_there_is_an_error(client, engine, is_coalescing):
    header = client.broadcast([("f" * 32, 7), (name_of(engine), 0)], is_coalescing=is_coalescing)
    answer(engine)
    replies = client.heard("broadcast")
    assert [reply.status for reply in replies] == (["error"] if is_coalescing else ["error", "ok"])
    assert {reply.metadata.get("original_msg_id") for reply in replies} <= {header["msg_id"], None}

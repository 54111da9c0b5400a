"""Tasks of stock clients and on stock engines, where tasks are durable: in memory, with chosen commits and deaths of the controller."""

from __future__ import annotations

import pytest

from clusterd.controller.recovery import place
from clusterd.core.wire import jupyter
from clusterd.core.wire import messages as m
from tests.unit.controller.durable import NOW, Cluster, DurableStockWorld
from tests.unit.controller.stock import StockClient, StockEngine
from tests.unit.controller.test_stock_clients import answer as answered
from tests.unit.controller.test_stock_clients import name_of, record
from tests.unit.controller.world import result_of

HERE = place("engines", "here")


@pytest.fixture
def cluster(isolated):
    root = isolated.root / "profile"
    root.mkdir(mode=0o700)
    cluster = Cluster(root, DurableStockWorld)
    yield cluster
    cluster.world.reins.may_write.set()
    cluster.world.store.close()


class Client(StockClient):
    """One that waits for commits."""

    def ask(self, kind, content=None):
        self.send("registration", kind, content)
        self.world.commit()
        return self.hear("registration")


@pytest.fixture
def client(cluster):
    return Client(cluster.world).listen()


def answer(engine, **how):
    return answered(engine, times=(NOW, NOW + 1), **how)


def late(engine, dispatch):
    """Its result, after all."""
    body = jupyter.pack_reply(jupyter.Reply(b'{"status":"ok"}', b'{"status":"ok"}'))
    engine.say(result_of(dispatch, body, started=NOW, finished=NOW + 1))
    engine.world.turn()
    engine.world.commit()


def run(world, engine, **how):
    """The engine does all that it is given, one after another; the headers of what it did."""
    done = []
    while True:
        world.commit()
        ran = answer(engine, **how)
        if not ran:
            return done
        done += [header for header, _, _ in ran]


def parents(replies):
    return [reply.parent["msg_id"] for reply in replies]


def ids(*headers):
    return [header["msg_id"] for header in headers]


def result(client, header):
    """What the store says of a task: (status, result content)."""
    content = client.ask("result_request", {"msg_ids": [header["msg_id"]], "status_only": False}).content
    if header["msg_id"] in content["pending"]:
        return "pending"
    return content[header["msg_id"]]["result_content"]["status"]


# --- output commit ---


def test_nothing_is_given_out_before_it_is_written_down(cluster, client):
    world = cluster.world
    engine, stock = world.engine(), StockEngine(world).join()
    world.commit()
    world.hold()
    client.apply(name_of(engine))
    client.apply(stock.name)
    world.pass_time(0.5)
    assert engine.messages(m.Dispatch) == []
    assert stock.requests() == []
    world.commit()
    assert len(engine.messages(m.Dispatch)) == len(stock.requests()) == 1


def test_a_result_is_written_down_before_its_client_hears_of_it(cluster, client):
    world = cluster.world
    engine = world.engine()
    header = client.apply(name_of(engine))
    world.commit()
    world.hold()
    answer(engine)
    world.pass_time(0.5)
    client.send("registration", "result_request", {"msg_ids": [header["msg_id"]]})
    assert client.heard("mux") == client.heard("registration") == client.output() == []
    world.commit()
    assert parents(client.heard("mux")) == ids(header)
    assert client.hear("registration").content["completed"] == ids(header)
    assert client.output() == [("status", "idle", header["msg_id"])]
    world.commit()
    assert world.store.owed_to(client.framing.session) == []


def test_work_is_refused_while_it_cannot_be_written_down(cluster, client):
    world = cluster.world
    engine = world.engine()
    first = client.apply(name_of(engine))
    world.commit()
    world.reins.trouble = "no space left on device"
    answer(engine)
    world.store.flush(0.5)
    world.turn()
    assert parents(client.heard("mux")) == ids(first)
    second = client.balanced()
    world.turn()
    reply = client.hear("task")
    assert (reply.parent, reply.content["ename"]) == (second, "StorageError")
    assert "no space left" in reply.content["evalue"]
    third = client.broadcast([(name_of(engine), engine.wire_id)], is_coalescing=True)
    world.turn()
    assert (client.hear("broadcast").content["ename"], third["msg_id"]) == ("StorageError", third["msg_id"])
    world.reins.trouble = ""
    world.commit()
    world.commit()
    again = client.balanced()
    world.commit()
    assert [header["msg_id"] for header in run(world, engine)] == ids(again)


def test_no_more_is_read_than_the_store_can_write(cluster, client):
    front = cluster.world.loop.front
    held = []
    cluster.world.sockets.hold = lambda names: held.append(set(names))
    front.hold_work(is_held=True)
    front.hold_work(is_held=False)
    assert held == [{"mux", "task", "broadcast", "mux_engine", "task_engine", "broadcast_engine"}, set()]


# --- the controller is killed ---


def test_a_task_that_waits_is_taken_up_and_its_client_is_told_with_its_next_work(cluster, client):
    world = cluster.world
    headers = [client.balanced(label="one"), client.balanced()]
    world.commit()
    world = cluster.succeed()
    engine = world.engine()
    done = run(world, engine, label="one")
    assert done == headers
    cluster.here(client).listen()
    assert [result(client, header) for header in headers] == ["ok", "ok"]
    assert world.sockets.sent["task"] == []
    mine = client.balanced()
    world.commit()
    replies = client.heard("task")
    assert parents(replies) == ids(*headers)
    assert replies[0].metadata["label"] == "one"
    assert replies[0].buffers == [b"value"]
    assert client.output() == [("status", "idle", msg_id) for msg_id in ids(*headers)]
    run(world, engine)
    world.commit()
    client.balanced()
    world.commit()
    assert parents(client.heard("task")) == ids(mine)
    assert [result(client, header) for header in headers] == ["ok", "ok"]


def test_replies_go_by_the_channel_on_which_the_client_has_spoken(cluster, client):
    world = cluster.world
    engine = world.engine()
    direct = client.apply(name_of(engine))
    world.commit()
    assert len(engine.messages(m.Dispatch)) == 1
    world = cluster.succeed([HERE])
    world.agent(engines=[m.EngineState(engine.uuid, 0, 1, "idle", id=engine.wire_id)])
    cluster.here(client)
    client.balanced()
    engine = cluster.back(engine, engine.attach_message(held=[], wanted_id=engine.wire_id))
    world.pass_time(11.0)
    run(world, engine)
    assert direct["msg_id"] in parents(client.heard("task"))
    assert client.heard("mux") == []


def test_a_task_that_an_engine_runs_is_found_there(cluster, client):
    world = cluster.world
    engine = world.engine()
    header = client.apply(name_of(engine))
    world.commit()
    (dispatch,) = engine.messages(m.Dispatch)
    world = cluster.succeed([HERE])
    state = m.EngineState(engine.uuid, 0, 1, "running", dispatch.task, 0, id=engine.wire_id)
    world.agent(engines=[state])
    engine = cluster.back(engine, engine.attach_message(held=[(dispatch.task, 0)], wanted_id=engine.wire_id))
    world.pass_time(11.0)
    world.commit()
    assert engine.messages(m.Dispatch) == []
    late(engine, dispatch)
    cluster.here(client)
    client.send("mux", "comm_msg", to=name_of(engine))
    world.commit()
    assert parents(client.heard("mux")) == ids(header)


def test_a_reply_is_sent_once_at_the_most(cluster, client):
    world = cluster.world
    engine = world.engine()
    header = client.apply(name_of(engine))
    world.commit()
    world.hold()
    answer(engine)
    world.reins.may_write.set()
    assert world.store.flush()
    # It is written down, and is about to be said.
    assert client.heard("mux") == []
    world = cluster.succeed()
    cluster.here(client)
    client.balanced()
    world.commit()
    assert client.heard("task") == []
    assert result(client, header) == "ok"


def test_a_question_brings_no_replies(cluster, client):
    world = cluster.world
    header = client.balanced()
    world.commit()
    world = cluster.succeed()
    run(world, world.engine())
    cluster.here(client)
    client.ask("queue_request", {"targets": None})
    client.send("control", "abort_request", {"msg_ids": []}, to="f" * 32)
    world.commit()
    assert [world.sockets.sent[channel] for channel in ("mux", "task", "broadcast")] == [[], [], []]
    client.balanced()
    world.commit()
    assert parents(client.heard("task")) == ids(header)


def test_what_a_client_does_not_read_stays_in_the_store(cluster, client):
    world = cluster.world
    engine = world.engine()
    world.sockets.full.add(("mux", client.route))
    headers = [client.apply(name_of(engine)) for _ in range(5)]
    run(world, engine)
    session = world.loop.front.clients.sessions.all()[0]
    assert len(session.waiting["mux", client.route]) == 1
    assert len(world.store.owed_to(client.framing.session)) == 4
    world.sockets.full.clear()
    for _ in range(4):
        world.turn(0.01)
        world.commit()
    assert parents(client.heard("mux")) == ids(*headers)
    assert world.store.owed_to(client.framing.session) == []
    assert world.loop.front.clients.arrears._payments == {}


def test_a_client_that_was_away_is_told_with_its_next_work(cluster, client):
    world = cluster.world
    engine = world.engine()
    headers = [client.apply(name_of(engine)), client.apply(name_of(engine))]
    world.sockets.away.add(("mux", client.route))
    run(world, engine)
    assert client.heard("mux") == []
    world.sockets.away.clear()
    client.route += b" again"
    client.balanced()
    world.commit()
    assert parents(client.heard("task")) == ids(*headers)
    world.commit()
    client.balanced()
    world.commit()
    assert client.heard("task") == []


def test_much_that_is_due_is_sent_as_it_is_taken(cluster, client, monkeypatch):
    monkeypatch.setattr("clusterd.controller.compat.arrears.PAGE", 3)
    world = cluster.world
    headers = [client.balanced() for _ in range(10)]
    world.commit()
    world = cluster.succeed()
    engine = world.engine()
    run(world, engine)
    assert world.tasks.payloads == {}
    cluster.here(client)
    world.sockets.full.add(("task", client.route))
    client.balanced()
    for _ in range(10):
        world.commit()
    # No more is read from the store than the client has room for.
    assert len(world.store.owed_to(client.framing.session)) == 7
    world.sockets.full.clear()
    for _ in range(10):
        world.pass_time(0.02, 0.01)
        world.commit()
    assert parents(client.heard("task")) == ids(*headers)


def test_a_session_that_never_comes_back_costs_nothing_but_records(cluster, client):
    world = cluster.world
    for _ in range(5):
        client.balanced()
    world.commit()
    world = cluster.succeed()
    run(world, world.engine())
    arrears = world.loop.front.clients.arrears
    assert (arrears._payments, arrears._groups) == ({}, {})
    assert len(world.store.owed_to(client.framing.session)) == 5
    world.pass_time(25 * 3600, 3600)
    assert len(world.loop.front.clients.sessions) == 0


def test_what_a_predecessor_was_sent_is_not_executed_again(cluster, client):
    world = cluster.world
    engine = world.engine()
    header = client.balanced()
    whole = client.broadcast([(name_of(engine), engine.wire_id)])
    run(world, engine)
    world = cluster.succeed()
    engine = world.engine()
    cluster.here(client)
    world.loop.front.clients.intake._edge.tasks.ledger._since += 60
    client.send("task", "apply_request", header=header, buffers=[b"function"])
    metadata = {"targets": [[name_of(engine), engine.wire_id]], "is_broadcast": True, "is_coalescing": False}
    client.send("broadcast", "apply_request", header=whole, metadata=metadata, buffers=[b"function"])
    assert run(world, engine) == []
    assert world.stock_counters["repeated"] == 2


def test_dependencies_that_have_ended_are_not_waited_for_again(cluster, client):
    world = cluster.world
    engine = world.engine()
    ended = client.balanced()
    run(world, engine)
    held = client.balanced()
    world.commit()
    (dispatch,) = engine.messages(m.Dispatch)
    waiting = client.balanced(after=ids(ended, held))
    world.commit()
    world = cluster.succeed([HERE])
    world.agent(engines=[m.EngineState(engine.uuid, 0, 1, "idle", id=engine.wire_id)])
    other = world.engine(slot=1)
    cluster.here(client)
    later = client.balanced(after=ids(held))
    free = client.balanced(after=ids(ended))
    world.pass_time(11.0)
    assert ids(*run(world, other)) == ids(free)
    engine = cluster.back(engine, engine.attach_message(held=[(dispatch.task, 0)], wanted_id=engine.wire_id))
    world.commit()
    late(engine, dispatch)
    ran = run(world, engine) + run(world, other)
    assert sorted(ids(*ran)) == sorted(ids(waiting, later))
    assert result(client, waiting) == result(client, later) == "ok"


def test_what_is_run_once_more_goes_on_and_is_told_to_nobody(cluster, client):
    world = cluster.world
    engine = world.engine()
    header = client.balanced()
    run(world, engine)
    client.heard("task")
    client.send("registration", "resubmit_request", {"msg_ids": ids(header)})
    world.commit()
    (again,) = client.hear("registration").content["resubmitted"].values()
    world.commit()
    world = cluster.succeed()
    engine = world.engine()
    world.pass_time(3.0)
    assert [header["msg_id"] for header in run(world, engine)] == [again]
    cluster.here(client)
    client.balanced()
    world.commit()
    assert client.heard("task") == []
    assert record(client, again)["result_content"] == {"status": "ok"}


# --- broadcasts ---


@pytest.mark.parametrize("is_coalescing", [True, False])
@pytest.mark.parametrize("ended", [0, 1, 2])
def test_a_broadcast_is_taken_up(cluster, client, is_coalescing, ended):
    world = cluster.world
    engines = [world.engine(slot=slot) for slot in range(2)]
    names = [(name_of(engine), engine.wire_id) for engine in engines]
    header = client.broadcast(names, is_coalescing=is_coalescing)
    world.commit()
    for engine in engines[:ended]:
        world.sockets.away.add(("broadcast", client.route))
        answer(engine, buffers=[b"of " + str(engine.wire_id).encode()], is_coalescing=is_coalescing)
        world.commit()
    world.commit()
    held = [[(each.task, each.attempt) for each in engine.messages(m.Dispatch)] for engine in engines]
    world = cluster.succeed([HERE])
    states = [m.EngineState(each.uuid, slot, 1, "idle", id=each.wire_id) for slot, each in enumerate(engines)]
    world.agent(engines=states)
    engines = [
        cluster.back(each, each.attach_message(held=[], wanted_id=each.wire_id, slot=slot))
        for slot, each in enumerate(engines)
    ]
    world.pass_time(11.0)
    for engine in engines:
        ran = run(world, engine, buffers=[b"of " + str(engine.wire_id).encode()], is_coalescing=is_coalescing)
        assert len(ran) == len(held[engine.wire_id])
    assert world.store.history() == []
    assert client.framing.session
    cluster.here(client)
    client.balanced()
    world.commit()
    replies = client.heard("task")
    if is_coalescing:
        (reply,) = replies
        assert reply.buffers == [b"of 0", b"of 1"]
        assert reply.metadata["broadcast_targets"] == [list(name) for name in names]
        assert reply.metadata["original_msg_id"] == header["msg_id"]
    else:
        assert sorted(parents(replies)) == sorted(f"{header['msg_id']}_{name}" for name, _ in names)
    world.commit()
    assert world.store.owed_to(client.framing.session) == []
    assert world.loop.front.clients.arrears._groups == {}


def test_parts_that_were_not_written_down_are_made_anew(cluster, client):
    world = cluster.world
    engines = [world.engine(slot=slot) for slot in range(2)]
    names = [(name_of(engine), engine.wire_id) for engine in engines]
    whole = client.broadcast([*names, ("f" * 32, 9)], is_coalescing=True)
    world.commit()
    world.store.flush()
    connection = world.store.file._writer
    connection.execute("DELETE FROM tasks WHERE msg_id LIKE ?", (f"%{name_of(engines[1])}",))
    world = cluster.succeed([HERE])
    engines = [cluster.back(each, each.attach_message(wanted_id=each.wire_id)) for each in engines]
    world.pass_time(11.0)
    done = [header["msg_id"] for engine in engines for header in run(world, engine)]
    assert sorted(done) == sorted(f"{whole['msg_id']}_{name}" for name, _ in names)
    cluster.here(client)
    client.balanced()
    world.commit()
    reply = client.hear("task")
    assert reply.content["ename"] == "EngineError"
    assert "f" * 32 in reply.content["evalue"]


def test_a_broadcast_is_not_shown(cluster, client):
    world = cluster.world
    engine = world.engine()
    header = client.broadcast([(name_of(engine), engine.wire_id)])
    assert len(run(world, engine)) == 1
    assert client.ask("history_request").content["history"] == []
    assert client.ask("db_request", {"query": {}}).content["records"] == []
    client.send("registration", "result_request", {"msg_ids": ids(header)})
    world.turn()
    assert client.hear("registration").content["ename"] == "KeyError"


# --- stock engines ---


@pytest.fixture
def stock(cluster):
    return StockEngine(cluster.world).join()


def succeed_with(cluster, stock):
    """The next controller, for which the stock engine has not beaten yet."""
    world = cluster.succeed()
    cluster.here(stock)
    return world


def test_a_late_result_of_a_stock_engine_is_matched(cluster, client, stock):
    world = cluster.world
    header = client.apply(stock.name)
    world.commit()
    (request,) = stock.requests()
    world = succeed_with(cluster, stock)
    world.beat(stock)
    world.commit()
    (question,) = stock.requests()
    assert question.kind == "kernel_info_request"
    world.pass_time(3.0, 0.25)
    stock.reply(request)
    world.commit()
    stock.reply(question)
    world.commit()
    assert stock.requests() == []
    cluster.here(client)
    client.balanced()
    world.commit()
    assert parents(client.heard("task")) == ids(header)


def test_a_result_may_come_before_the_engine_has_beaten(cluster, client, stock):
    world = cluster.world
    header = client.apply(stock.name)
    world.commit()
    (request,) = stock.requests()
    world = succeed_with(cluster, stock)
    stock.reply(request)
    (question,) = stock.requests()
    stock.reply(question)
    world.pass_time(1.0, 0.25)
    world.commit()
    assert stock.requests() == []
    assert result(cluster.here(client), header) == "ok"


def test_what_a_stock_engine_has_not_got_is_given_to_it_again(cluster, client, stock):
    world = cluster.world
    header = client.apply(stock.name)
    world.commit()
    (first,) = stock.requests()
    world = succeed_with(cluster, stock)
    world.beat(stock)
    world.commit()
    (question,) = stock.requests()
    stock.reply(question)
    world.pass_time(0.5, 0.25)
    world.commit()
    (again,) = stock.requests()
    assert (again.header["msg_id"], again.header["attempt"]) == (header["msg_id"], 1)
    stock.reply(first)
    world.commit()
    assert result(cluster.here(client), header) == "pending"
    stock.reply(again)
    world.commit()
    assert result(client, header) == "ok"


@pytest.mark.parametrize("how", ["it does not beat", "its nanny says so", "it beats and dies"])
@pytest.mark.parametrize("retries", [0, 1])
def test_a_stock_engine_that_died_with_a_task(cluster, client, stock, how, retries):
    world = cluster.world
    header = client.balanced(retries=retries)
    world.commit()
    assert len(stock.requests()) == 1
    world = succeed_with(cluster, stock)
    other = world.engine()
    world.commit()
    if how == "it beats and dies":
        world.beat(stock)
        stock.unregister()
    elif how == "its nanny says so":
        stock.unregister()
    world.pass_time(12.0, 0.2)
    assert ids(*run(world, other)) == ids(header)[:retries]
    cluster.here(client)
    client.send("mux", "comm_msg", to="f" * 32)
    world.commit()
    reply = client.hear("mux")
    assert reply.parent["msg_id"] == header["msg_id"]
    if not retries:
        assert (reply.content["ename"], reply.content["engine_info"]) == ("EngineError", {})
        assert stock.name in reply.content["evalue"]


def test_a_native_task_on_a_stock_engine_is_asked_for_too(cluster, stock):
    world = cluster.world
    client = world.client()
    client.say(m.Submit(b"t" * 16, m.EXECUTE, b"", stock.id, b"1"))
    world.turn()
    world.hold()
    world.commit()
    assert [request.kind for request in stock.requests()] == ["apply_request"]
    world = succeed_with(cluster, stock)
    world.beat(stock)
    world.commit()
    (question,) = stock.requests()
    stock.reply(question)
    world.pass_time(0.5, 0.25)
    world.commit()
    assert [request.kind for request in stock.requests()] == ["apply_request"]
    assert client.uuid in world.hub.clients

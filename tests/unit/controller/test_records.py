"""What is recorded of tasks, and when; what that leaves out."""

from __future__ import annotations

import pytest

from clusterd.controller import records
from clusterd.controller.compat.origin import Origin, metadata_of
from clusterd.controller.queues import outstanding
from clusterd.controller.submits import submitted
from clusterd.core.wire import jupyter
from clusterd.core.wire import messages as m
from clusterd.errors import UnknownTask
from clusterd.storage.taskstore.query import parse
from clusterd.storage.taskstore.record import record_of, request_buffers, result_buffers
from clusterd.storage.taskstore.row import parse_place
from tests.unit.controller.world import Peer, World, result_of, submit, task_id


def record(world, task: bytes) -> dict:
    return record_of(world.store.get(task.hex()))


def test_a_task_is_recorded_from_its_acceptance_to_its_end(world):
    client = world.client()
    task = task_id()
    client.say(submit(task, options=m.TaskOptions(label="mine")))
    world.turn()
    waiting = record(world, task)
    assert waiting["client_uuid"] == client.uuid.hex()
    assert (waiting["engine_uuid"], waiting["completed"], waiting["label"]) == (None, None, "mine")
    engine = world.engine()
    world.turn()
    assert record(world, task)["engine_uuid"] == engine.uuid.hex()
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch, b"value", stdout="hello\n", stderr="oh"))
    world.turn()
    ended = record(world, task)
    assert (ended["stdout"], ended["stderr"]) == ("hello\n", "oh")
    assert ended["result_content"] == {"status": "ok"}
    assert ended["header"]["msg_type"] == "execute_request"
    assert [ended[key].timestamp() for key in ("started", "completed")] == [1.0, 1.5]
    assert result_buffers(world.store.get(task.hex())) == [b"value"]
    assert ended["submitted"] <= ended["received"]


def test_what_ran_and_where_can_be_read_when_both_are_gone(world):
    client = world.client()
    engine = world.engine(engine_set="engines", slot=3, pid=4711, host="node 1")
    digest = b"d" * 16
    client.say(m.Function(digest, "fit" * 1000, "", b"code"))
    world.run(client, engine, task=(task := task_id()), function=digest, kind=m.APPLY)
    row = world.store.get(task.hex())
    assert parse_place(row.place) == ("engines/3", 4711, "node 1")
    assert row.name == ("fit" * 1000)[:256]
    assert record_of(row, ["place", "name"])["place"] == "engines/3 4711 node 1"


def test_what_is_for_one_engine_is_in_its_queue(world):
    client, engine = world.client(), world.engine()
    one, some = task_id(), task_id()
    client.say(submit(one, target=engine.wire_id), submit(some, target=[engine.wire_id]))
    world.turn()
    assert (record(world, one)["queue"], record(world, some)["queue"]) == ("mux", "task")


def test_an_error_and_a_task_without_a_result(world):
    client, engine = world.client(), world.engine()
    failing, impossible = task_id(), task_id()
    client.say(submit(failing), submit(impossible, target=99))
    world.turn()
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch, b"not a failure", status=1))
    world.turn()
    assert record(world, failing)["result_content"]["status"] == "error"
    row = world.store.get(impossible.hex())
    assert row.outcome.status == "unschedulable"
    assert record_of(row)["result_content"]["ename"] == "ImpossibleDependency"


def test_an_aborted_task(world):
    client = world.client()
    task = task_id()
    client.say(submit(task))
    world.turn()
    world.tasks.abort(world.hub.clients[client.uuid], [task], None, world.now)
    assert record(world, task)["result_content"] == {"status": "aborted"}


def test_a_retried_task_has_one_record_and_the_engine_that_has_it_now(world):
    client, first, second = world.client(), world.engine(), world.engine()
    task = task_id()
    client.say(submit(task, options=m.TaskOptions(retries=1)))
    world.turn()
    for _ in range(2):
        for engine in (first, second):
            for dispatch in engine.messages(m.Dispatch):
                engine.say(result_of(dispatch, status=1))
        world.turn()
    row = world.store.get(task.hex())
    assert (row.attempt, row.outcome.status) == (1, "error")
    assert len(world.store.history()) == 1


def test_a_repeat_of_an_ended_task_changes_nothing(world):
    client, engine = world.client(), world.engine()
    task = task_id()
    world.run(client, engine, task=task)
    client.say(submit(task, body=b"other"))
    world.turn()
    row = world.store.get(task.hex())
    assert (row.outcome.status, row.body) == ("ok", b"body")


def test_when_its_client_is_gone_the_record_is_ended(world):
    client, engine = world.client(), world.engine()
    running, queued = task_id(), task_id()
    client.say(submit(running, target=engine.wire_id), submit(queued, target=engine.wire_id))
    world.turn()
    client.say(m.Goodbye("done"))
    world.turn()
    assert world.store.get(queued.hex()).outcome.status == "aborted"
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch))
    world.turn()
    assert world.store.get(running.hex()).outcome.status == "ok"
    assert world.store.query(parse({"completed": None})) == []
    assert world.store.size().pending == 0


def test_nothing_is_recorded_where_nothing_is_kept(tmp_path):
    world = World(tmp_path, database="none")
    client, engine = world.client(), world.engine()
    assert len(world.run(client, engine)) == 1
    assert world.tasks.recorder is None
    assert world.store.size() == (0, 0, 0)


def test_a_large_request_is_recorded_without_its_arguments(world):
    client, engine = world.client(), world.engine()
    world.store.max_request = 100
    task = task_id()
    client.say(submit(task, frames=1), payload=[b"x" * 200])
    world.turn()
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch))
    world.turn()
    row = world.store.get(task.hex())
    assert (row.is_whole, list(row.buffers), row.outcome.status) == (False, [], "ok")


# --- stock tasks ---

DATE = "2026-01-31T12:00:00.000001Z"
HEADER = b'{"msg_id":"m-1","msg_type":"execute_request","session":"s-1","date":"%s"}' % DATE.encode()


class Stock:
    """A stock task, as the door hands it over, on an engine of ours."""

    def __init__(self, world, metadata: bytes = b'{"label":"l"}', kind: int = m.STOCK, target: int | None = None):
        self.world = world
        self.engine = world.engine()
        client = world.client()
        body = jupyter.pack_request(jupyter.Request(HEADER, b"{}", metadata, b'{"code":"1/0"}'))
        message = submit(b"m-1", kind=kind, body=body, frames=1, target=target)
        peer = world.hub.clients[client.uuid]
        event = submitted(message, peer.handle, [b"buffer"])
        origin = Origin("task", b"", HEADER, jupyter.header_of(HEADER), metadata_of(metadata))
        world.tasks.accept(peer, message, [b"buffer"], event, origin, world.now)
        world.turn()
        (self.dispatch,) = self.engine.messages(m.Dispatch)

    def publish(self, what: str, content: bytes) -> None:
        self.engine.say(m.Published(b"m-1", 0, what, content))
        self.world.turn()

    def reply(self, content: bytes = b'{"status":"ok"}', status: int = 0, header: bytes = b"") -> None:
        body = jupyter.pack_reply(jupyter.Reply(b'{"engine":"e"}', content, header))
        self.engine.say(result_of(self.dispatch, body, status=status, frames=1), payload=[b"out"])
        self.world.turn()

    @property
    def record(self) -> dict:
        return record_of(self.world.store.get("m-1"))


@pytest.fixture
def stock(world):
    return Stock(world)


def test_a_stock_task_is_recorded_as_it_came(stock):
    record = stock.record
    assert (record["client_uuid"], record["label"], record["queue"]) == ("s-1", "l", "task")
    assert record["submitted"].isoformat() == "2026-01-31T12:00:00.000001+00:00"
    assert (record["content"], record["metadata"]) == ({"code": "1/0"}, {"label": "l"})
    stock.reply()
    row = stock.world.store.get("m-1")
    assert request_buffers(row) == [b"buffer"]
    assert result_buffers(row) == [b"out"]
    assert stock.record["result_metadata"] == {"engine": "e"}
    assert stock.record["result_header"]["msg_type"] == "execute_reply"


def test_the_reply_of_a_stock_engine_keeps_its_own_header_and_date(stock):
    stock.reply(header=b'{"msg_id":"r","msg_type":"execute_reply","date":"2026-01-31T12:00:07Z"}')
    assert stock.record["result_header"]["msg_id"] == "r"
    assert stock.record["completed"].isoformat() == "2026-01-31T12:00:07+00:00"


def test_an_aborted_reply(stock):
    stock.reply(b'{"status":"aborted"}', status=1)
    assert stock.world.store.get("m-1").outcome.status == "aborted"


def test_what_a_stock_task_shows_is_merged(stock):
    stock.publish("execute_input", b'{"code":"print(1)","execution_count":3}')
    for text in (b"one ", b"two"):
        stock.publish("stream", b'{"name":"stdout","text":"%s"}' % text)
    stock.publish("stream", b'{"name":"stderr","text":"bad"}')
    stock.publish("execute_result", b'{"data":{"text/plain":"1"}}')
    stock.publish("error", b'{"ename":"E"}')
    stock.publish("display_data", b'{"data":{}}')
    stock.publish("stream", b"[not a dictionary")
    record = stock.record
    assert (record["stdout"], record["stderr"]) == ("one two", "bad")
    assert record["execute_input"] == "print(1)"
    assert record["execute_result"] == {"data": {"text/plain": "1"}}
    assert record["error"] == {"ename": "E"}


def test_what_is_shown_after_the_end_is_merged_too(stock):
    stock.reply()
    recorder = stock.world.tasks.recorder
    recorder.output("m-1", "stream", b'{"name":"stdout","text":"late"}')
    recorder.output("unknown", "stream", b'{"name":"stdout","text":"x"}')
    assert stock.record["stdout"] == "late"


@pytest.mark.parametrize(
    "fields", [{"metadata": b'{"is_broadcast":true}'}, {"kind": m.CLEAR}], ids=["broadcast", "control"]
)
def test_broadcasts_and_control_requests_are_not_recorded(world, fields):
    Stock(world, **fields)
    with pytest.raises(UnknownTask):
        world.store.get("m-1")


# --- what clients ask ---


@pytest.fixture
def asked(world):
    """(world, data connection, control connection of the same client, engine, ids of two tasks that have ended)."""
    client, engine = world.client(), world.engine()
    control = Peer(world, "client", "control", client.uuid)
    control.token = client.token
    control.attach()
    tasks = [task_id(), task_id()]
    for number, task in enumerate(tasks):
        world.run(client, engine, task=task, options=m.TaskOptions(label=f"l{number}"))
    return world, client, control, engine, tasks


def test_records_are_asked_for(asked):
    world, _, control, engine, tasks = asked
    answer = world.ask(control, m.QueryTasks(1, {"label": {"$glob": "l*"}}, ["label", "status", "result_buffers"]))
    assert answer.value == [
        {"msg_id": task.hex(), "label": f"l{number}", "status": "ok", "result_buffers": [b"value"]}
        for number, task in enumerate(tasks)
    ]
    (first,) = world.ask(control, m.QueryTasks(2, {}, None, 1)).value
    assert first["msg_id"] == tasks[0].hex()
    assert first["completed"].timestamp() == 1.5
    assert first["engine_uuid"] == engine.uuid.hex()
    assert "buffers" not in first


@pytest.mark.parametrize(
    ("query", "keys"), [({"colour": 1}, None), ({"label": {"$x": 1}}, None), ({}, ["colour"])], ids=repr
)
def test_a_question_without_meaning(asked, query, keys):
    world, _, control, _, _ = asked
    answer = world.ask(control, m.QueryTasks(1, query, keys))
    assert (answer.code, answer.request) == ("bad_query", 1)


def test_an_answer_that_is_too_large(asked, monkeypatch):
    world, _, control, _, _ = asked
    monkeypatch.setattr(records, "MAX_REPLY", 2500)
    assert world.ask(control, m.QueryTasks(1, {})).code == "bad_query"
    assert len(world.ask(control, m.QueryTasks(2, {}, None, 1)).value) == 1


def test_records_are_purged(asked):
    world, client, control, _, tasks = asked
    client.say(submit(target=0))
    world.turn()
    assert world.ask(control, m.PurgeTasks(1, [tasks[0], b"unknown"])).value == {"purged": 1}
    assert world.ask(control, m.PurgeTasks(2)).value == {"purged": 1}
    assert world.store.size()[:2] == (1, 1)


def test_a_task_is_run_once_more(asked):
    world, client, control, engine, tasks = asked
    again = task_id()
    answer = world.ask(control, m.Resubmit(1, [tasks[0]], [again]))
    assert answer.value == {"resubmitted": [again]}
    (dispatch,) = engine.messages(m.Dispatch)
    assert (dispatch.task, dispatch.body, dispatch.kind) == (again, b"body", m.EXECUTE)
    engine.say(result_of(dispatch))
    world.turn()
    assert [message.task for message in client.messages(m.Deliver)] == [again]
    assert record(world, tasks[0])["resubmitted"] == again.hex()
    assert (record(world, again)["label"], record(world, again)["queue"]) == ("l0", "task")


def test_what_is_run_once_more_is_not_taken_twice(asked):
    world, client, control, engine, tasks = asked
    again = task_id()
    world.ask(control, m.Resubmit(1, [tasks[0]], [again]))
    # Its original may go meanwhile.
    assert world.ask(control, m.PurgeTasks(2, [tasks[0]])).value == {"purged": 1}
    assert world.ask(control, m.Resubmit(3, [tasks[0]], [again], True)).value == {"resubmitted": [again]}
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch))
    world.turn()
    assert [message.task for message in client.messages(m.Deliver)] == [again]
    assert record(world, again)["resubmitted"] is None
    # One that only its predecessor's client knows of.
    other = task_id()
    assert world.ask(control, m.Resubmit(4, [tasks[1]], [other], True)).value == {"resubmitted": [other]}
    assert [message.task for message in engine.messages(m.Dispatch)] == [other]
    assert (
        world.ask(control, m.Resubmit(5, [b"\xff" * 16], [task_id()], True)).message == f"no record of task {'ff' * 16}"
    )


def test_all_of_them_are_run_once_more_or_none(asked):
    world, _, control, engine, tasks = asked
    answer = world.ask(control, m.Resubmit(1, [tasks[0], b"\xff" * 16], [task_id(), task_id()]))
    assert (answer.code, answer.message) == ("unknown_task", f"no record of task {'ff' * 16}")
    world.store.get(tasks[1].hex()).is_whole = False
    assert world.ask(control, m.Resubmit(2, tasks, [task_id(), task_id()])).code == "bad_query"
    assert world.ask(control, m.Resubmit(3, tasks, [task_id()])).code == "bad_query"
    assert engine.messages(m.Dispatch) == []


def test_an_answer_is_no_larger_than_a_header_may_be(asked, monkeypatch):
    world, _, control, _, tasks = asked
    assert m.Limits().max_header > records.MAX_REPLY
    monkeypatch.setattr(records, "MAX_REPLY", 3000)
    query = m.QueryTasks(1, {"msg_id": tasks[0].hex()}, ["metadata"])
    assert isinstance(world.ask(control, query), m.Reply)
    # What only its encoding shows.
    world.store.get(tasks[0].hex()).label = "x" * 3000
    assert world.ask(control, query).code == "bad_query"


def test_a_function_that_nobody_has_any_more(asked):
    world, _, control, _, tasks = asked
    row = world.store.get(tasks[0].hex())
    row.function = b"f" * 16
    answer = world.ask(control, m.Resubmit(1, [tasks[0]], [task_id()]))
    assert "not here any more" in answer.message


def test_the_status_tells_of_the_records(asked):
    world, *_ = asked
    told = world.status()["records"]
    assert {key: told[key] for key in ("database", "records", "pending", "trouble", "lost")} == {
        "database": "memory",
        "records": 2,
        "pending": 0,
        "trouble": "",
        "lost": 0,
    }


def test_where_nothing_is_kept_that_is_the_answer(tmp_path):
    world = World(tmp_path, database="none")
    control = world.client("control")
    for message in (m.QueryTasks(1, {}), m.PurgeTasks(1), m.Resubmit(1, [b"x"], [b"y"])):
        assert world.ask(control, message).code == "no_records"


def test_a_retried_task_is_completed_once(world):
    client, engine = world.client(), world.engine()
    client.say(submit(options=m.TaskOptions(retries=2)))
    for _ in range(4):
        world.turn()
        for dispatch in engine.messages(m.Dispatch):
            engine.say(result_of(dispatch, status=1))
    assert len(client.messages(m.Deliver)) == 1
    assert world.tasks.recorder.completed == {engine.wire_id: 1}


def test_what_is_outstanding_is_where_it_is_and_counted_once(world):
    client, engine = world.client(), world.engine()
    ids = [task_id() for _ in range(4)]
    direct, running, waiting, unlucky = ids
    retried = m.TaskOptions(retries=5)
    client.say(submit(direct, target=engine.wire_id), submit(running), submit(unlucky, options=retried))
    after = m.TaskOptions(after=m.Dependency([running]))
    client.say(submit(waiting, options=after))
    world.turn()
    for _ in range(2):
        for dispatch in engine.messages(m.Dispatch):
            if dispatch.task == unlucky:
                engine.say(result_of(dispatch, status=1))
        world.turn()
    found = outstanding(world.tasks)
    assert found.queue == {engine.wire_id: [direct.hex()]}
    held = found.tasks.get(engine.wire_id, [])
    assert set(held) <= {running.hex(), unlucky.hex()}
    # Each is in one place: with the engine, or with none.
    assert len(held) + len(found.unassigned) == 3

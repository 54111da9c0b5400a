"""What the hub answers stock clients: the shapes that their Client relies on, down to the keys."""

from __future__ import annotations

import itertools
import json

import pytest

from clusterd.controller.compat.queries import Queries, Refused
from clusterd.controller.queues import Outstanding
from clusterd.core.wire import jupyter
from clusterd.core.wire.messages import APPLY
from clusterd.storage.taskstore.memory import MemoryStore
from clusterd.storage.taskstore.none import NoStore
from clusterd.storage.taskstore.row import Outcome, Output, TaskRow

T0 = 1_769_860_800.0  # 2026-01-31T12:00:00Z
ENGINES = {0: "engine-0", 2: "0" * 32}


class Hub:
    def __init__(self, store=None):
        self.store = store or MemoryStore(1000, 2**30)
        self.waits = Outstanding({}, {}, [])
        self.completed = {0: 4}
        self.submitted = []
        numbers = itertools.count(1)
        self.queries = Queries(
            self.store,
            engines=lambda: ENGINES,
            outstanding=lambda: self.waits,
            completed=lambda: self.completed,
            submit=lambda row, msg_id, header: self.submitted.append((row.msg_id, msg_id, json.loads(header))),
            new_id=lambda: f"new-{next(numbers)}",
        )

    def ask(self, msg_type: str, **content):
        reply_type, reply, buffers = self.queries.answer(f"{msg_type}_request", content, T0 + 100)
        assert reply_type == f"{msg_type}_reply"
        # What goes out is JSON.
        decoded = json.loads(jupyter.json_of(reply))
        assert decoded.pop("status") == "ok"
        return decoded, [bytes(buffer) for buffer in buffers]

    def refusal(self, msg_type: str, **content) -> tuple[str, str]:
        with pytest.raises(Refused) as refused:
            self.queries.answer(f"{msg_type}_request", content, T0)
        return refused.value.ename, refused.value.evalue

    def put(self, msg_id: str, *, queue: str = "task", submitted: float = T0, engine: str = "") -> TaskRow:
        header = {
            "msg_id": msg_id,
            "msg_type": "apply_request",
            "session": "s",
            "date": jupyter.date_of(submitted),
            "username": "me",
            "version": "5.3",
        }
        row = TaskRow(
            msg_id,
            "s",
            queue,
            submitted,
            label=None,
            header=jupyter.json_of(header),
            metadata=b'{"label":null}',
            content=b"{}",
            buffers=[f"{msg_id}-in".encode(), b""],
            engine=engine,
        )
        self.store.put(row)
        return row

    def end(self, row: TaskRow, status: str = "ok", **fields) -> TaskRow:
        row.outcome = Outcome(
            status,
            T0 + 2,
            T0 + 3,
            started=T0 + 1,
            header=jupyter.json_of({"msg_type": "apply_reply", "date": jupyter.date_of(T0 + 2)}),
            metadata=jupyter.json_of({"engine": row.engine, "started": jupyter.date_of(T0 + 1), "status": status}),
            content=jupyter.json_of({"status": status}),
            buffers=[f"{row.msg_id}-out".encode()],
            **fields,
        )
        self.store.update(row)
        return row


@pytest.fixture
def hub():
    return Hub()


# --- engines and queues ---


def test_who_is_there(hub):
    assert hub.ask("connection") == ({"engines": {"0": "engine-0", "2": "0" * 32}}, [])


def test_queues_in_numbers(hub):
    hub.waits = Outstanding({0: ["a", "b"]}, {0: ["c"], 2: ["d"]}, ["e", "f", "g"])
    reply, _ = hub.ask("queue", targets=None, verbose=False)
    assert reply == {
        "0": {"queue": 2, "completed": 4, "tasks": 1},
        "2": {"queue": 0, "completed": 0, "tasks": 1},
        "unassigned": 3,
    }
    assert set(hub.ask("queue", targets=["0" * 32])[0]) == {"2", "unassigned"}
    assert set(hub.ask("queue", targets=[0])[0]) == {"0", "unassigned"}
    assert set(hub.ask("queue", targets=0)[0]) == {"0", "unassigned"}


def test_queues_by_name(hub):
    hub.end(hub.put("done", engine="engine-0"))
    hub.put("runs", engine="engine-0")
    hub.waits = Outstanding({}, {0: ["runs"]}, ["waits"])
    reply, _ = hub.ask("queue", verbose=True)
    assert reply["0"] == {"queue": [], "completed": ["done"], "tasks": ["runs"]}
    assert reply["2"] == {"queue": [], "completed": [], "tasks": []}
    assert reply["unassigned"] == ["waits"]


def test_no_engines_have_no_queues(hub, monkeypatch):
    monkeypatch.setattr(hub.queries, "_engines", dict)
    assert hub.ask("queue", targets=None) == ({"unassigned": 0}, [])


@pytest.mark.parametrize("target", [1, -1, "engine-9", True, 1.5, None])
def test_queues_of_an_engine_that_is_not_there(hub, target):
    assert hub.refusal("queue", targets=[target])[0] == "IndexError"


# --- results ---


def test_results(hub):
    row = hub.put("b", engine="engine-0")
    row.output = Output(execute_input=b'"x=1"', error=b'{"ename":"E"}')
    row.output.write("stdout", "hello")
    hub.end(row)
    hub.end(hub.put("a", engine="engine-0"))
    hub.put("c")
    reply, buffers = hub.ask("result", msg_ids=["b", "c", "a", "b"], status_only=False)
    assert (reply["pending"], sorted(reply["completed"])) == (["c"], ["a", "b"])
    # In the order of the ids, not in that of the question.
    assert buffers == [b"a-out", b"b-out"]
    assert set(reply) == {"pending", "completed", "a", "b"}
    result = reply["b"]
    assert set(result) == {
        "header",
        "metadata",
        "result_header",
        "result_metadata",
        "result_content",
        "received",
        "io",
    }
    assert result["io"] == {
        "execute_input": "x=1",
        "execute_result": None,
        "error": {"ename": "E"},
        "stdout": "hello",
        "stderr": "",
    }
    assert result["header"]["date"] == "2026-01-31T12:00:00.000000Z"
    assert result["received"] == "2026-01-31T12:00:03Z"
    assert result["result_metadata"]["engine"] == "engine-0"
    assert result["result_header"]["msg_type"] == "apply_reply"


def test_just_the_status_of_results(hub):
    hub.end(hub.put("a"))
    hub.put("b")
    assert hub.ask("result", msg_ids=["a", "b"], status_only=True) == ({"pending": ["b"], "completed": ["a"]}, [])


def test_results_of_a_task_that_nobody_knows(hub):
    hub.end(hub.put("a"))
    assert hub.refusal("result", msg_ids=["a", "x"]) == ("KeyError", "No such message: x")
    assert hub.refusal("result", msg_ids=[1])[0] == "TypeError"


def test_the_result_of_a_task_that_failed_before_it_ran(hub):
    row = hub.put("a")
    row.outcome = Outcome("invalid_dependency", T0, T0, message="it depends on nothing that is known")
    hub.store.update(row)
    reply, buffers = hub.ask("result", msg_ids=["a"])
    content = reply["a"]["result_content"]
    assert (content["ename"], content["engine_info"], buffers) == ("InvalidDependency", {}, [])
    assert reply["a"]["result_header"]["msg_type"] == "apply_reply"


def test_history(hub):
    for msg_id, submitted in (("late", T0 + 5), ("early", T0), ("between", T0 + 1)):
        hub.put(msg_id, submitted=submitted)
    assert hub.ask("history") == ({"history": ["early", "between", "late"]}, [])


# --- records ---


def test_whole_records_have_no_buffers(hub):
    hub.end(hub.put("a", engine="engine-0"))
    reply, buffers = hub.ask("db", query={}, keys=None)
    assert (reply["buffer_lens"], reply["result_buffer_lens"], buffers) == (None, None, [])
    (record,) = reply["records"]
    names = (
        "msg_id header content metadata submitted client_uuid engine_uuid started completed resubmitted received queue label"
        " result_header result_metadata result_content execute_input execute_result error stdout stderr"
    )
    assert set(record) == set(names.split())
    assert (record["client_uuid"], record["engine_uuid"], record["label"]) == ("s", "engine-0", None)
    assert record["submitted"] == "2026-01-31T12:00:00Z"


def test_some_keys_of_records_and_their_buffers(hub):
    hub.end(hub.put("a"))
    hub.put("b")
    reply, buffers = hub.ask("db", query={}, keys=["queue", "result_buffers", "buffers"])
    assert reply == {
        "records": [{"msg_id": "a", "queue": "task"}, {"msg_id": "b", "queue": "task"}],
        "buffer_lens": [2, 2],
        "result_buffer_lens": [1, 0],
    }
    # Of each record its own, then those of its result.
    assert buffers == [b"a-in", b"", b"a-out", b"b-in", b""]
    reply, buffers = hub.ask("db", query={"msg_id": "a"}, keys=["result_buffers"])
    assert (reply["buffer_lens"], reply["result_buffer_lens"], buffers) == (None, [1], [b"a-out"])


def test_dates_come_as_text(hub):
    for number in range(3):
        hub.put(str(number), submitted=T0 + number)
    query = {"submitted": {"$gt": "2026-01-31T12:00:00.500000Z", "$lte": "2026-01-31T12:00:02+00:00"}}
    reply, _ = hub.ask("db", query=query, keys=["msg_id"])
    assert [record["msg_id"] for record in reply["records"]] == ["1", "2"]


def test_questions_without_meaning(hub):
    hub.put("a")
    assert hub.refusal("db", query={}, keys=["nonsense"]) == ("KeyError", "records have no 'nonsense'")
    assert hub.refusal("db", query={"msg_id": {"$like": "x"}})[0] == "ValueError"
    assert hub.refusal("db", query=[1])[0] == "TypeError"
    assert hub.refusal("nonsense") == ("KeyError", "Bad Message Type: 'nonsense_request'")


# --- purging ---


def test_purging(hub):
    for msg_id in "abc":
        hub.end(hub.put(msg_id, engine="engine-0"))
    hub.put("d", engine="engine-0")
    assert hub.refusal("purge", msg_ids=["a", "d"]) == ("IndexError", "msg pending: 'd'")
    assert hub.store.size().records == 4
    assert hub.ask("purge", msg_ids=["a"]) == ({}, [])
    assert hub.store.history() == ["b", "c", "d"]
    assert hub.refusal("purge", engine_ids=[7])[0] == "IndexError"
    assert hub.ask("purge", msg_ids=[], engine_ids=[2]) == ({}, [])
    assert hub.store.size().records == 3
    assert hub.ask("purge", msg_ids=[], engine_ids=[0]) == ({}, [])
    assert hub.store.history() == ["d"]


def test_purging_all_that_has_ended(hub):
    hub.end(hub.put("a"))
    hub.put("b")
    assert hub.ask("purge", msg_ids="all") == ({}, [])
    assert hub.store.history() == ["b"]


# --- once more ---


def test_tasks_are_run_once_more(hub):
    hub.end(hub.put("a", queue="mux"))
    hub.put("b")
    assert hub.ask("resubmit", msg_ids=["a", "b"]) == ({"resubmitted": {"a": "new-1", "b": "new-2"}}, [])
    (old, new, header), _ = hub.submitted
    assert (old, new) == ("a", "new-1")
    assert header["msg_id"] == "new-1"
    assert header["date"] == "2026-01-31T12:01:40.000000Z"
    assert (header["session"], header["msg_type"], header["username"]) == ("s", "apply_request", "me")
    assert hub.store.get("a").resubmitted == "new-1"


def test_all_of_them_or_none(hub):
    hub.put("a")
    assert hub.refusal("resubmit", msg_ids=["a", "x", "y"]) == ("KeyError", "No such msg(s): ['x', 'y']")
    hub.store.put(TaskRow("n", "c", "task", T0, kind=APPLY))
    assert hub.refusal("resubmit", msg_ids=["a", "n"])[0] == "ValueError"
    hub.store.get("n").kind = hub.store.get("a").kind
    hub.store.get("n").is_whole = False
    assert hub.refusal("resubmit", msg_ids=["a", "n"])[0] == "ValueError"
    assert hub.submitted == []


def test_where_nothing_is_kept():
    hub = Hub(NoStore())
    for msg_type in ("history", "db", "result", "resubmit", "purge"):
        ename, evalue = hub.refusal(msg_type, msg_ids=["a"], query={})
        assert ename == "KeyError"
        assert evalue.startswith("NoData: this controller keeps no records")
    # What is there now is known all the same.
    assert set(hub.ask("queue")[0]) == {"0", "2", "unassigned"}

"""What people are told of tasks: names, states, outcomes; which tasks they mean; and that no answer is larger than it may be."""

from __future__ import annotations

import json
import sqlite3

import pytest

from clusterd.core.wire import jupyter
from clusterd.core.wire.messages import APPLY, EXECUTE, STOCK
from clusterd.core.wire.payload import RemoteFailure, pack_failure
from clusterd.errors import BadQuery, StorageError, UnknownTask
from clusterd.storage.taskstore import teller
from clusterd.storage.taskstore.archive import read_page, read_task
from clusterd.storage.taskstore.memory import MemoryStore
from clusterd.storage.taskstore.pages import Span
from clusterd.storage.taskstore.query import parse
from clusterd.storage.taskstore.row import Outcome, Output, TaskRow, parse_place, place_of
from clusterd.storage.taskstore.selection import Selection, cursor_of, span_of
from clusterd.storage.taskstore.sqlite import SqliteStore
from clusterd.storage.taskstore.told import patterns_of, short_id, state_of, told

OURS = "0123456789abcdef000000000000002a"
THEIRS = "f00dcafe-1234_77_12"


def native(msg_id=OURS, **fields):
    return TaskRow(msg_id, "c" * 32, "task", 100.0, kind=APPLY, function=b"f" * 16, body=b"args", **fields)


def stock(code, msg_type="execute_request"):
    header = jupyter.json_of({"msg_id": THEIRS, "msg_type": msg_type})
    return TaskRow(THEIRS, "s", "mux", 100.0, kind=STOCK, header=header, content=jupyter.json_of({"code": code}))


@pytest.fixture
def store():
    return MemoryStore(1000, 2**30)


@pytest.fixture
def tell(store):
    return teller.Teller(store, lambda _row: None)


def put(store, row, status=None, **fields):
    store.put(row)
    if status:
        row.outcome = Outcome(status, 103.0, 103.5, **{"started": 101.0, **fields})
        store.update(row)
    return row


# --- what a task is called ---


def test_ids_have_a_short_form_that_finds_them_again(store):
    for name, short in ((OURS, "01234567-2a"), (THEIRS, "f00dcafe-12"), ("odd", "odd")):
        assert short_id(name) == short
        put(store, native(name))
        assert next(found for pattern in patterns_of(short) if (found := store.named(pattern, 2))) == [name]


@pytest.mark.parametrize("text", ["*", "a?", "[a]", "a b", "", "a\n"])
def test_what_cannot_be_an_id_is_no_pattern(text):
    assert patterns_of(text) == []


def test_who_writes_too_little_is_told_what_there_is(store, tell):
    put(store, native(f"{OURS[:-1]}b"))
    assert tell.describe("0123")["id"] == f"{OURS[:-1]}b"
    put(store, native())
    with pytest.raises(BadQuery, match=r"may be any of several tasks: 01234567-2a, 01234567-2b\n"):
        tell.describe("0123")
    assert tell.describe("01234567-2a")["id"] == tell.describe(OURS)["id"] == OURS
    for unknown in ("9", "01234567-2c", "*"):
        with pytest.raises(UnknownTask, match="no record of task"):
            tell.describe(unknown)


# --- what it was, where it ran, how it ended ---


def test_a_task_that_went_well(store, tell):
    row = put(store, native(name="fit", label="run 7", place=place_of("gpu/3", 4711, "node 1"), engine_id=9), "ok")
    task = tell.page({}, Span(), 5, is_newest_first=True, is_full=False)[0][0]
    expected = {"state": "ok", "name": "fit", "kind": "call", "label": "run 7", "engine": "gpu/3", "engine_id": 9}
    expected |= {"pid": 4711, "host": "node 1", "waited": 1.0, "ran": 2.0, "error": None, "message": None}
    expected |= {"started": "1970-01-01T00:01:41.000000Z", "for": None, "bytes": row.size}
    assert {key: task[key] for key in expected} == expected
    assert json.loads(json.dumps(task)) == task


def test_clocks_of_several_hosts_give_no_negative_times(store):
    task = told(put(store, native(), "ok", started=99.0), "ok")
    assert (task["waited"], task["ran"]) == (0.0, 4.0)


@pytest.mark.parametrize(
    ("status", "state", "error"),
    [
        ("engine_lost", "error", "EngineLost"),
        ("timeout", "error", "TaskTimeout"),
        ("unschedulable", "error", "TaskUnschedulable"),
        ("invalid_dependency", "error", "TaskUnschedulable"),
        ("aborted", "aborted", "TaskAborted"),
        ("overloaded", "error", "overloaded"),
    ],
)
def test_a_task_without_a_result(store, status, state, error):
    row = put(store, native(), status, message="why", started=None)
    task = told(row, state_of(row))
    assert (task["state"], task["error"], task["message"], task["ran"]) == (state, error, "why", None)


def test_an_exception_is_told_by_its_name(store):
    failure = RemoteFailure("builtins.ZeroDivisionError", "by zero", "line 1\nline 2")
    row = put(store, native(), "error", body=pack_failure(failure))
    task = told(row, state_of(row), is_full=True)
    assert (task["error"], task["message"], task["traceback"]) == ("ZeroDivisionError", "by zero", ["line 1", "line 2"])
    row.outcome.body = b"not a failure"
    assert told(row, "error")["error"] == "error"


def test_a_cell_is_called_by_its_first_line(store):
    row = put(store, stock("\n  import os\nos.x"), "aborted", content=b'{"status":"aborted"}')
    task = told(row, state_of(row), is_full=True)
    assert (task["name"], task["kind"], task["error"], task["is_direct"]) == ("import os", "cell", "TaskAborted", True)
    assert told(stock("x" * 200), "waiting")["name"] == "x" * 79 + "…"
    assert told(stock("", "apply_request"), "waiting")["kind"] == "call"
    assert told(stock("", "strange"), "waiting")["kind"] == "other"
    assert told(TaskRow("a", "c", "task", 1.0, kind=EXECUTE), "waiting")["name"] is None


def test_states_of_what_has_not_ended(store):
    row = native()
    assert state_of(row) == "unfinished"
    assert state_of(row, is_known=True) == "waiting"
    assert state_of(row, is_known=True, is_running=True) == "running"


def test_a_place_that_cannot_be_read():
    assert parse_place("") == ("", 0, "")
    assert parse_place("engines/3 x") == ("engines/3", 0, "")


# --- bounds ---


def test_a_page_ends_when_it_is_large(store, tell, monkeypatch):
    monkeypatch.setattr(teller, "MAX_PAGE", 900)
    for number in range(5):
        put(store, native(f"{number:032x}"), "ok")
    span, sizes, seen = Span(), [], []
    while span is not None:
        tasks, span = tell.page({}, span, 100, is_newest_first=False, is_full=True)
        sizes.append(len(tasks))
        seen += [task["short"] for task in tasks]
    assert seen == [f"00000000-{number:x}" for number in range(5)]
    assert sizes == [2, 2, 1]


def test_a_walk_upwards_ends_where_it_began(store, tell):
    put(store, native("a"), "ok")
    put(store, native("b"), "ok")
    tasks, rest = tell.page({}, Span(), 1, is_newest_first=False, is_full=False)
    put(store, native("c"), "ok")
    more, rest = tell.page({}, rest, 5, is_newest_first=False, is_full=False)
    assert ([task["id"] for task in tasks + more], rest) == (["a", "b"], None)
    assert tell.page({"name": "x"}, Span(), 1, is_newest_first=False, is_full=False) == ([], None)


def test_of_what_is_long_the_end_is_told(store, tell, monkeypatch):
    monkeypatch.setattr(teller, "MAX_TEXT", 10)
    output = Output()
    output.write("stdout", "a" * 20 + "the end")
    failure = RemoteFailure("E", "m" * 12, "first\n" + "x" * 20 + "\nlast")
    put(store, native(output=output), "error", body=pack_failure(failure))
    task = tell.describe(OURS)
    assert task["stdout"] == "[17 characters are left out] aaathe end"
    assert task["message"] == "[2 characters are left out] mmmmmmmmmm"
    assert task["traceback"] == ["[the beginning is left out]", "xxxxx", "last"]


def test_sizes_of_buffers_are_told_where_they_are_not_too_large(store, tell, monkeypatch):
    put(store, native(buffers=[b"12345"]), "ok", body=b"xyz")
    task = tell.describe(OURS)
    assert (task["argument_bytes"], task["result_bytes"]) == ([4, 5], [3])
    monkeypatch.setattr(teller, "MAX_PAGE", 10)
    assert "result_bytes" not in tell.describe(OURS)


def test_why_nobody_runs_it(store, tell):
    put(store, native())
    task = tell.describe(OURS)
    assert (task["state"], task["for"]) == ("unfinished", None)
    assert "its controller ended before it did" in task["why"]


# --- which tasks are meant ---


def test_a_selection_becomes_a_query():
    chosen = Selection(state="error", label="run*", name="fit", client="ab[", since=1.0, before=2.0, ended_before=3.0)
    assert chosen.query() == {
        "status": {"$ne": None, "$nin": ["ok", "aborted"]},
        "label": {"$glob": "run*"},
        "name": {"$glob": "fit"},
        "client_uuid": {"$glob": "ab[[]*"},
        "submitted": {"$gte": 1.0, "$lt": 2.0},
        "completed": {"$lt": 3.0},
    }
    assert parse(chosen.query())
    assert Selection().query() == {}
    assert Selection(state="running").query() == {"completed": None}
    assert Selection(state="running").takes({"state": "running"})
    assert not Selection(state="running").takes({"state": "waiting"})
    with pytest.raises(BadQuery, match="a task is never 'lost'"):
        Selection(state="lost").query()


@pytest.mark.parametrize(
    ("engine", "query"),
    [
        ("engines/3", {"place": {"$glob": "engines/3 *"}}),
        ("gpu", {"place": {"$glob": "gpu/*"}}),
        ("3", {"place": {"$glob": "gpu/3 *"}}),
        ("id:7", {"engine_id": 7}),
    ],
)
def test_an_engine_is_meant_by_any_of_its_names(engine, query):
    assert Selection(engine=engine).query("gpu") == query


@pytest.mark.parametrize("engine", ["", "*", "a b", "gpu/[3]"])
def test_what_is_no_engine(engine):
    with pytest.raises(BadQuery, match="is no engine"):
        Selection(engine=engine).query()


def test_cursors():
    assert span_of(cursor_of(Span(3, 4))) == Span(3, 4)
    assert (span_of(None), cursor_of(None)) == (Span(), None)


# --- a file without a controller ---


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "db" / "tasks.db"
    store = SqliteStore(path, ttl=None, max_bytes=2**30)
    put(store, native(name="fit"), "ok", body=b"xyz")
    put(store, native("1" * 32))
    owed = native("2" * 32)
    owed.is_owed = True
    put(store, owed)
    store.close()
    return path


def test_a_file_is_read_without_a_controller(file):
    tasks, rest = read_page(file, {}, Span(), 2, is_newest_first=True, is_full=False)
    assert [task["state"] for task in tasks] == ["waiting", "unfinished"]
    tasks, rest = read_page(file, {}, rest, 2, is_newest_first=True, is_full=False)
    assert ([(task["state"], task["name"]) for task in tasks], rest) == ([("ok", "fit")], None)
    assert read_task(file, "01234567-2a")["result_bytes"] == [3]
    assert read_task(file, "2" * 32)["why"] == "the controller has ended; the next one takes it up"
    with pytest.raises(UnknownTask):
        read_task(file, "9")


def test_a_file_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(StorageError, match="No such file"):
        read_task(tmp_path / "tasks.db", "1")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_somebody_else_is_left_alone(file, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: file.stat().st_uid + 1)
    with pytest.raises(StorageError, match="belongs to uid"):
        read_task(file, "1")


def test_a_file_that_is_not_of_this_release(file, tmp_path):
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(StorageError, match="not of this release"):
        read_task(file, "1")
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(StorageError, match="not a database"):
        read_task(tmp_path / "text", "1")

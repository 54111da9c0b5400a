"""What every store of task records does, whatever lies below it."""

from __future__ import annotations

import contextlib
import functools
import time
from datetime import UTC, datetime

import pytest

from clusterd.core.model.database import MongodbRecords
from clusterd.core.model.task import Reason
from clusterd.core.wire.messages import APPLY, STOCK
from clusterd.errors import BadQuery, NoRecords, UnknownTask
from clusterd.storage.taskstore import written
from clusterd.storage.taskstore.memory import MemoryStore
from clusterd.storage.taskstore.mongodb import open_mongodb
from clusterd.storage.taskstore.none import NoStore
from clusterd.storage.taskstore.pages import Span
from clusterd.storage.taskstore.query import parse
from clusterd.storage.taskstore.record import record_of, request_buffers, result_buffers
from clusterd.storage.taskstore.row import HIDDEN, MAX_STREAM, ROW_BYTES, Outcome, Output, TaskRow, place_of
from clusterd.storage.taskstore.sqlite import SqliteStore
from tests.rigs import mongodb
from tests.waiting import until

T0 = datetime(2026, 1, 31, 12, 0, 0, 123457, tzinfo=UTC).timestamp()
EVERYTHING = bytes(range(256))


@pytest.fixture(scope="module", params=["memory", "sqlite", "mongodb"])
def backend(request):
    """(which one, its address)."""
    with mongodb.server() if request.param == "mongodb" else contextlib.nullcontext("") as address:
        yield request.param, address


@pytest.fixture
def open_store(backend, tmp_path):
    """Opens the store of this test, again and again the same one."""
    kind, address = backend
    opened = []
    named = mongodb.database(address) if kind == "mongodb" else contextlib.nullcontext("")
    with named as name:

        def open_it(*, ttl=None, **options):
            if kind == "memory":
                if not opened:
                    opened.append(MemoryStore(100_000, 2**30))
            elif kind == "sqlite":
                opened.append(SqliteStore(tmp_path / "db" / "tasks.db", ttl=ttl, max_bytes=2**30, **options))
            else:
                settings = MongodbRecords(uri=address, database=name, ttl=ttl)
                opened.append(open_mongodb(settings, "a.cluster-1", **options))
            return opened[-1]

        yield open_it
        for store in opened:
            store.close()


@pytest.fixture
def store(open_store):
    return open_store()


def native(msg_id: str = "aa", *, client: str = "c1", submitted: float = T0, **fields) -> TaskRow:
    return TaskRow(msg_id, client, "task", submitted, kind=APPLY, function=b"f" * 16, body=b"\x80args", **fields)


def stock(msg_id: str, *, submitted: float = T0, **fields) -> TaskRow:
    header = b'{"msg_id":"%s","msg_type":"execute_request","session":"s","date":"2026-01-31T12:00:00.123457Z"}'
    return TaskRow(
        msg_id,
        "s",
        "mux",
        submitted,
        kind=STOCK,
        label=None,
        header=header % msg_id.encode(),
        metadata=b'{"label":null,"x":[1,2]}',
        content=b'{"code":"1/0"}',
        **fields,
    )


def end(store, row: TaskRow, status: str = "ok", *, completed: float = T0 + 2, **fields) -> TaskRow:
    row.outcome = Outcome(status, completed, completed + 0.5, started=completed - 1, **fields)
    store.update(row)
    return row


def ids(store, query: dict, **options) -> list[str]:
    return [row.msg_id for row in store.query(parse(query), **options)]


@pytest.fixture(params=["at once", "written"])
def settled(request, store):
    """Asked at once, and when everything has been written: the answers are the same."""
    return store.flush if request.param == "written" else lambda: True


# --- putting and getting ---


def test_a_row_comes_back_as_it_was(store, settled):
    row = stock("m1", buffers=[EVERYTHING, b"", bytearray(b"xy"), memoryview(b"abc")])
    store.put(row)
    row.engine, row.engine_id, row.attempt = "e" * 32, 3, 1
    store.update(row)
    row.output = Output(execute_input=b'{"code":"1"}', execute_result=b'{"data":{}}', error=b'{"ename":"E"}')
    row.output.write("stdout", "one\n")
    row.output.write("stdout", "two €\0\n")
    row.output.write("stderr", "bad")
    end(store, row, "error", header=b'{"msg_id":"r"}', metadata=b'{"engine":"e"}', content=b"{}", buffers=[EVERYTHING])
    assert settled()
    found = store.get("m1")
    record = record_of(found)
    assert record["header"]["msg_id"] == "m1"
    assert record["metadata"] == {"label": None, "x": [1, 2]}
    assert record["content"] == {"code": "1/0"}
    assert record["submitted"] == datetime(2026, 1, 31, 12, 0, 0, 123457, tzinfo=UTC)
    assert record["completed"] == datetime(2026, 1, 31, 12, 0, 2, 123457, tzinfo=UTC)
    assert record["started"] == datetime(2026, 1, 31, 12, 0, 1, 123457, tzinfo=UTC)
    assert record["received"] == datetime(2026, 1, 31, 12, 0, 2, 623457, tzinfo=UTC)
    assert (record["stdout"], record["stderr"]) == ("one\ntwo €\0\n", "bad")
    assert (record["execute_input"], record["error"]) == ({"code": "1"}, {"ename": "E"})
    assert (record["client_uuid"], record["engine_uuid"], record["queue"]) == ("s", "e" * 32, "mux")
    assert record["result_header"] == {"msg_id": "r"}
    assert [bytes(part) for part in request_buffers(found)] == [EVERYTHING, b"", b"xy", b"abc"]
    assert [bytes(part) for part in result_buffers(found)] == [EVERYTHING]
    assert (found.engine_id, found.attempt, found.outcome.status) == (3, 1, "error")


def test_a_native_task_has_a_record_too(store, settled):
    row = native("aa", buffers=[b"frame"], label="mine")
    store.put(row)
    row.engine = "0" * 32
    end(store, row, body=b"\x80value", buffers=[b"out"])
    assert settled()
    found = store.get("aa")
    assert (found.kind, found.function, found.body) == (APPLY, b"f" * 16, b"\x80args")
    assert [bytes(part) for part in result_buffers(found)] == [b"\x80value", b"out"]
    record = record_of(found)
    assert record["header"]["msg_type"] == "apply_request"
    assert record["header"]["date"] == "2026-01-31T12:00:00.123457Z"
    assert record["result_header"]["msg_type"] == "apply_reply"
    assert (record["result_content"], record["label"]) == ({"status": "ok"}, "mine")


def test_a_row_that_has_not_ended_says_so(store, settled):
    store.put(native("aa"))
    assert settled()
    row = store.get("aa")
    assert row.outcome is None
    record = record_of(row)
    assert {key for key, value in record.items() if value is None} >= {"completed", "result_header", "engine_uuid"}
    assert store.size()[:2] == (1, 1)


def test_a_row_that_is_not_there(store):
    with pytest.raises(UnknownTask, match="nobody"):
        store.get("nobody")


def test_what_changes_after_the_end_is_kept(store, settled):
    row = native("aa")
    store.put(row)
    end(store, row)
    assert settled()
    late = store.get("aa", buffers=False)
    late.output = Output()
    late.output.write("stdout", "late")
    late.resubmitted = "bb"
    store.update(late)
    assert settled()
    found = store.get("aa")
    assert (record_of(found)["stdout"], found.resubmitted, found.body) == ("late", "bb", b"\x80args")
    (found,) = store.query(parse({"resubmitted": "bb"}), buffers=True)
    assert found.body == b"\x80args"


def test_an_id_that_comes_again_replaces_the_row(store, settled):
    end_of = end(store, put(store, native("aa", label="first", buffers=[b"1" * 100])))
    assert end_of.outcome
    assert settled()
    store.put(native("aa", label="second"))
    assert settled()
    assert ids(store, {}) == ["aa"]
    found = store.get("aa")
    assert (found.label, found.outcome, list(found.buffers)) == ("second", None, [])


def put(store, row: TaskRow) -> TaskRow:
    store.put(row)
    return row


def test_large_buffers(store):
    large = EVERYTHING * 4096 * 40 + b"end"  # 40 MiB and an uneven rest
    row = put(store, stock("m1", buffers=[large, b"small"]))
    end(store, row, content=b"{}", buffers=[large[::-1]])
    assert store.flush(60)
    found = store.get("m1")
    assert [bytes(part) for part in found.buffers] == [large, b"small"]
    assert [bytes(part) for part in found.outcome.buffers] == [large[::-1]]


def test_output_is_recorded_up_to_a_bound(store, settled):
    row = put(store, native("aa"))
    row.output = Output()
    for _ in range(5):
        row.output.write("stdout", "x" * (MAX_STREAM // 2))
    end(store, row)
    assert settled()
    text = record_of(store.get("aa"))["stdout"]
    assert len(text) < MAX_STREAM + 100
    assert text.endswith("[what follows is not recorded]\n")


# --- asking ---


@pytest.fixture
def five(store, settled):
    """a to e: a has ended well, b with an error, c was aborted, d runs, e waits."""
    for number, name in enumerate("abcde"):
        store.put(
            native(
                name,
                client=f"c{number % 2}",
                submitted=T0 + number,
                label=f"label-{name}" if number else "",
                name="" if number else "fit",
            )
        )
    rows = {name: store.get(name) for name in "abcd"}
    for name, engine in (("a", "e0"), ("b", "e1"), ("d", "e0")):
        rows[name].engine = engine
        rows[name].place = "" if name == "a" else place_of(f"engines/{engine[1:]}", 4711, "node 1")
        store.update(rows[name])
    rows["b"].attempt = 2
    end(store, rows["a"], completed=T0 + 10)
    end(store, rows["b"], "error", completed=T0 + 20, body=b"not a failure")
    end(store, rows["c"], Reason.ABORTED.value, completed=T0 + 30, message="aborted")
    assert settled()
    return store


def iso(offset: float) -> str:
    return datetime.fromtimestamp(T0 + offset, UTC).isoformat()


QUERIES = {
    "all": ({}, "abcde"),
    "id": ({"msg_id": "b"}, "b"),
    "ids": ({"msg_id": {"$in": ["b", "e", "x"]}}, "be"),
    "not these ids": ({"msg_id": {"$nin": ["b", "e"]}}, "acd"),
    "text order": ({"msg_id": {"$gte": "b", "$lt": "d"}}, "bc"),
    "gt the right way round": ({"msg_id": {"$gt": "c"}}, "de"),
    "lte": ({"msg_id": {"$lte": "b"}}, "ab"),
    "client": ({"client_uuid": "c1"}, "bd"),
    "null": ({"completed": None}, "de"),
    "not null": ({"completed": {"$ne": None}}, "abc"),
    "ne of null": ({"engine_uuid": {"$ne": "e0"}}, "bce"),
    "nin of null": ({"engine_uuid": {"$nin": ["e0", None]}}, "b"),
    "in with null": ({"engine_uuid": {"$in": ["e1", None]}}, "bce"),
    "null has no order": ({"engine_uuid": {"$lt": "zz"}}, "abd"),
    "exists": ({"label": {"$exists": True}}, "bcde"),
    "exists not": ({"label": {"$exists": False}}, "a"),
    "glob": ({"label": {"$glob": "label-[bc]"}}, "bc"),
    "glob is case-sensitive, and null has no pattern": ({"label": {"$glob": "LABEL*"}}, ""),
    "mod": ({"attempt": {"$mod": [2, 0]}}, "abcde"),
    "mod with a remainder": ({"attempt": {"$mod": [4, 2]}}, "b"),
    "mod of text": ({"msg_id": {"$mod": [2, 0]}}, ""),
    "all of a scalar": ({"queue": {"$all": ["task"]}}, "abcde"),
    "all of nothing": ({"queue": {"$all": []}}, ""),
    "other types differ": ({"attempt": {"$ne": "2"}}, "abcde"),
    "other types have no order": ({"attempt": {"$lt": "9"}}, ""),
    "date": ({"submitted": iso(1)}, "b"),
    "dates": ({"submitted": {"$in": [iso(1), iso(4)]}}, "be"),
    "from a date": ({"submitted": {"$gte": iso(3)}}, "de"),
    "after a date": ({"submitted": {"$gt": iso(3)}}, "e"),
    "between dates": ({"completed": {"$gt": iso(10), "$lt": iso(30)}}, "b"),
    "date with a zone": ({"submitted": {"$lt": "2026-01-31T13:00:02+01:00"}}, "ab"),
    "date without a zone": ({"submitted": {"$lt": "2026-01-31T12:00:02"}}, "ab"),
    "datetime": ({"completed": {"$lte": datetime.fromtimestamp(T0 + 20, UTC)}}, "ab"),
    "seconds": ({"completed": {"$lte": T0 + 20}}, "ab"),
    "status": ({"status": {"$in": ["error", "aborted"]}}, "bc"),
    "not this status": ({"status": {"$nin": ["ok", "aborted"]}}, "bde"),
    "another status": ({"status": {"$nin": ["ok", "aborted"], "$ne": None}}, "b"),
    "no status": ({"status": None}, "de"),
    "glob without brackets": ({"label": {"$glob": "label-?"}}, "bcde"),
    "glob of anything": ({"label": {"$glob": "*"}}, "bcde"),
    "place": ({"place": {"$glob": "engines/1 *"}}, "b"),
    "place that begins alike": ({"place": {"$glob": "engines/*"}}, "bd"),
    "name": ({"name": "fit"}, "a"),
    "several fields": ({"engine_uuid": "e0", "completed": {"$ne": None}}, "a"),
    "a dictionary": ({"result_content": {"status": "aborted"}}, "c"),
}


def test_queries(five):
    found = {name: "".join(ids(five, query)) for name, (query, _) in QUERIES.items()}
    assert found == {name: expected for name, (_, expected) in QUERIES.items()}


def test_a_query_for_some(five):
    assert ids(five, {}, limit=2) == ["a", "b"]
    assert ids(five, {"completed": None}, limit=1) == ["d"]
    assert ids(five, {}, limit=0) == []


# --- page by page ---


def walk(store, query: dict, **options) -> tuple[str, int]:
    """(the ids that a walk meets, how many pages it has)."""
    found, span, pages = "", Span(), 0
    while span is not None:
        rows, span = store.page(parse(query), span, **options)
        found += "".join(row.msg_id for row in rows)
        pages += 1
    return found, pages


@pytest.mark.parametrize(("limit", "look"), [(1, 1), (1, 2), (2, 2), (2, 1), (10, 2), (2, 10), (10, 10)])
def test_a_walk_meets_what_a_query_finds(five, limit, look):
    options = {"limit": limit, "look": look}
    down = {name: walk(five, query, **options)[0] for name, (query, _) in QUERIES.items()}
    assert down == {name: expected[::-1] for name, (_, expected) in QUERIES.items()}
    up = {name: walk(five, query, newest_first=False, **options)[0] for name, (query, _) in QUERIES.items()}
    assert up == {name: expected for name, (_, expected) in QUERIES.items()}


def test_a_page_is_bounded_by_what_is_looked_at(five):
    assert five.flush()  # what is not written yet is looked at all at once
    rows, rest = five.page(parse({"msg_id": "a"}), limit=5, look=2)
    assert (rows, rest) == ([], Span(0, five.get("d").order))
    assert walk(five, {}, limit=6, look=6)[1] == 1


def test_a_walk_meets_a_row_once_whatever_comes_meanwhile(five, settled):
    rows, rest = five.page(parse({}), limit=2)
    assert [row.msg_id for row in rows] == ["e", "d"]
    five.put(native("f"))
    five.put(native("c", label="again"))  # replaced: it is a new one
    five.purge(["b"])
    assert settled()
    rows, rest = five.page(parse({}), rest, limit=5)
    assert ([row.msg_id for row in rows], rest) == (["a"], None)
    assert walk(five, {}, limit=2)[0] == "cfeda"


def test_what_has_ended_is_purged_page_by_page(five, settled):
    purged, rest = five.purge_page(parse({}), look=3)
    assert purged == 1
    assert settled()
    assert five.purge_page(parse({"status": {"$ne": "ok"}}), rest, look=3) == (1, None)
    assert ids(five, {}) == ["a", "d", "e"]


def test_ids_that_match_a_pattern(store, settled):
    for name in ("ab01", "ab02", "ac01", "AB01"):
        store.put(native(name))
    assert settled()
    assert sorted(store.named("ab*", 10)) == ["ab01", "ab02"]
    assert sorted(store.named("a*01", 10)) == ["ab01", "ac01"]
    assert store.named("a?0?", 10) == store.named("a?0?", 3)
    assert len(store.named("*", 2)) == 2
    assert store.named("ab", 10) == store.named("b*", 10) == []


def test_the_history_is_by_time_of_submission(five):
    five.put(native("z", submitted=T0 + 0.5))
    assert five.history() == ["a", "z", "b", "c", "d", "e"]


WRONG = {
    "a field": ({"colour": "red"}, "no field 'colour'"),
    "an operator": ({"msg_id": {"$regex": "x"}}, r"msg_id: '\$regex' is no operator"),
    "a mixture": ({"msg_id": {"$eq": "a", "x": 1}}, "'x' is no operator"),
    "in of no list": ({"msg_id": {"$in": "abc"}}, "needs a list"),
    "mod of one": ({"attempt": {"$mod": [2]}}, "divisor"),
    "mod by nothing": ({"attempt": {"$mod": [0, 1]}}, "divisor"),
    "no date": ({"submitted": {"$lt": "yesterday"}}, "'yesterday' is no time"),
    "a pattern for a date": ({"submitted": {"$glob": "2026*"}}, "pattern"),
    "buffers": ({"buffers": {"$exists": True}}, "cannot be searched"),
}


@pytest.mark.parametrize(("query", "message"), WRONG.values(), ids=WRONG)
def test_a_query_that_means_nothing(query, message):
    with pytest.raises(BadQuery, match=message):
        parse(query)


def test_keys_of_a_record(five):
    row = five.get("b")
    assert record_of(row, ["stdout"]) == {"msg_id": "b", "stdout": ""}
    with pytest.raises(BadQuery, match="no field 'nonsense'"):
        record_of(row, ["nonsense"])
    assert "buffers" not in record_of(row)
    assert len(record_of(row)) == 21


# --- purging ---


def test_what_has_ended_can_be_purged_and_nothing_else(five, settled):
    assert five.purge(["a", "d", "nobody"]) == 1
    assert settled()
    assert ids(five, {}) == ["b", "c", "d", "e"]
    assert five.history() == ["b", "c", "d", "e"]
    with pytest.raises(UnknownTask):
        five.get("a")
    assert five.purge(["a"]) == 0
    assert five.purge_matching(parse({"engine_uuid": "e1"})) == 1
    assert five.purge_matching(parse({})) == 1
    assert settled()
    assert ids(five, {}) == ["d", "e"]
    assert five.size()[:2] == (2, 2)


def test_what_was_purged_stays_so_when_a_late_message_comes(five, settled):
    row = five.get("a")
    five.purge(["a"])
    assert settled()
    row.output = Output()
    row.output.write("stdout", "late")
    five.update(row)
    assert settled()
    assert ids(five, {}) == ["b", "c", "d", "e"]


def test_a_purged_id_may_come_again(five, settled):
    five.purge(["a"])
    five.put(native("a", label="new"))
    assert settled()
    assert five.get("a").label == "new"
    assert ids(five, {}) == ["b", "c", "d", "e", "a"]


def test_closing_twice(store):
    store.put(native("aa"))
    store.close()
    store.close()


# --- none ---


def test_a_store_that_keeps_nothing_says_so():
    store = NoStore()
    store.put(native("aa"))
    assert store.keeps_nothing
    assert store.size() == (0, 0, 0)
    asked = (
        store.history,
        lambda: store.get("aa"),
        lambda: store.query(parse({})),
        lambda: store.purge(["aa"]),
        lambda: store.purge_matching(parse({})),
        lambda: store.page(parse({}), limit=1),
        lambda: store.purge_page(parse({})),
        lambda: store.named("*", 1),
    )
    for ask in asked:
        with pytest.raises(NoRecords, match="database: none"):
            ask()
    store.close()


# --- after a restart ---


def test_what_was_written_is_there_after_a_restart(open_store):
    store = open_store()
    if store.kind == "memory":
        pytest.skip("lasts as long as the process: that is its contract")
    end(store, put(store, native("a", buffers=[EVERYTHING])), body=b"\x80value")
    store.put(native("b", submitted=T0 + 1))
    store.close()
    store = open_store()
    store.put(native("c", submitted=T0 + 2))
    assert ids(store, {}) == ["a", "b", "c"]
    found = store.get("a")
    assert (found.body, [bytes(part) for part in found.buffers]) == (b"\x80args", [EVERYTHING])
    assert found.outcome.body == b"\x80value"
    assert store.get("b").outcome is None
    assert ids(store, {"completed": None}) == ["b", "c"]


# --- what durable controllers ask ---


@pytest.fixture
def durable(open_store, backend):
    """Opens a store for a durable controller, again and again the same one."""
    if backend[0] == "memory":
        pytest.skip("lasts as long as the process: that is its contract")
    return functools.partial(open_store, is_durable=True)


def test_what_is_owed_is_found_by_the_next_controller(durable):
    store = durable()
    pending = native("aa", is_owed=True, wish=b"wish", buffers=[b"one", b""])
    ended = native("bb", is_owed=True)
    free = native("cc")
    for row in (pending, ended, free):
        store.put(row)
    ended.outcome = Outcome("ok", T0 + 1, T0 + 1, T0, b"result", [b"frame"], display=b"shown")
    store.update(ended)
    assert [row.msg_id for row in store.unfinished()] == ["aa"]
    assert [msg_id for msg_id, _ in store.owed_to("c1")] == ["bb"]
    store.close()
    store = durable()
    [row] = store.unfinished()
    assert (row.msg_id, row.wish, row.body, list(row.buffers)) == ("aa", b"wish", b"\x80args", [b"one", b""])
    store.resume(row)
    [(msg_id, size)] = store.owed_to("c1")
    assert size > ROW_BYTES
    [row] = store.whole([msg_id, "nobody"])
    assert (row.outcome.body, list(row.outcome.buffers), row.outcome.display) == (b"result", [b"frame"], b"shown")
    assert store.owed_to("c2") == []
    store.settle([msg_id])
    assert store.owed_to("c1") == []
    assert store.flush()
    assert store.owed_to("c1") == []
    assert not store.whole([msg_id])[0].is_owed


def test_no_age_drops_what_will_get_its_end(durable, monkeypatch):
    monkeypatch.setattr(written, "TIDY_SECONDS", 0.01)
    store = durable(ttl=1000.0)
    # T0 is long ago. Clients that were killed never fetch what they are owed, nor say that they do not want it.
    for msg_id, is_owed in [("owed", True), ("free", False)]:
        end(store, put(store, native(msg_id, is_owed=is_owed)))
    fresh = put(store, native("fresh", is_owed=True))
    fresh.outcome = Outcome("ok", time.time(), time.time(), time.time(), b"")
    store.update(fresh)
    store.put(native("waits", is_owed=True))
    store.put(native("other"))
    assert store.flush()
    until(lambda: store.history() == ["fresh", "other", "waits"], "what has ended long ago goes", about=store.history)
    assert store.flush()
    assert [msg_id for msg_id, _ in store.owed_to("c1")] == ["fresh"]
    store.close()
    store = durable(ttl=1000.0)
    # What belonged to an earlier controller, and was promised to nobody, can have no end.
    until(lambda: "other" not in store.history(), "what nobody ends goes", about=store.history)
    assert store.history() == ["fresh", "waits"]
    assert [msg_id for msg_id, _ in store.owed_to("c1")] == ["fresh"]
    assert [row.msg_id for row in store.unfinished()] == ["waits"]


@pytest.mark.parametrize("queue", sorted(HIDDEN))
@pytest.mark.parametrize("is_written", [True, False])
def test_rows_for_the_controller_alone_are_shown_to_nobody(durable, queue, is_written):
    store = durable()
    row = stock("a", is_owed=True)
    row.queue = queue
    end(store, put(store, row))
    store.put(stock("b"))
    if is_written:
        assert store.flush()
    assert ids(store, {}) == ids(store, {}, limit=1) == store.history() == ["b"]
    assert store.get("a").queue == queue
    assert [name for name, _ in store.owed_to("s")] == ["a"]
    row.is_owed = False
    store.update(row)
    if is_written:
        assert store.flush()
    assert (store.history(), store.owed_to("s")) == (["b"], [])


@pytest.mark.parametrize("queue", sorted(HIDDEN))
def test_what_was_hidden_stays_so_when_nothing_is_owed_for_it(durable, queue):
    store = durable()
    row = stock("a", is_owed=True)
    row.queue = queue
    end(store, put(store, row))
    assert store.flush()
    for _ in range(2):
        store.settle(["a"])
        assert store.flush()
        assert (store.history(), ids(store, {}), store.owed_to("s")) == ([], [], [])


def test_a_task_that_is_taken_up_gets_its_end(durable):
    store = durable()
    store.put(native("aa", is_owed=True))
    store.close()
    store = durable()
    [row] = store.unfinished()
    store.resume(row)
    assert store.size().pending == 1
    row.outcome = Outcome("ok", T0 + 1, T0 + 1)
    store.update(row)
    assert store.flush()
    assert store.unfinished() == []
    assert store.get("aa").outcome.status == "ok"
    assert store.size().pending == 0


def test_functions_are_there_before_their_tasks(durable):
    store = durable()
    store.keep_function(b"f" * 16, [b"body", memoryview(EVERYTHING)])
    store.keep_function(b"g" * 16, [b"other"])
    store.put(native("aa", is_owed=True))
    assert store.flush()
    assert store.functions() == {b"f" * 16: [b"body", EVERYTHING], b"g" * 16: [b"other"]}
    store.drop_function(b"g" * 16)
    store.keep_function(b"f" * 16, [b"body"])
    store.put(native("bb", is_owed=True))
    store.close()
    assert durable().functions() == {b"f" * 16: [b"body"]}


def test_a_change_is_committed_when_its_number_is(durable):
    store = durable()
    told = []
    store.on_commit = lambda: told.append(store.committed)
    assert store.last_change <= store.committed
    store.put(native("aa"))
    first = store.last_change
    assert store.flush()
    assert first <= store.committed
    assert told[-1] >= first
    row = native("bb")
    store.put(row)
    assert store.last_change > first

"""What a real controller remembers of tasks: searched, run once more, and forgotten, by the client that made them or another."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from itertools import chain

import pytest

import clusterd
from clusterd.errors import BadQuery, TaskAborted, UnknownTask
from tests.waiting import until


def fail():
    raise ValueError("on purpose")


def ids(records):
    return [record["msg_id"] for record in records]


def test_records_say_how_tasks_went(client, cluster):
    began = datetime.now(UTC)
    view = client.load_balanced_view(label="good")
    good = view.apply_async(os.getpid)
    bad = view.with_options(label="bad").apply_async(fail)
    cell = client[0].with_options(label="cell").execute("print('shown'); 5")
    pid = good.result(30)
    assert bad.exception(30) is not None
    cell.result(30)
    assert client.history() == [good.task_id, bad.task_id, cell.task_id]
    keys = ["label", "status", "engine_id", "attempt", "queue", "stdout", "started", "completed", "submitted"]
    records = client.task_records(keys=keys)
    assert ids(records) == client.history()
    assert [record["label"] for record in records] == ["good", "bad", "cell"]
    assert [record["status"] for record in records] == ["ok", "error", "ok"]
    assert [record["queue"] for record in records] == ["task", "task", "mux"]
    assert records[0]["engine_id"] == good.engine_id
    assert records[2]["stdout"] == "shown\n"
    for record in records:
        assert set(record) == {"msg_id", *keys}
        assert began - timedelta(seconds=5) < record["submitted"] <= record["completed"] <= datetime.now(UTC)
        assert record["started"] <= record["completed"]
    (failed,) = client.task_records({"status": "error"})
    assert failed["result_content"]["ename"] == "ValueError"
    assert failed["result_content"]["evalue"] == "on purpose"
    assert ids(client.task_records({"label": {"$in": ["bad", "cell"]}}, keys=[])) == [bad.task_id, cell.task_id]
    assert ids(client.task_records({"submitted": {"$lt": began - timedelta(hours=1)}})) == []
    assert ids(client.task_records(limit=1)) == [good.task_id]
    # Another client sees them, and may run them again.
    with clusterd.Client(cluster.name) as other:
        assert other.history() == client.history()
        assert other.load_balanced_view([good.engine_id]).apply_sync(os.getpid) == pid
    for wrong in ({"colour": 1}, {"label": {"$like": "g"}}):
        with pytest.raises(BadQuery):
            client.task_records(wrong)


def test_tasks_are_run_once_more(client, cluster, isolated):
    log = isolated.home / "log"

    def note(text, *, suffix=""):
        with log.open("a") as file:
            file.write(text + suffix)
        return text * 2

    view = client.load_balanced_view()
    first = view.apply_async(note, "x", suffix="!")
    assert first.result(30) == "xx"
    again = client.resubmit(first)
    assert again.result(30) == "xx"
    assert again.task_id != first.task_id
    assert log.read_text() == "x!x!"
    several = client.resubmit([first.task_id, again])
    assert [future.result(30) for future in several] == ["xx", "xx"]
    # Cells, calls on several engines, and maps.
    cells = client[:].execute("6 * 7")
    cells.result(30)
    assert [future.result(30).text for future in client.resubmit(cells)] == ["42", "42"]
    squares = view.map_async(pow, range(100), [2] * 100, chunksize=50)
    squares.result(30)
    chunks = [future.result(30) for future in client.resubmit(squares)]
    assert list(chain.from_iterable(chunks)) == [n**2 for n in range(100)]
    failing = view.apply_async(fail)
    assert failing.exception(30) is not None
    with pytest.raises(ValueError, match="on purpose"):
        client.resubmit(failing).result(30)
    # The client that made it may be gone.
    with clusterd.Client(cluster.name) as other:
        assert other.resubmit(first.task_id).result(30) == "xx"
    assert log.read_text() == "x!" * 5
    (record,) = client.task_records({"msg_id": first.task_id}, keys=["resubmitted"])
    assert record["resubmitted"] in client.history()


def test_what_is_not_on_record_is_not_run(client):
    done = client.load_balanced_view().apply_async(abs, -1)
    done.result(30)
    with pytest.raises(UnknownTask):
        client.resubmit([done, "ab" * 16])
    assert client.history() == [done.task_id]
    assert client.wait(timeout=5)


def test_a_rerun_is_aborted_like_any_task(client, isolated):
    gate = isolated.home / "gate"

    def wait(path):
        import pathlib  # noqa: PLC0415
        import time  # noqa: PLC0415

        while not pathlib.Path(path).exists():
            time.sleep(0.005)

    gate.touch()
    quick = client.load_balanced_view().apply_async(wait, str(gate))
    quick.result(30)
    gate.unlink()
    busy = client[:].apply_async(wait, str(gate))
    until(lambda: sum(e["running"] for e in client.queue_status()["engines"].values()) == 2, "both engines are busy")
    again = client.resubmit(quick)
    assert again.abort()
    with pytest.raises(TaskAborted):
        again.result(30)
    gate.touch()
    busy.result(30)


def test_records_are_forgotten(client):
    view = client.load_balanced_view()
    first, second = view.apply_async(abs, -1), view.apply_async(abs, -2)
    client.wait([first, second], timeout=30)
    assert client.purge_tasks(first) == 1
    assert client.history() == [second.task_id]
    with pytest.raises(UnknownTask):
        client.resubmit(first)
    assert first.result() == 1
    assert client.purge_tasks() == 1
    assert client.history() == []

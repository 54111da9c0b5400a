"""Records of tasks in a real controller: asked for by a real client, and there again after kill -9."""

from __future__ import annotations

import os
import sqlite3

import pytest

import clusterd
from clusterd.errors import NoRecords
from tests.processes.test_by_hand import ENGINE, Hands
from tests.waiting import until


@pytest.fixture
def hands(isolated):
    hands = Hands(isolated.root)
    yield hands
    hands.end()


def shout(text):
    print(text.upper())  # noqa: T201 - what is recorded
    return os.getpid()


def told(client, **options):
    return {record["msg_id"]: record for record in client.task_records(**options)}


@pytest.mark.parametrize("database", ["memory", "sqlite"])
def test_a_client_finds_and_repeats_what_another_one_ran(hands, database):
    hands.controller("--database", database)
    engine = hands.start("engine", "--file", hands.security / ENGINE)
    with clusterd.Client(hands.directory) as client:
        hands.joined(client)
        done = client[0].apply(shout, "hello")
        assert done.result() == engine.pid
        failed = client[0].apply(divmod, 1, 0)
        assert failed.exception() is not None
        cell = client[0].execute("6 * 7")
        cell.result()
        again = client.resubmit(done)
        assert again.result() == engine.pid
        assert client.purge_tasks([cell]) == 1
    with clusterd.Client(hands.directory) as client:
        records = told(client)
        assert list(records) == [done.task_id, failed.task_id, again.task_id] == client.history()
        assert records[done.task_id]["stdout"] == "HELLO\n"
        assert records[done.task_id]["resubmitted"] == again.task_id
        assert records[failed.task_id]["result_content"]["ename"] == "ZeroDivisionError"
        assert (records[done.task_id]["queue"], records[again.task_id]["queue"]) == ("mux", "task")
        slow = client.task_records({"status": "error"}, keys=["engine_id", "attempt"])
        assert slow == [{"msg_id": failed.task_id, "engine_id": 0, "attempt": 0}]


def test_what_ran_before_a_kill_is_in_the_file(hands):
    controller = hands.controller("--database", "sqlite", "--reuse", "--stock", "off")
    hands.start("engine", "--file", hands.security / ENGINE)
    path = hands.directory / "db" / "tasks.db"
    with clusterd.Client(hands.directory) as client:
        hands.joined(client)
        done = client[0].apply(shout, "before")
        done.result()

        def is_written():
            reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            try:
                found = reader.execute("SELECT completed FROM tasks WHERE msg_id = ?", (done.task_id,)).fetchone()
            finally:
                reader.close()
            return found is not None and found[0] is not None

        until(is_written, "the record is in the file", about=controller.said)
        controller.kill()
        controller.wait(10)
        hands.controller("--database", "sqlite", "--reuse", "--stock", "off")
        after = client[0].apply(shout, "after")
        after.result()
        records = told(client)
        assert [records[task.task_id]["stdout"] for task in (done, after)] == ["BEFORE\n", "AFTER\n"]
        assert [type(value) for value in client.history()] == [str, str]


def test_a_controller_that_keeps_nothing_says_so(hands):
    hands.controller("--nodb")
    with clusterd.Client(hands.directory) as client, pytest.raises(NoRecords, match="database: none"):
        client.history()


def test_a_database_that_cannot_be_opened_is_an_error_at_the_start(hands):
    hands.directory.mkdir()
    (hands.directory / "db").write_text("not a directory")
    assert "tasks.db cannot be opened" in hands.fails(
        "controller", "--profile-dir", hands.directory, "--database", "sqlite"
    )

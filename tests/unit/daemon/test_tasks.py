"""Where the daemon finds out what ran: of the controller, in bounded answers, or in its file, or not at all."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from clusterd.control.requests import TasksPurge, TasksQuery
from clusterd.core.wire.messages import DescribeTask, PurgePage, PurgeTasks
from clusterd.daemon import tasks
from clusterd.daemon.tasks import TaskRecords
from clusterd.errors import ControlError, ControllerLost, NoRecords
from clusterd.storage.taskstore.row import TaskRow
from clusterd.storage.taskstore.sqlite import SqliteStore


class FakeController:
    """A link to a controller with ten tasks, numbered by their ranks, of which it tells three at a time."""

    def __init__(self):
        self.is_up = True
        self.asked = []
        self.answers = {}

    async def request(self, make):
        message = make(len(self.asked))
        self.asked.append(message)
        if isinstance(message, DescribeTask):
            return {"task": {"id": message.task, "short": message.task, **self.answers[message.task]}}
        if isinstance(message, PurgeTasks):
            return {"purged": len(message.tasks)}
        top = message.before or 11
        orders = list(range(top - 1, message.after, -1))[:3]
        rest = [message.after, orders[-1]] if orders and orders[-1] > message.after + 1 else None
        if isinstance(message, PurgePage):
            return {"purged": len(orders), "rest": rest}
        found = [{"id": order, "state": "running" if order % 2 else "waiting"} for order in orders[: message.limit]]
        if len(found) < len(orders):
            rest = [message.after, found[-1]["id"]]
        return {"tasks": found, "rest": rest}


@pytest.fixture
def link():
    return FakeController()


@pytest.fixture
def make(link, tmp_path):
    def make(database="sqlite"):
        profile = SimpleNamespace(controller=SimpleNamespace(database=database))
        return TaskRecords(link, tmp_path / "tasks.db", lambda: profile, lambda: "gpu")

    return make


def page(records, **fields):
    answer = asyncio.run(records.page(TasksQuery(**fields)))
    return [task["id"] for task in answer["tasks"]], answer["next"], answer["source"]


def test_pages_are_put_together_up_to_the_limit(make, link):
    assert page(make(), limit=5) == ([10, 9, 8, 7, 6], "0:6", "controller")
    assert [message.limit for message in link.asked] == [5, 2]
    assert page(make(), limit=5, cursor="0:6") == ([5, 4, 3, 2, 1], None, "controller")


def test_a_state_that_only_the_controller_knows_is_sorted_out(make, link):
    assert page(make(), limit=3, state="running", engine="3") == ([9, 7, 5], "0:5", "controller")
    assert link.asked[0].query == {"completed": None, "place": {"$glob": "gpu/3 *"}}


def test_an_answer_that_takes_long_says_how_far_it_is(make, link, monkeypatch):
    monkeypatch.setattr(tasks, "ANSWER_SECONDS", 0.0)
    assert page(make(), limit=9) == ([10, 9, 8], "0:8", "controller")


def test_one_task(make, link):
    link.answers["a"] = {"state": "ok"}
    assert asyncio.run(make().show("a")) == {"task": {"id": "a", "short": "a", "state": "ok"}, "source": "controller"}


def test_a_controller_that_does_not_answer(make, link, monkeypatch):
    monkeypatch.setattr(tasks, "PATIENCE", 0.01)

    async def request(_make):
        await asyncio.Event().wait()

    link.request = request
    with pytest.raises(ControlError) as caught:
        page(make())
    assert caught.value.code == "no_answer"


# --- purging ---


def purge(records, **fields):
    return asyncio.run(records.purge(TasksPurge(**fields)))


def test_what_is_selected_is_purged(make, link):
    assert purge(make(), ended_before=5.0, state="error") == {"purged": 10, "next": None}
    assert link.asked[0].query == {
        "status": {"$ne": None, "$nin": ["ok", "aborted"]},
        "completed": {"$lt": 5.0},
    }


def test_a_long_purge_says_how_far_it_is(make, link, monkeypatch):
    monkeypatch.setattr(tasks, "ANSWER_SECONDS", 0.0)
    assert purge(make(), ended_before=5.0) == {"purged": 3, "next": "0:8"}
    assert purge(make(), ended_before=5.0, cursor="0:2") == {"purged": 1, "next": None}


def test_tasks_are_purged_by_name(make, link):
    link.answers = {name: {"completed": "then", "state": "ok"} for name in ("0a0b", "s_1")}
    assert purge(make(), tasks=["0a0b", "s_1", "0a0b"]) == {"purged": 2, "next": None}
    assert link.asked[-1].tasks == [b"\x0a\x0b", b"s_1"]


def test_all_that_are_named_are_purged_or_none(make, link):
    link.answers = {"a": {"completed": "then"}, "b": {"completed": None, "state": "running"}}
    with pytest.raises(ControlError, match="b has not ended: it is running"):
        purge(make(), tasks=["a", "b"])
    assert not any(isinstance(message, PurgeTasks) for message in link.asked)


def test_what_has_not_ended_is_not_purged(make, link):
    with pytest.raises(ControlError, match="what is running cannot be purged"):
        purge(make(), state="running")
    assert link.asked == []


# --- without a controller ---


def test_a_file_is_read_while_there_is_no_controller(make, link, tmp_path):
    store = SqliteStore(tmp_path / "tasks.db", ttl=None, max_bytes=2**30)
    store.put(TaskRow("ab" * 16, "c", "task", 1.0, kind=0))
    store.close()
    link.is_up = False
    assert page(make()) == (["ab" * 16], None, "file")
    assert asyncio.run(make().show("abab"))["task"]["state"] == "unfinished"
    with pytest.raises(ControlError, match="purged by the controller"):
        purge(make(), ended_before=5.0)


@pytest.mark.parametrize(
    ("database", "error", "words"),
    [
        ("none", NoRecords, "database: none"),
        ("memory", ControllerLost, "gone with it"),
        ("sqlite", ControllerLost, "nothing was recorded yet"),
        ("mongodb", ControllerLost, "database: mongodb"),
    ],
)
def test_what_cannot_be_known_without_a_controller(make, link, database, error, words):
    link.is_up = False
    with pytest.raises(error, match=words):
        page(make(database))

"""What a client is owed is told in pages: bounded in memory, in order, once; and nothing of it is lost or run again meanwhile."""

from __future__ import annotations

import pytest

from clusterd.controller import receipts
from clusterd.core.wire import messages as m
from clusterd.errors import StorageError
from clusterd.storage.taskstore import written
from tests.unit.controller.durable import FUNCTION, Cluster, result, submit
from tests.waiting import until

TASKS = [bytes([number]) * 16 for number in range(1, 11)]


@pytest.fixture
def cluster(isolated):
    root = isolated.root / "profile"
    root.mkdir(mode=0o700)
    cluster = Cluster(root)
    yield cluster
    cluster.world.reins.may_write.set()
    cluster.world.store.close()


@pytest.fixture
def in_threes(monkeypatch):
    monkeypatch.setattr(receipts, "PAGE_TASKS", 3)


def owed(cluster, tasks=TASKS, **fields):
    """A client that is away, to whom the outcomes of all tasks are owed by the next controller."""
    world = cluster.world
    client, engine = world.client(), world.engine()
    client.say(FUNCTION, *map(submit, tasks))
    world.turn()
    client.vanish()
    done = 0
    for _ in range(10 * len(tasks)):
        world.turn()
        world.commit()
        for dispatch in engine.messages(m.Dispatch):
            engine.say(result(dispatch, **fields))
            done += 1
    assert done == len(tasks)
    cluster.succeed()
    return client


def told(world, client):
    """The tasks that a client hears of in this turn."""
    world.commit()
    return [deliver.task for deliver in client.messages(m.Deliver)]


def test_a_page_at_a_time_in_order(cluster, in_threes):
    client = owed(cluster)
    world = cluster.world
    client = cluster.back(client)
    heard = told(world, client)
    assert heard == TASKS[:3]
    world.pass_time(3.0)
    assert told(world, client) == []
    for _ in range(10):
        client.acknowledge()
        world.turn()
        page = told(world, client)
        assert len(page) <= 3
        heard += page
    assert heard == TASKS
    assert world.store.owed_to(client.uuid.hex()) == []
    world.pass_time(receipts.PAST_SECONDS + 3)
    assert not world.tasks.ledger._receipts._pages


def test_pages_are_bounded_by_bytes_and_what_is_larger_goes_alone(cluster, monkeypatch):
    monkeypatch.setattr(receipts, "PAGE_BYTES", 10_000)
    client = owed(cluster, TASKS[:3], body=b"x" * 20_000)
    world = cluster.world
    client = cluster.back(client)
    for task in TASKS[:3]:
        assert told(world, client) == [task]
        client.acknowledge()
        world.turn()
    assert world.store.owed_to(client.uuid.hex()) == []


def test_what_is_still_to_be_told_is_not_run_again(cluster, in_threes):
    client = owed(cluster)
    world = cluster.world
    client, engine = cluster.back(client), world.engine()
    client.say(FUNCTION, *(submit(task, is_offered_again=True) for task in TASKS))
    heard = []
    for _ in range(10):
        world.pass_time(0.5)
        heard += told(world, client)
        client.acknowledge()
    # The first offer came with the acknowledgement of the first page, and was parked meanwhile.
    assert heard == TASKS
    assert engine.messages(m.Dispatch) == []


def test_who_is_gone_in_the_middle_is_told_the_rest_later(cluster, in_threes):
    client = owed(cluster)
    world = cluster.world
    client = cluster.back(client)
    heard = told(world, client)
    client.acknowledge()
    client.vanish()
    world.turn()
    client = cluster.back(client)
    for _ in range(10):
        heard += told(world, client)
        client.acknowledge()
        world.turn()
    # The second page was on its way when the first one was acknowledged: who is told twice knows it.
    assert list(dict.fromkeys(heard)) == TASKS
    assert world.store.owed_to(client.uuid.hex()) == []


def test_who_says_goodbye_in_the_middle_wants_the_rest_no_more(cluster, in_threes):
    client = owed(cluster)
    world = cluster.world
    client = cluster.back(client)
    assert told(world, client) == TASKS[:3]
    client.say(m.Goodbye("done"))
    world.turn()
    assert world.store.owed_to(client.uuid.hex()) == []


def test_what_ends_meanwhile_is_told_at_once_and_once(cluster, in_threes):
    client = owed(cluster)
    world = cluster.world
    client, engine = cluster.back(client), world.engine()
    new = b"n" * 16
    heard = told(world, client)
    client.say(FUNCTION, submit(new))
    world.turn()
    heard += told(world, client)
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result(dispatch))
    world.turn()
    for _ in range(10):
        heard += told(world, client)
        client.acknowledge()
        world.turn()
    assert sorted(heard) == sorted([*TASKS, new])
    assert [task for task in heard if task != new] == TASKS


def test_what_was_purged_meanwhile_holds_up_nothing(cluster, in_threes):
    client = owed(cluster)
    world = cluster.world
    client = cluster.back(client)
    heard = told(world, client)
    world.store.purge([task.hex() for task in TASKS[2:8]])
    for _ in range(10):
        client.acknowledge()
        world.turn()
        heard += told(world, client)
    assert heard == [*TASKS[:3], *TASKS[8:]]


@pytest.mark.parametrize("question", ["owed_to", "whole"])
def test_a_store_that_cannot_be_read_is_asked_again(cluster, monkeypatch, question):
    client = owed(cluster)
    world = cluster.world
    broken = [True]
    ask = getattr(world.store, question)

    def asked(*arguments):
        if broken:
            raise StorageError("it does not answer")
        return ask(*arguments)

    monkeypatch.setattr(world.store, question, asked)
    client = cluster.back(client)
    world.pass_time(2.0)
    assert told(world, client) == []
    broken.clear()
    world.pass_time(2.0)
    assert told(world, client) == TASKS


def test_when_what_is_owed_fills_the_store_new_tasks_are_refused(cluster, monkeypatch):
    monkeypatch.setattr(written, "EXCESS_SECONDS", 0.01)
    client = owed(cluster, body=b"x" * 20_000)
    world = cluster.world
    file = world.reins._backend
    file._max_bytes = 50_000
    client, other = cluster.back(client), world.client()
    until(lambda: world.store.flush() and world.store.refusal, "it is full")
    other.say(FUNCTION, submit(b"n" * 16))
    world.turn()
    world.commit()
    (failed,) = other.messages(m.Failed)
    assert failed.code == "storage"
    assert "owed to clients takes" in failed.message
    status = world.requests.status(world.now)
    assert "owed to clients takes" in status["commits"]["trouble"]
    assert told(world, client) == TASKS
    client.acknowledge()
    world.turn()
    until(lambda: world.store.flush() and not world.store.refusal, "there is room again")
    other.say(submit(b"o" * 16))
    world.turn()
    world.commit()
    assert other.messages(m.Failed) == []

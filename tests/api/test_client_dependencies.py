"""Dependencies and bounded streams on real engines: what waits, what goes where, and what can never be met says so."""

from __future__ import annotations

import itertools
import os
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from clusterd import Dependency
from clusterd.errors import TaskTimeout, TaskUnschedulable
from tests.waiting import until


def wait_for(path):
    """End when the file is there."""
    deadline = time.monotonic() + 60
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.005)
    return os.getpid()


def fail():
    raise ValueError("on purpose")


@pytest.fixture
def gate(isolated):
    """A path; what waits for it ends when it is touched."""
    return isolated.home / "gate"


def test_all_or_any_of_them(client, gate):
    view = client.load_balanced_view()
    slow, fast = client[0].apply_async(wait_for, str(gate)), client[1].apply_async(abs, -1)
    elsewhere = client.load_balanced_view([1])
    both = elsewhere.with_options(after=[slow, fast]).apply_async(abs, -2)
    either = elsewhere.with_options(after=Dependency([slow, fast], all=False)).apply_async(abs, -3)
    assert either.result(30) == 3
    assert client.queue_status()["waiting"] == 1
    assert not slow.done()
    assert not both.done()
    gate.touch()
    assert both.result(30) == 2
    assert slow.done()
    # What has ended already is waited for too.
    assert view.with_options(after=both).apply_sync(abs, -4) == 4


def test_success_or_failure(client):
    view = client.load_balanced_view()
    good, bad = view.apply_async(abs, -1), view.apply_async(fail)
    clean_up = view.with_options(after=Dependency(bad, success=False, failure=True)).apply_async(abs, -2)
    whatever = view.with_options(after=Dependency([good, bad], failure=True)).apply_async(abs, -3)
    any_good = view.with_options(after=Dependency([bad, good], all=False)).apply_async(abs, -4)
    assert [future.result(30) for future in (clean_up, whatever, any_good)] == [2, 3, 4]
    never = view.with_options(after=[good, bad]).apply_async(abs, -5)
    with pytest.raises(TaskUnschedulable, match=f"`after` dependency can not be met: task {bad.task_id} failed"):
        never.result(30)
    not_needed = view.with_options(after=Dependency(good, success=False, failure=True)).apply_async(abs, -6)
    with pytest.raises(TaskUnschedulable, match=f"task {good.task_id} succeeded"):
        not_needed.result(30)
    # A chain ends as a whole.
    last = view.with_options(after=view.with_options(after=never).apply_async(abs, 1)).apply_async(abs, 1)
    with pytest.raises(TaskUnschedulable):
        last.result(30)


def test_what_was_aborted_counts_as_failed(client, gate):
    running = client[0].apply_async(wait_for, str(gate))
    queued = client[0].apply_async(abs, -1)
    view = client.load_balanced_view([1])
    after_it = view.with_options(after=queued).apply_async(abs, -2)
    anyway = view.with_options(after=Dependency(queued, failure=True)).apply_async(abs, -3)
    assert queued.cancel()
    assert anyway.result(30) == 3
    with pytest.raises(TaskUnschedulable):
        after_it.result(30)
    with pytest.raises(CancelledError):
        queued.result(30)
    gate.touch()
    assert running.result(30)


def test_follow_goes_where_the_others_ran(client):
    view = client.load_balanced_view()
    pids = dict(zip(client.ids, client[:].apply_sync(os.getpid), strict=True))
    for engine in client.ids * 3:
        there = client[engine].apply_async(abs, -1)
        future = view.with_options(follow=there).apply_async(os.getpid)
        assert future.result(30) == pids[engine]
        assert future.engine_id == engine
    everywhere = client[:].apply_async(abs, -1)
    either = view.with_options(follow=Dependency(everywhere, all=False)).apply_async(os.getpid)
    assert either.result(30) in pids.values()
    impossible = view.with_options(follow=everywhere).apply_async(os.getpid)
    with pytest.raises(TaskUnschedulable, match="ran on another engine than those before it"):
        impossible.result(30)


def test_a_wait_has_an_end(client, gate):
    running = client[:].apply_async(wait_for, str(gate))
    view = client.load_balanced_view().with_options(max_wait=0.2)
    with pytest.raises(TaskTimeout, match=r"it waited 0.2 s for an engine"):
        view.apply_async(abs, -1).result(30)
    with pytest.raises(TaskTimeout, match=r"it waited 0.2 s for"):
        view.with_options(after=running).apply_async(abs, -1).result(30)
    gate.touch()
    running.result(30)
    assert view.apply_sync(abs, -1) == 1


def test_a_map_may_depend_on_calls(client, gate):
    first = client[0].apply_async(wait_for, str(gate))
    future = client.load_balanced_view([1]).with_options(after=first).map_async(abs, range(-5, 0))
    until(lambda: client.queue_status()["waiting"], "a chunk waits")
    assert not future.done()
    gate.touch()
    assert future.result(30) == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_stream_is_bounded(client, ordered):
    taken = 0

    def numbers():
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield number

    stream = client.load_balanced_view().imap(abs, numbers(), max_outstanding=10, ordered=ordered)
    got, ahead = [], []
    for value in itertools.islice(stream, 500):
        got.append(value)
        ahead.append(taken - len(got))
    stream.close()
    assert max(ahead) <= 10
    assert got == list(range(500)) if ordered else len(set(got)) == 500
    # Nothing of it is left behind.
    until(lambda: client.queue_status()["unassigned"] == 0, "the queues are empty")
    assert client[:].apply_sync(abs, -1) == [1, 1]

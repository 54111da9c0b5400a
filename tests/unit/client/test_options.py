"""What is said about tasks beside their calls: labels, dependencies, options of one call; and how far a stream runs ahead."""

from __future__ import annotations

import itertools
import threading

import pytest

import clusterd
from clusterd.core.wire import messages as m
from tests.waiting import until


def double(x):
    return 2 * x


def test_labels_travel(client, controller):
    client.load_balanced_view(label="fit").apply_sync(abs, 1)
    client.direct_view([0], label="einzeln — prüfen").apply_sync(abs, 1)
    client[0].with_options(label="one").push({"a": 1}, block=True)
    client.load_balanced_view().with_options(label="map").map_sync(abs, [1])
    client.load_balanced_view(label=None).apply_sync(abs, 1)
    labels = ["" if submit.options is None else submit.options.label for submit in controller.submits]
    assert labels == ["fit", "einzeln — prüfen", "one", "map", ""]


@pytest.mark.parametrize(
    ("label", "error"),
    [(5, TypeError), (b"bytes", TypeError), (["a"], TypeError), ("x" * 257, ValueError), ("half \ud800", ValueError)],
)
def test_a_label_that_cannot_travel_is_refused_at_once(client, connect, controller, label, error):
    view = client.load_balanced_view()
    for use in (
        lambda: client.load_balanced_view(label=label),
        lambda: client.direct_view(label=label),
        lambda: view.with_options(label=label),
        lambda: connect(label=label),
    ):
        with pytest.raises(error):
            use()
    view.label = label
    for use in (view.apply_async, view.map_sync, lambda *_: list(view.imap(abs, [1]))):
        with pytest.raises(error):
            use(abs, [1])
    everybody = client[:]
    everybody.label = label
    with pytest.raises(error):
        everybody.execute("1")
    # Nothing of it reached the controller, and the client goes on.
    assert controller.submits == []
    assert client[0].apply_sync(abs, -1) == 1


def test_options_of_one_call_change_no_view(client, controller):
    view = client.load_balanced_view(retries=1)
    other = view.with_options(retries=4, label="once", block=True)
    assert other.apply(abs, -3) == 3
    assert (view.retries, view.label, view.block) == (1, "", False)
    assert view.apply(abs, -3).result(10) == 3
    assert [submit.options.retries for submit in controller.submits] == [4, 1]
    with pytest.raises(
        AttributeError, match="no flag 'retry'; there are after, block, follow, label, max_wait, retries, timeout"
    ):
        view.with_options(retry=1)
    with pytest.raises(TypeError, match="retries"):
        view.with_options(retries="3")
    with pytest.raises(AttributeError, match="no flag 'after'"):
        client[:].with_options(after=None)


def test_a_task_may_say_how_long_it_waits(client, controller):
    view = client.load_balanced_view()
    assert view.with_options(max_wait=2).apply_sync(abs, -1) == 1
    assert controller.submits[-1].options.max_wait == 2.0
    for wrong, error in ((0, ValueError), (float("nan"), ValueError), ("2", TypeError), (True, TypeError)):
        with pytest.raises(error):
            view.with_options(max_wait=wrong)


def test_dependencies_say_what_counts(client, controller):
    view = client.load_balanced_view()
    first, both = view.apply_async(abs, -1), client[:].apply_async(abs, -1)
    first.result(10)
    both.result(10)
    for wait, expected in (
        (first, m.Dependency([first._id])),
        ([first, both], m.Dependency([first._id, *(task._id for task in both.tasks)])),
        (clusterd.Dependency(first), m.Dependency([first._id])),
        (
            clusterd.Dependency([first, both.tasks[0]], all=False, failure=True),
            m.Dependency([first._id, both.tasks[0]._id], False, True, True),
        ),
        (
            clusterd.Dependency([first], success=False, failure=True),
            m.Dependency([first._id], True, False, True),
        ),
        (clusterd.Dependency(first.task_id), m.Dependency([first._id])),
        (first.task_id, m.Dependency([first._id])),
    ):
        view.with_options(after=wait).apply_sync(abs, 1)
        assert controller.submits[-1].options.after == expected
        view.with_options(follow=wait).apply_sync(abs, 1)
        assert controller.submits[-1].options.follow == expected
    for nothing in (None, [], (), clusterd.Dependency([])):
        view.with_options(after=nothing).apply_sync(abs, 1)
        options = controller.submits[-1].options
        assert options is None or options.after is None
    assert repr(clusterd.Dependency([first, both], all=False, failure=True)) == (
        "<Dependency on any of 3 tasks: success or failure>"
    )


def test_dependencies_that_are_none(view):
    with pytest.raises(ValueError, match="never met"):
        clusterd.Dependency([], success=False)
    for wrong in ("me", 5, ["ab"], {"a": 1}, "f" * 31):
        with pytest.raises(TypeError, match="a dependency is a future"):
            clusterd.Dependency(wrong)
        with pytest.raises(TypeError, match="a dependency is a future"):
            view.with_options(after=wrong)
    with pytest.raises(TypeError, match="one Dependency for each"):
        clusterd.Dependency([clusterd.Dependency([])])


def test_a_dependency_holds_its_futures_for_a_new_controller(view, controller):
    wait = clusterd.Dependency([view.apply_async(abs, -1)], all=False, failure=True)
    wait.tasks[0].result(10)
    controller.is_holding = True
    with view.temp_flags(after=wait):
        second = view.apply_async(abs, -2)
    until(lambda: len(controller.held) == 1, "the task at the controller")
    controller.do(controller.held.clear)
    controller.drop_connections()
    until(lambda: len(controller.held) == 1, "the task at the controller again")
    assert controller.submits[-1].options.after is None
    controller.release()
    assert second.result(10) == 2


def test_what_is_cancelled_before_it_is_sent_counts_as_failed(view, controller):
    controller.is_holding = True
    # One task at a time is sent, and the others wait in the client.
    controller.limits.max_tasks = 1
    controller.drop_connections()
    until(lambda: view.client._connection.tasks.limits.max_tasks == 1, "the new limits")
    running = view.apply_async(abs, -1)
    until(lambda: len(controller.held) == 1, "the first task")
    unsent = view.apply_async(abs, -2)
    anyway = view.with_options(after=clusterd.Dependency([unsent, running], failure=True)).apply_async(abs, -3)
    only_then = view.with_options(after=unsent).apply_async(abs, -4)
    assert unsent.cancel()
    controller.is_holding = False
    controller.release()
    assert anyway.result(10) == 3
    assert only_then.result(10) == 4
    after = [submit.options.after for submit in controller.submits[1:]]
    assert after[0] is None or after[0].tasks == [running._id]
    # It can never be met, and the controller is the one that says so.
    assert after[1].tasks == [unsent._id]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("bound", [1, 3, 8, 100])
def test_a_stream_takes_no_more_items_than_it_may(view, controller, bound, ordered):
    taken = 0

    def numbers():
        nonlocal taken
        for number in itertools.count():
            taken = number + 1
            yield number

    ahead = []
    stream = view.imap(double, numbers(), max_outstanding=bound, ordered=ordered)
    got = []
    for value in itertools.islice(stream, 300):
        got.append(value)
        # The one that is given out just now counts until the next is asked for, with the rest of its chunk.
        ahead.append(taken - len(got))
    stream.close()
    assert sorted(got) == [2 * number for number in range(300)] if ordered else len(set(got)) == 300
    assert max(ahead) <= bound


def test_chunks_are_so_small_that_every_engine_gets_some(view, controller, in_thread):
    controller.is_holding = True
    stream = view.imap(double, itertools.count(), max_outstanding=8, chunksize=100)

    def read():
        # Two engines, and one chunk behind each: four chunks of two.
        until(lambda: len(controller.held) == 4, "as much as may be outstanding")
        controller.is_holding = False
        controller.release()

    reader = threading.Thread(target=read)
    reader.start()
    assert in_thread(next, stream) == 0
    reader.join(30)
    stream.close()


@pytest.mark.parametrize(("bound", "error"), [(0, ValueError), (-1, ValueError), ("4", TypeError), (True, TypeError)])
def test_a_bound_is_a_number_of_items(view, bound, error):
    with pytest.raises(error, match="max_outstanding"):
        view.imap(double, [1], max_outstanding=bound)

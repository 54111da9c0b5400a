"""Maps: lazy, bounded, ordered or not; the first failure ends them; chunks that suit their items."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
import time

import pytest

from clusterd.client.items import Items
from clusterd.client.pace import AHEAD_SECONDS, CHUNK_SECONDS, LEAST_AHEAD, MAX_BYTES, MAX_ITEMS, MOST_AHEAD, Pace
from clusterd.errors import ClusterdError, TaskAborted, TaskNotSendable
from tests.waiting import until


def square(x):
    return x * x


def picky(x):
    if x == 13:
        raise ValueError("unlucky")
    return x


def test_all_ways(view):
    expected = [x * x for x in range(1000)]
    assert view.map_sync(square, range(1000)) == expected
    assert view.map(square, range(1000), block=True) == expected
    assert view.map(square, range(1000)).result(10) == expected
    assert list(view.map_async(square, iter(range(1000)))) == expected
    assert sorted(view.map_async(square, range(1000), ordered=False)) == expected
    assert sorted(view.map_sync(square, range(1000), ordered=False)) == expected
    assert list(view.imap(square, range(1000))) == expected
    assert sorted(view.imap(square, range(1000), ordered=False)) == expected
    assert view.map_sync(square, (x for x in range(1000))) == expected
    view.block = True
    assert view.map(square, range(10)) == expected[:10]


def test_on_chosen_engines(client, controller):
    assert client[:].map_sync(square, range(5)) == [0, 1, 4, 9, 16]
    assert controller.submits[-1].target == [0, 1]
    assert client[1].map_sync(square, range(5)) == [0, 1, 4, 9, 16]
    assert controller.submits[-1].target == 1


def test_several_iterables_end_with_the_shortest(view):
    assert view.map_sync(pow, [1, 2, 3], (2, 2), itertools.count(3)) == [1 % 3, 4 % 4]


def test_nothing(view):
    for empty in ([], iter(()), range(0), ""):
        assert view.map_sync(square, empty) == []
        assert list(view.map_async(square, empty)) == []
        assert list(view.imap(square, empty)) == []


@pytest.mark.parametrize("chunksize", [1, 3, 7, 1000])
def test_chunks_of_a_chosen_size(view, controller, chunksize):
    assert view.map_sync(square, range(20), chunksize=chunksize) == [x * x for x in range(20)]
    assert len(controller.submits) == -(-20 // chunksize)


def test_it_is_a_future(view):
    future = view.map_async(square, range(100))
    assert isinstance(future, concurrent.futures.Future)
    assert concurrent.futures.wait([future], timeout=10).done == {future}
    assert future.result() is future.result()
    assert (future.progress, future.total) == (100, 100)
    assert future.wait_interactive(10)
    assert sum(len(chunk.result()) for chunk in future.tasks) == 100
    assert "100 of 100" in repr(future)


def test_the_failure_that_comes_first_in_order_is_raised(view):
    future = view.map_async(picky, range(100), chunksize=5)
    with pytest.raises(ValueError, match="unlucky") as caught:
        future.result(10)
    assert "item 13, " in caught.value.__notes__[0]
    found = []
    with pytest.raises(ValueError, match="unlucky"):
        found.extend(view.map_async(picky, range(100), chunksize=5))
    with pytest.raises(ValueError, match="unlucky"):
        view.map_sync(picky, itertools.count(), chunksize=5)
    with pytest.raises(ValueError, match="unlucky"):
        list(view.map_async(picky, range(100), chunksize=5, ordered=False))
    with pytest.raises(ValueError, match="unlucky"):
        list(view.imap(picky, itertools.count(), chunksize=5))


def test_what_came_before_a_failure_is_given(view):
    results = iter(view.map_async(picky, range(100), chunksize=5))
    assert [next(results) for _ in range(10)] == list(range(10))
    with pytest.raises(ValueError, match="unlucky"):
        next(results)


def broken(count):
    yield from range(count)
    raise LookupError("no more")


def test_an_iterable_that_raises(view):
    for how in (view.map_sync, lambda *args: view.map_async(*args).result(10), lambda *args: list(view.imap(*args))):
        with pytest.raises(LookupError, match="no more"):
            how(square, broken(10))
    assert view.map_sync(square, [2]) == [4]


def test_an_item_that_cannot_be_sent(view):
    with pytest.raises(TaskNotSendable, match="item 1 of a chunk for square"):
        view.map_sync(square, [1, threading.Lock()], chunksize=2)


def test_bad_arguments(view):
    with pytest.raises(TypeError, match="at least one iterable"):
        view.map(square)
    with pytest.raises(TypeError, match="not iterable"):
        view.map(square, 5)
    with pytest.raises(TypeError, match="a function is needed"):
        view.map(5, [1])
    for chunksize, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error, match="chunksize"):
            view.map_async(square, [1], chunksize=chunksize)
    with pytest.raises(ValueError, match="max_outstanding"):
        view.imap(square, [1], max_outstanding=0)


def test_an_endless_map_takes_no_more_than_it_needs(view, controller):
    controller.is_holding = True
    taken = itertools.count()
    future = view.map_async(square, taken)
    until(lambda: len(controller.held) == 2 * LEAST_AHEAD, "the first chunks")
    assert next(taken) == 2 * LEAST_AHEAD
    assert future.total is None
    assert future.abort()
    with pytest.raises(TaskAborted):
        future.result(10)
    assert not future.abort()


def test_a_stream_waits_for_its_reader(view, controller):
    taken = itertools.count()
    stream = view.imap(square, taken, max_outstanding=3, chunksize=1)
    assert next(taken) == 0
    assert [next(stream), next(stream)] == [1, 4]
    # The first is read, the second is being read.
    until(lambda: len(controller.submits) == 4, "three chunks not yet read")
    stream.close()
    until(lambda: not any(thread.name == "clusterd-map" for thread in threading.enumerate()), "the end of the feeding")
    assert next(taken) == 5


def test_a_stream_that_nobody_reads_costs_nothing(view, controller):
    stream = view.imap(square, itertools.count())
    assert controller.submits == []
    del stream


def test_cancel(view, controller):
    controller.is_holding = True
    future = view.map_async(square, range(1000))
    until(lambda: controller.held, "the first chunks")
    assert future.cancel()
    assert future.wait(10)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(10)
    assert future.cancelled()


def test_a_map_that_is_dropped_goes_on(view, controller):
    view.map_async(square, iter(range(50)), chunksize=1)
    until(lambda: len(controller.submits) == 50, "all chunks")


def test_results_arrive_while_items_are_still_made(view):
    more = threading.Event()

    def items():
        yield 1
        yield 2
        assert more.wait(10)
        yield 3

    results = iter(view.map_async(square, items(), chunksize=1))
    assert [next(results), next(results)] == [1, 4]
    more.set()
    assert list(results) == [9]


def test_unordered_results_come_as_they_end(view, controller):
    controller.is_holding = True
    results = iter(view.map_async(square, range(4), chunksize=1, ordered=False))
    until(lambda: len(controller.held) == 4, "the chunks")
    controller.do(controller.held.reverse)
    controller.release(count=1)
    assert next(results) == 9
    controller.release()
    assert list(results) == [4, 1, 0]


# --- the parts ---


def test_chunks_aim_at_a_run_time():
    pace = Pace(None)
    assert pace.next_size(None, 4) == 1
    assert pace.ahead(4) == 4 * LEAST_AHEAD
    pace.ended(1, CHUNK_SECONDS / 1000, 10)
    assert pace.next_size(None, 4) == 16
    pace.ended(16, 16 * CHUNK_SECONDS / 1000, 160)
    assert pace.next_size(None, 4) == 256
    for _ in range(20):
        pace.ended(256, 256 * CHUNK_SECONDS / 1000, 2560)
    assert pace.next_size(None, 4) == pytest.approx(1000, abs=1)
    pace.ended(1000, 100 * CHUNK_SECONDS, 10)
    assert pace.next_size(None, 4) == pytest.approx(10, abs=1)
    assert pace.ahead(4) == 4 * LEAST_AHEAD


def test_items_that_take_long_go_alone():
    pace = Pace(None)
    pace.ended(1, 3600.0, 10)
    assert pace.next_size(None, 4) == 1
    pace.ended(1, 0.0, 10)
    assert pace.next_size(None, 4) == 1


def test_chunks_are_bounded():
    pace = Pace(None)
    for count in (1, 16, 256, 4096, 65536, 65536):
        pace.ended(count, 0.0, count)
    assert pace.next_size(None, 4) == MAX_ITEMS
    assert pace.ahead(2) == 2 * MOST_AHEAD
    pace.sent(1, MAX_BYTES // 10)
    assert pace.next_size(None, 4) == 10
    pace.ended(1, 0.0, 5 * MAX_BYTES)
    assert pace.next_size(None, 4) == 1


def test_chunks_shrink_towards_the_end():
    pace = Pace(None)
    for count in (1, 16, 256, 4096):
        pace.ended(count, 0.0, count)
    assert [pace.next_size(left, 4) for left in (1000, 100, 9, 8, 1)] == [125, 13, 2, 1, 1]


def test_small_chunks_of_a_chosen_size_are_many_at_once():
    pace = Pace(1)
    pace.ended(1, AHEAD_SECONDS / 100, 10)
    assert pace.ahead(1) == 100
    assert pace.next_size(1000, 1) == 1


def test_a_slow_iterator_gives_what_it_has():
    def slow():
        for number in range(100):
            time.sleep(0.02)
            yield number

    items = Items((slow(),))
    began = time.monotonic()
    [first] = items.take(1000)
    assert len(first) < 10
    assert time.monotonic() - began < 1
    assert items.taken == len(first)
    assert items.left is None


def test_items_know_how_many_are_left():
    items = Items(([1, 2, 3], "ab"))
    assert (items.total, items.left) == (2, 2)
    assert items.take(1) == ([1], ["a"])
    assert items.left == 1
    assert items.take(5) == ([2], ["b"])
    assert items.take(5) is None


def test_a_closed_client_fails_the_map(view, controller):
    controller.is_holding = True
    future = view.map_async(square, iter(range(10**6)))
    until(lambda: controller.held, "the first chunks")
    view.client.close()
    with pytest.raises(ClusterdError, match="closed"):
        future.result(10)

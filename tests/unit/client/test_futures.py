"""Futures are those of the standard library, for everybody who handles futures, and say more."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading

import pytest

from clusterd.errors import ClusterdError, CompositeError, TaskAborted
from tests.waiting import until


def add(a, b=1):
    return a + b


def fail(text):
    raise KeyError(text)


def test_it_is_a_future_of_the_standard_library(view):
    future = view.apply_async(add, 41)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(timeout=10) == 42
    assert future.done()
    assert not future.cancelled()
    assert not future.running()
    assert future.exception() is None


def test_wait_and_as_completed_know_it(view, controller):
    controller.is_holding = True
    futures = [view.apply_async(add, number) for number in range(20)]
    until(lambda: len(controller.held) == 20, "tasks at the controller")
    done, pending = concurrent.futures.wait(futures, timeout=0)
    assert (done, len(pending)) == (set(), 20)
    controller.release(count=5)
    first = next(concurrent.futures.as_completed(futures, timeout=10))
    assert first in futures
    assert concurrent.futures.wait(futures, timeout=10, return_when="FIRST_COMPLETED").done
    controller.release()
    assert sorted(future.result() for future in concurrent.futures.as_completed(futures, timeout=10)) == list(
        range(1, 21)
    )
    assert concurrent.futures.wait(futures, timeout=0).not_done == set()


def test_as_completed_gives_each_once_while_they_end(view):
    for _ in range(20):
        futures = [view.apply_async(add, number) for number in range(50)]
        found = list(concurrent.futures.as_completed(futures, timeout=10))
        assert len(found) == 50
        assert set(found) == set(futures)


def test_wait_for_the_first_exception(view, controller):
    controller.is_holding = True
    futures = [view.apply_async(add, 1), view.apply_async(fail, "x"), view.apply_async(add, 2)]
    until(lambda: len(controller.held) == 3, "tasks at the controller")
    box = []
    thread = threading.Thread(
        target=lambda: box.append(concurrent.futures.wait(futures, timeout=10, return_when="FIRST_EXCEPTION"))
    )
    thread.start()
    until(lambda: all(future._gate is not None for future in futures), "the waiter")
    controller.release(count=2)
    thread.join()
    assert futures[1] in box[0].done
    assert futures[2] in box[0].not_done
    controller.release()


def test_asyncio_awaits_it(view):
    async def main():
        first = await asyncio.wrap_future(view.apply_async(add, 1))
        second = await view.apply_async(add, first)
        both = await asyncio.gather(*map(asyncio.wrap_future, [view.apply_async(add, 10), view.apply_async(add, 20)]))
        with pytest.raises(KeyError, match="lost"):
            await view.apply_async(fail, "lost")
        return [first, second, *both]

    assert asyncio.run(main()) == [2, 3, 11, 21]


def test_asyncio_cancels_it(view, controller):
    controller.is_holding = True

    async def main():
        future = view.apply_async(add, 1)
        waiting = asyncio.ensure_future(asyncio.wrap_future(future))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return future

    future = asyncio.run(main())
    assert future.wait(10)
    assert future.cancelled()


def test_callbacks(view, controller):
    controller.is_holding = True
    seen, ended = [], threading.Event()
    future = view.apply_async(add, 1)
    future.add_done_callback(lambda done: seen.append(done.result()))
    future.add_done_callback(lambda _done: 1 / 0)
    future.add_done_callback(lambda _done: ended.set())
    until(lambda: controller.held, "the task at the controller")
    controller.release()
    assert ended.wait(10)
    future.add_done_callback(seen.append)
    assert seen == [2, future]


def test_a_callback_that_waits_for_another_result_is_told_so(view, controller):
    controller.is_holding = True
    other, future, box = view.apply_async(add, 5), view.apply_async(add, 1), []

    def wait_inside(_done):
        try:
            box.append(other.result(5))
        except RuntimeError as error:
            box.append(str(error))

    future.add_done_callback(wait_inside)
    until(lambda: len(controller.held) == 2, "the tasks at the controller")
    controller.do(controller.held.reverse)
    controller.release()
    assert other.result(10) == 6
    assert "callback" in until(lambda: box, "the callback")[0]


def test_what_it_tells_of_its_task(client, controller):
    controller.is_holding = True
    future = client[1].apply_async(add, 1)
    assert (future.engine_id, future.attempt, future.started, future.stdout) == (None, None, None, "")
    until(lambda: controller.held, "the task at the controller")
    controller.release()
    assert future.result(10) == 2
    assert (future.engine_id, future.attempt) == (1, 0)
    assert len(future.task_id) == 32
    assert future.submitted <= future.started <= future.finished
    assert future.elapsed >= 0
    assert (future.stdout, future.stderr, future.display) == ("", "", [])
    assert future.task_id in repr(future)
    assert "finished" in repr(future)


def test_a_remote_error_keeps_type_traceback_engine_and_task(view):
    future = view.apply_async(fail, "lost")
    with pytest.raises(KeyError, match="lost") as caught:
        future.result(10)
    assert "in fail" in str(caught.value.__cause__)
    assert "raise KeyError" in str(caught.value.__cause__)
    assert "fake/engines/0" in caught.value.__notes__[0]
    assert future.task_id in caught.value.__notes__[0]
    # Each thread and each call gets the same one, and it is noted once.
    assert future.exception() is caught.value
    assert len(caught.value.__notes__) == 1


class Unloadable:
    def __reduce__(self):
        return (int, ("not a number",))


def test_a_result_that_cannot_be_unpickled_is_an_error_of_its_future(view):
    future = view.apply_async(Unloadable)
    with pytest.raises(ValueError, match="not a number") as caught:
        future.result(10)
    assert future.task_id in caught.value.__notes__[0]
    assert view.apply_sync(add, 1) == 2


def test_several_threads_get_one_object(view):
    for _ in range(20):
        future = view.apply_async(list, range(3))
        found = []
        threads = [
            threading.Thread(target=lambda future=future, found=found: found.append(future.result())) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(value is found[0] for value in found)


def test_timeouts(view, controller):
    controller.is_holding = True
    future = view.apply_async(add, 1)
    for seconds in (0, 0.001, -1):
        with pytest.raises(TimeoutError, match="has not ended"):
            future.result(seconds)
        assert not future.wait(seconds)
    controller.release()
    assert future.result(1e12) == 2


def test_its_result_cannot_be_set_by_others(view):
    future = view.apply_async(add, 1)
    with pytest.raises(RuntimeError):
        future.set_result(1)
    with pytest.raises(RuntimeError):
        future.set_exception(ValueError())


def test_cancel_of_what_waits_at_the_controller(view, controller):
    controller.is_holding = True
    future = view.apply_async(add, 1)
    until(lambda: controller.held, "the task at the controller")
    assert future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(10)
    assert future.cancel()
    assert future.cancelled()
    assert concurrent.futures.wait([future], timeout=0).done


def test_abort_raises_task_aborted(view, controller):
    controller.is_holding = True
    future = view.apply_async(add, 1)
    until(lambda: controller.held, "the task at the controller")
    assert future.abort()
    with pytest.raises(TaskAborted):
        future.result(10)
    assert not future.abort()


def test_what_has_ended_cannot_be_cancelled(view):
    future = view.apply_async(add, 1)
    assert future.result(10) == 2
    assert not future.cancel()


def test_an_aggregate_is_a_future_too(client):
    future = client[:].apply_async(add, 1)
    assert isinstance(future, concurrent.futures.Future)
    assert concurrent.futures.wait([future], timeout=10).done == {future}
    assert future.result() == [2, 2]
    assert list(future) == [2, 2]
    assert len(future) == future.progress == 2
    assert [task.engine_id for task in future.tasks] == [0, 1]


def test_one_failure_is_raised_as_it_is_and_several_together(client):
    def where(bad):
        import threading  # noqa: PLC0415

        if bad:
            raise ValueError(f"bad on {threading.current_thread().name}")

    with pytest.raises(CompositeError, match="2 of 2 engines failed") as caught:
        client[:].apply_async(where, True).result(10)
    assert [engine for engine, _ in caught.value.errors] == [0, 1]
    assert all(isinstance(error, ValueError) for _, error in caught.value.errors)
    client[0]["x"] = 1
    with pytest.raises(NameError, match="'x'"):
        client[:].pull("x").result(10)


def test_an_aggregate_is_cancelled_as_a_whole(client, controller):
    controller.is_holding = True
    future = client[:].apply_async(add, 1)
    until(lambda: len(controller.held) == 2, "the tasks at the controller")
    assert future.cancel()
    assert future.wait(10)
    assert future.cancelled()


def test_futures_outlive_their_client(connect, controller):
    controller.is_holding = True
    future = connect().load_balanced_view().apply_async(add, 1)
    # The fixture's list holds the client; what a user drops is collected.
    connect.__closure__[0].cell_contents.clear()
    gc.collect()
    controller.release() if controller.held else until(lambda: controller.held, "the task")
    controller.release()
    assert future.result(10) == 2
    until(lambda: future._owner.is_closed, "the end of the connection")


def test_a_closed_client_fails_what_is_unfinished(client, view, controller):
    controller.is_holding = True
    future = view.apply_async(add, 1)
    client.close()
    with pytest.raises(TaskAborted, match="closed"):
        future.result(10)
    with pytest.raises(ClusterdError, match="closed"):
        view.apply_async(add, 1)
    client.close()

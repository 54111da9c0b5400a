"""The executor is one of concurrent.futures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading

import pytest

from clusterd.errors import TaskNotSendable
from tests.waiting import until


@pytest.fixture
def executor(client):
    return client.executor()


def test_submit_and_map(executor):
    assert isinstance(executor, concurrent.futures.Executor)
    assert executor.submit(pow, 2, 5).result(10) == 32
    assert executor.submit(int, "ff", base=16).result(10) == 255
    assert list(executor.map(pow, [1, 2, 3], [2, 2, 2])) == [1, 4, 9]
    assert list(executor.map(abs, range(100), chunksize=7, timeout=10)) == list(range(100))
    assert next(executor.map(abs, iter(range(10**9)))) == 0


def test_after_shutdown_it_takes_nothing(executor):
    with executor:
        future = executor.submit(abs, -1)
    assert future.done()
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(abs, 1)
    with pytest.raises(RuntimeError, match="shut down"):
        executor.map(abs, [1])
    executor.shutdown()
    # The client is still there.
    assert executor.view.apply_sync(abs, -2) == 2


def test_shutdown_waits_also_for_what_was_dropped(executor, controller):
    controller.is_holding = True
    executor.submit(abs, 1)
    executor.map(abs, range(5), chunksize=1)
    until(lambda: len(controller.held) == 6, "the tasks")
    executor.shutdown(wait=False)
    thread = threading.Thread(target=executor.shutdown)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    controller.is_holding = False
    controller.release()
    thread.join(10)
    assert not thread.is_alive()


def test_shutdown_cancels(executor, controller):
    controller.is_holding = True
    futures = [executor.submit(abs, number) for number in range(5)]
    executor.map(abs, range(5))
    until(lambda: len(controller.held) > 5, "the tasks")
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)


def test_a_map_that_is_late(executor, controller):
    controller.is_holding = True
    with pytest.raises(TimeoutError):
        list(executor.map(abs, range(3), timeout=0.05))
    until(lambda: not controller.held, "the cancelling")


def test_in_an_event_loop(executor):
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, abs, -number) for number in range(10)))

    assert asyncio.run(main()) == list(range(10))


def test_what_cannot_be_sent(executor):
    with pytest.raises(TaskNotSendable, match="argument 0 of len"):
        executor.submit(len, threading.Lock())
    executor.shutdown()

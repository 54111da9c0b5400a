"""Whoever waits carries the messages; a signal never hits the middle of one; nobody else waits for it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import threading
import time

import pytest

from clusterd.client.helm import Helm
from tests.waiting import until

# By SIGALRM, the default, a handler that raises would be installed, and the main thread would not take the helm.
pytestmark = pytest.mark.timeout(60, method="thread")


@pytest.fixture
def turners(client, monkeypatch):
    """Names of the threads that turned the loop."""
    names = []
    loop, turn = client._connection.loop, type(client._connection.loop).turn

    def noted(*args, **options):
        names.append(threading.current_thread().name)
        return turn(loop, *args, **options)

    monkeypatch.setattr(loop, "turn", noted)
    return names


def test_a_waiting_main_thread_carries_its_messages(view, turners):
    before = signal.getsignal(signal.SIGINT)
    for number in range(20):
        assert view.apply_sync(abs, -number) == number
        assert view.apply_async(abs, -number).result() == number
    assert "MainThread" in turners
    assert signal.getsignal(signal.SIGINT) is before


def test_any_waiting_thread_does(view, turners, in_thread):
    assert in_thread(lambda: [view.apply_sync(abs, -number) for number in range(20)]) == list(range(20))
    assert any(name.startswith("Thread-") for name in turners)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGALRM, signal.SIGINT])
def test_not_where_a_handler_of_the_program_may_raise(view, turners, number):
    before = signal.signal(number, lambda *_: None)
    try:
        turners.clear()
        assert [view.apply_sync(abs, -number) for number in range(10)] == list(range(10))
        assert "MainThread" not in turners
    finally:
        signal.signal(number, before)


def test_others_get_their_results_meanwhile(view, controller):
    controller.is_holding = True
    mine, theirs, called = view.apply_async(abs, -1), view.apply_async(abs, -2), threading.Event()
    theirs.add_done_callback(lambda _done: called.set())
    found = []
    thread = threading.Thread(target=lambda: found.append(theirs.result(30)))
    thread.start()
    helm = view.client._connection._helm
    driver = threading.Thread(target=mine.result)
    driver.start()
    until(lambda: len(controller.held) == 2 and helm.is_driven, "a driver")
    controller.do(controller.held.reverse)
    controller.release(count=1)
    thread.join(10)
    assert found == [2]
    assert called.wait(10)
    assert not mine.done()
    controller.release()
    driver.join(10)
    assert mine.result() == 1


def test_others_get_their_results_after_the_driver_has_left(view, controller):
    for _ in range(20):
        assert view.apply_sync(abs, -1) == 1
        controller.is_holding = True
        futures = [view.apply_async(abs, -number) for number in range(5)]
        until(lambda: len(controller.held) == 5, "tasks")
        controller.is_holding = False
        controller.release()
        assert len(concurrent.futures.wait(futures, timeout=30).done) == 5


@pytest.fixture
def aside(view):
    """The view, right after a wait: nobody turns the loop, and the I/O thread would not for a long time."""

    def step_aside():
        helm = view.client._connection._helm
        view.apply_sync(abs, -1)
        # As if the wait had ended just now, for as long as a test lasts.
        helm._aside_until = time.monotonic() + 60.0
        helm._alarm.rouse()
        until(lambda: helm._alarm.is_awaited and helm._sleeps_until > time.monotonic() + 30.0, "an I/O thread aside")
        return view

    return step_aside


def test_a_lone_call_is_sent_by_its_thread_and_wakes_nobody(aside, turners, controller):
    view = aside()
    turners.clear()
    future = view.apply_async(abs, -2)
    until(lambda: len(controller.submits) == 2, "the task at the controller")
    assert turners == []
    assert future.result(10) == 2
    assert set(turners) == {"MainThread"}


def test_of_several_calls_the_io_thread_takes_care(aside):
    view = aside()
    futures = [view.apply_async(abs, -number) for number in range(2)]
    until(lambda: all(future._state == "FINISHED" for future in futures), "results that nobody asked for")


async def awaited(future):
    return await asyncio.wait_for(asyncio.wrap_future(future), 10)


@pytest.mark.parametrize(
    "look",
    [
        lambda future: until(future.done, "the end"),
        lambda future: concurrent.futures.wait([future], timeout=10).done.pop(),
        lambda future: next(concurrent.futures.as_completed([future], timeout=10)),
        lambda future: asyncio.run(awaited(future)),
    ],
    ids=["done", "wait", "as_completed", "asyncio"],
)
def test_who_watches_a_lone_call_without_waiting_for_it_sees_it_end(aside, look):
    future = aside().apply_async(abs, -2)
    look(future)
    assert future.done()


def test_a_callback_comes_without_anybody_waiting(view):
    for _ in range(20):
        assert view.apply_sync(abs, -1) == 1
        called = threading.Event()
        view.apply_async(abs, -2).add_done_callback(lambda _done, called=called: called.set())
        assert called.wait(30)


def test_a_callback_in_a_thread_that_drives_is_a_callback(view, controller):
    controller.is_holding = True
    other, future, problems = view.apply_async(abs, -1), view.apply_async(abs, -2), []
    done = threading.Event()

    def wait_inside(_done):
        try:
            other.result(1)
        except RuntimeError as error:
            problems.append(str(error))
        done.set()

    future.add_done_callback(wait_inside)
    until(lambda: len(controller.held) == 2, "tasks")
    controller.do(controller.held.reverse)
    thread = threading.Thread(target=future.result)
    thread.start()
    until(lambda: view.client._connection._helm.is_driven, "a driver")
    controller.release()
    assert done.wait(10)
    thread.join(10)
    assert "callback" in problems[0]
    assert other.result(10) == 1


def test_requests_and_tasks_of_many_threads(client, view):
    errors = []

    def work(number):
        try:
            for _ in range(30):
                assert view.apply_sync(abs, -number) == number
                assert client.queue_status()["engines"]
                assert view.apply_async(abs, -number).result(30) == number
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert errors == []


def test_ctrl_c_at_any_moment_leaves_everything_whole(view):
    """Interrupts hit the main thread wherever it is; what it asks for afterwards is answered, and nothing is left pending."""
    interrupts, is_over = 0, threading.Event()
    ready = threading.Event()

    def interrupt():
        while not is_over.is_set():
            if ready.wait(0.01):
                ready.clear()
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        for _ in range(300):
            try:
                ready.set()
                for number in range(20):
                    view.apply_sync(abs, -number)
            except KeyboardInterrupt:
                interrupts += 1
    finally:
        while True:
            try:
                is_over.set()
                thread.join()
                break
            except KeyboardInterrupt:
                continue
    assert interrupts > 100
    futures = [view.apply_async(abs, -number) for number in range(100)]
    assert [future.result(30) for future in futures] == list(range(100))
    tasks = view.client._connection.tasks
    until(lambda: not tasks.pending and not tasks.in_flight, "an end of all tasks", about=lambda: tasks.pending)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_seat_is_for_one(client):
    helm = client._connection._helm
    assert isinstance(helm, Helm)
    assert not helm.is_turning
    # As whoever carries messages does; else the I/O thread takes the seat again and again, and we may not get it for minutes.
    client._connection.loop.is_claimed = True
    helm.recall()
    with helm.held():
        assert helm.is_turning
    assert not helm.is_turning
    client._connection.loop.is_claimed = False
    helm.recall()

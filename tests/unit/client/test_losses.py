"""What happens when the controller, a connection or an answer is lost: nothing hangs, nothing ends twice, nothing is forgotten."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time

import pytest

from clusterd.core.wire import messages as m
from clusterd.errors import ClusterdError, ControllerLost, TaskAborted
from tests.waiting import until


def test_a_lost_connection_is_dialled_again_and_all_is_offered_again(view, controller):
    controller.is_holding = True
    futures = [view.apply_async(abs, -number) for number in range(10)]
    until(lambda: len(controller.held) == 10, "the tasks at the controller")
    first = [submit.task for submit in controller.submits]
    controller.do(controller.held.clear)
    controller.drop_connections()
    until(lambda: len(controller.held) == 10, "the tasks at the controller again")
    again = [submit for _, submit, _ in controller.held]
    assert [submit.task for submit in again] == first
    assert all(submit.is_offered_again for submit in again)
    controller.release()
    assert [future.result(10) for future in futures] == list(range(10))


def test_a_new_controller_is_offered_everything(view, controller):
    assert view.apply_sync(abs, -1) == 1
    controller.is_holding = True
    futures = [view.apply_async(abs, -number) for number in range(10)]
    until(lambda: len(controller.held) == 10, "the tasks at the controller")
    controller.stop(is_crash=True)
    more = [view.apply_async(abs, -number) for number in range(10, 20)]
    controller.is_holding = False
    controller.start()
    assert [future.result(20) for future in futures + more] == list(range(20))
    # The token of the first attach proves the second.
    assert len({message.uuid for _, message in controller.attached}) == 1
    assert {bool(message.token) for endpoint, message in controller.attached[2:]} == {True}


def test_results_that_come_twice_are_dropped(view, controller):
    calls = []
    future = view.apply_async(abs, -1)
    future.add_done_callback(calls.append)
    assert future.result(10) == 1
    task = controller.submits[-1].task
    controller.say(m.Deliver(task, 1, 0, 0, 0.0, 0.0, "", "", b"\x80\x05K\x63."))
    controller.say(m.Failed(task, 0, "timeout", "late"))
    assert view.apply_sync(abs, -2) == 2
    assert future.result() == 1
    assert calls == [future]


def test_failures_have_their_class_message_and_hint(view, controller):
    controller.is_holding = True
    for code, name in (
        ("engine_lost", "EngineLost"),
        ("timeout", "TaskTimeout"),
        ("unschedulable", "TaskUnschedulable"),
        ("aborted", "TaskAborted"),
        ("something new", "TaskError"),
    ):
        future = view.apply_async(abs, -1)
        until(lambda: controller.held, "the task")
        _, submit, _ = controller.do(controller.held.pop)
        controller.say(m.Failed(submit.task, 2, code, f"it was {code}", "do this", 1))
        error = future.exception(10)
        assert type(error).__name__ == name
        assert str(error) == f"it was {code}\ndo this"
        assert error.code == code
        assert (future.engine_id, future.attempt) == (1, 2)


def test_overloaded_tasks_wait_and_go_again(view, controller):
    controller.overloads = 3
    futures = [view.apply_async(abs, -number) for number in range(20)]
    assert [future.result(10) for future in futures] == list(range(20))
    assert len(controller.submits) == 23


def test_a_controller_that_does_not_come_back_is_given_up(connect, controller, capfd):
    client = connect(controller_timeout=0.5)
    view = client.load_balanced_view()
    controller.is_holding = True
    future = view.apply_async(abs, -1)
    until(lambda: controller.held, "the task")
    controller.stop()
    with pytest.raises(ControllerLost, match="'fake' has not answered") as caught:
        future.result(20)
    assert "clusterctl" in caught.value.hint
    with pytest.raises(ControllerLost):
        view.apply_async(abs, -1)
    with pytest.raises(ControllerLost):
        _ = client.ids
    assert capfd.readouterr().err.count("clusterd: no word from the controller") <= 1
    # It may come back later, and then the client is as good as new.
    controller.is_holding = False
    controller.start()
    until(lambda: client._connection.tasks.refusal is None, "the connection")
    assert view.apply_sync(abs, -3) == 3


def test_the_wait_for_a_lost_controller_is_announced_once(connect, controller, capfd, monkeypatch):
    monkeypatch.setattr("clusterd.client.patience.WARN_AFTER", 0.2)
    client = connect(controller_timeout=1.0)
    controller.is_holding = True
    future = client.load_balanced_view().apply_async(abs, -1)
    until(lambda: controller.held, "the task")
    controller.stop()
    assert isinstance(future.exception(20), ControllerLost)
    err = capfd.readouterr().err
    assert err.count("no word from the controller of 'fake'") == 1
    assert "1 unfinished tasks wait up to 1 s" in err


def test_a_silent_controller_is_dialled_anew_and_then_given_up(controller, connect):
    controller.limits.ping_interval = 0.05
    client = connect(controller_timeout=1.0)
    controller.is_silent = True
    future = client.load_balanced_view().apply_async(abs, -1)
    with pytest.raises(ControllerLost):
        future.result(20)
    controller.is_silent = False
    until(lambda: client._connection.tasks.refusal is None, "the connection")
    assert client.load_balanced_view().apply_sync(abs, -3) == 3


def test_questions_are_asked_again_and_commands_are_not(client, controller):
    requests = client._connection.requests
    controller.is_silent = True
    question = requests.ask(m.QueueStatus, None)
    command = requests.ask(m.EngineCommand, [0], "restart")
    # Pings are numbered, too: that a number was reached would not say that these two have gone.
    until(lambda: not requests.outbox, "the requests sent")
    controller.is_silent = False
    controller.drop_connections()
    assert "engines" in question.result(10)
    with pytest.raises(ControllerLost, match="during EngineCommand") as caught:
        command.result(10)
    assert "may have been carried out" in caught.value.hint


def test_close_wakes_everybody_who_waits(client, view, controller):
    controller.is_holding = True
    future = view.apply_async(abs, -1)
    errors, threads = [], []

    def wait(function):
        try:
            function()
        except ClusterdError as error:
            errors.append(error)

    for function in (
        future.result,
        lambda: view.map_sync(abs, [1, 2, 3]),
        lambda: client.wait_for_engines(50, timeout=None),
        lambda: next(view.imap(abs, [1])),
        lambda: list(view.map_async(abs, iter([1, 2]))),
        future.result,
    ):
        threads.append(threading.Thread(target=wait, args=(function,)))
        threads[-1].start()
    until(lambda: len(controller.held) > 2, "work")
    client.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert len(errors) == 6
    assert all(isinstance(error, TaskAborted) for error in errors)
    until(lambda: controller.goodbyes == 2, "two goodbyes")


def test_a_forked_child_cannot_use_the_client_of_its_parent(client, view, controller):
    controller.is_holding = True
    future = view.apply_async(abs, -1)
    until(lambda: controller.held, "the task")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            problems = []
            for function in (
                lambda: view.apply_async(abs, 1),
                lambda: future.result(5),
                lambda: client.ids,
                client.queue_status,
            ):
                try:
                    function()
                except ClusterdError as error:
                    problems.append("parent" in str(error))
            client.close()
            status = 0 if problems == [True] * 4 else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    controller.release()
    assert future.result(10) == 1
    assert view.apply_async(abs, -5) is not None


def interrupt_main():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_ctrl_c_leaves_the_client_usable(view, controller):
    controller.is_holding = True
    future = view.apply_async(abs, -1)
    until(lambda: controller.held, "the task")

    def interrupt():
        until(lambda: future._gate, "the waiter")
        interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        future.result(20)
    thread.join()
    assert not future.done()
    controller.release()
    assert future.result(10) == 1


def test_ctrl_c_in_a_blocking_call_gives_up_what_has_not_begun(view, controller):
    controller.is_holding = True

    def interrupt():
        until(lambda: controller.held, "the task")
        interrupt_main()

    for call in (lambda: view.apply_sync(abs, -1), lambda: view.map_sync(abs, range(100))):
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            call()
        thread.join()
        until(lambda: not controller.held, "the abort")
    controller.is_holding = False
    assert view.apply_sync(abs, -4) == 4


def test_the_failure_of_the_loop_itself_is_told(view, controller, monkeypatch, caplog):
    controller.is_holding = True
    future = view.apply_async(abs, -1)
    until(lambda: controller.held, "the task")
    loop = view.client._connection.loop
    monkeypatch.setattr(loop, "_watch", lambda _now: 1 / 0)
    with pytest.raises(ClusterdError, match="failed inside: ZeroDivisionError"):
        future.result(10)
    assert "I/O thread" in caplog.text
    with pytest.raises(ClusterdError, match="failed inside"):
        view.apply_async(abs, 1)


def test_it_is_not_blamed_for_the_time_that_this_process_slept(connect, controller):
    controller.limits.ping_interval = 0.05
    client = connect(controller_timeout=2.0)
    helm = client._connection._helm
    with helm._lock:
        # Nobody turns the loop: as in a stopped process, or under C code that holds the GIL; for longer than the limit.
        time.sleep(2.5)
    assert client.load_balanced_view().apply_sync(abs, -3) == 3
    assert client._connection.loop._is_lost is False


def test_a_fork_in_the_middle_of_everything(connect):
    """The child must not meet a lock that a thread of the parent held; it may have a client of its own."""
    client = connect()
    view = client.load_balanced_view()
    is_over = threading.Event()

    def work():
        while not is_over.is_set():
            view.map_sync(abs, range(50), chunksize=1)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                status = 1
                try:
                    view.apply_async(abs, 1)
                except ClusterdError:
                    client.close()
                    del client, view
                    gc.collect()
                    status = 0
                finally:
                    os._exit(status)
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
    finally:
        is_over.set()
        for thread in threads:
            thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert view.apply_sync(abs, -1) == 1

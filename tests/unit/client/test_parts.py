"""The small parts: engines' names, patience, room, credit, alarm, progress, partition."""

from __future__ import annotations

import asyncio
import io
import select
import sys
import threading
import types
import warnings

import numpy as np
import pytest

from clusterd.client.engines import id_text
from clusterd.client.partition import join, split
from clusterd.client.patience import Patience
from clusterd.client.progress import Progress
from clusterd.client.room import Room
from clusterd.client.wake import Alarm
from tests.waiting import until


def test_ids_for_people():
    assert id_text([]) == ""
    assert id_text([3]) == "3"
    assert id_text([0, 1, 2, 3, 7]) == "0-3, 7"
    assert id_text([1, 3, 5, 6]) == "1, 3, 5-6"


# --- patience ---


def test_patience_begins_with_the_loss_and_ends_with_the_return():
    patience = Patience(30.0, 0.0)
    patience.turn(1.0, is_attached=True, last_heard=1.0)
    assert not patience.trouble
    for second in range(2, 32):
        patience.turn(second, is_attached=False, last_heard=1.0)
        assert not patience.is_over or second == 31
    assert patience.is_over
    patience.turn(32.0, is_attached=True, last_heard=32.0)
    assert not patience.is_over


def test_patience_counts_only_time_that_was_awake():
    patience = Patience(30.0, 0.0)
    patience.turn(1000.0, is_attached=False, last_heard=0.0)
    patience.turn(2000.0, is_attached=False, last_heard=0.0)
    assert patience.trouble == 2.0


def test_silence_of_three_intervals_is_a_reason_to_dial_again():
    patience = Patience(30.0, 0.0)
    for tenth in range(1, 30):
        patience.turn(tenth / 10, is_attached=True, last_heard=0.0)
    assert not patience.is_silent(1.0)
    patience.turn(3.05, is_attached=True, last_heard=0.0)
    assert patience.is_silent(1.0)
    assert patience.trouble >= 3.0
    assert not patience.is_silent(1.0)


def test_it_warns_once_in_each_trouble():
    patience = Patience(30.0, 0.0)
    warned = []
    for second in range(1, 10):
        patience.turn(second, is_attached=False, last_heard=0.0)
        warned.append(patience.must_warn())
    assert warned.count(True) == 1
    patience.turn(10.0, is_attached=True, last_heard=10.0)
    for second in range(11, 20):
        patience.turn(second, is_attached=False, last_heard=10.0)
        warned.append(patience.must_warn())
    assert warned.count(True) == 2


# --- room and credit ---


def test_room_holds_who_is_too_fast():
    room = Room(max_tasks=4, max_bytes=1000)
    for _ in range(4):
        room.enter(1)
    assert room.is_full
    thread = threading.Thread(target=room.wait, args=(lambda: False,))
    thread.start()
    until(lambda: room._is_awaited, "the wait")
    room.leave(1, 1)
    thread.join(10)
    assert not thread.is_alive()
    room.enter(999)
    assert room.is_full
    room.wait(lambda: True)
    room.is_exempt = lambda: True
    room.wait(lambda: False)


def test_an_event_loop_is_told_that_it_blocks():
    room = Room(max_tasks=1, max_bytes=10)
    room.enter(1)

    async def submit():
        room.wait(lambda: True)

    with pytest.warns(RuntimeWarning, match="blocks the event loop"):
        asyncio.run(submit())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        room.wait(lambda: True)


def test_a_full_queue_holds_the_caller_and_no_callback(view, controller):
    room = view.client._connection.tasks.room
    controller.limits.max_tasks = 10
    controller.drop_connections()
    until(lambda: view.client._connection.tasks.limits.max_tasks == 10, "the new limits")
    room.max_tasks = 20
    controller.is_holding = True
    submitted, futures = [], []

    def submit():
        for number in range(100):
            futures.append(view.apply_async(abs, -number))
            submitted.append(number)

    thread = threading.Thread(target=submit)
    thread.start()
    until(lambda: len(submitted) == 30 and room._is_awaited, "a full queue")
    until(lambda: len(controller.held) == 10, "what the credit allows")
    # A callback adds to it all the same: it runs in the only thread that can make room.
    futures[0].add_done_callback(lambda _done: futures.append(view.apply_async(abs, -1000)))
    controller.is_holding = False
    controller.release()
    thread.join(20)
    assert not thread.is_alive()
    assert sorted(future.result(10) for future in futures) == [*range(100), 1000]
    assert max(len(controller.held), 10) == 10


def test_the_credit_in_bytes_is_kept(view, controller):
    controller.limits.max_task_bytes = 100_000
    controller.drop_connections()
    until(lambda: view.client._connection.tasks.limits.max_task_bytes == 100_000, "the new limits")
    controller.is_holding = True
    futures = [view.apply_async(len, b"x" * 30_000) for _ in range(10)]
    big = view.apply_async(len, b"x" * 500_000)
    until(lambda: len(controller.held) == 3, "what the credit allows")
    tasks = view.client._connection.tasks
    assert (len(tasks.in_flight), len(tasks.queue)) == (3, 8)
    controller.is_holding = False
    controller.release()
    assert [future.result(10) for future in futures] == [30_000] * 10
    # Larger than the credit: it goes alone.
    assert big.result(10) == 500_000
    assert tasks.in_flight_bytes == 0
    assert (tasks.pending, tasks.in_flight, len(tasks.queue)) == ({}, {}, 0)


def test_what_is_cancelled_in_the_queue_is_never_sent(view, controller):
    controller.limits.max_tasks = 1
    controller.drop_connections()
    until(lambda: view.client._connection.tasks.limits.max_tasks == 1, "the new limits")
    controller.is_holding = True
    first, second, third = (view.apply_async(abs, number) for number in (1, 2, 3))
    until(lambda: controller.held, "the first task")
    assert second.cancel()
    controller.is_holding = False
    controller.release()
    assert (first.result(10), third.result(10)) == (1, 3)
    assert len(controller.submits) == 2


# --- the alarm ---


def is_ringing(alarm):
    return bool(select.select([alarm.descriptor], [], [], 0)[0])


@pytest.mark.parametrize("has_eventfd", [True, False])
def test_the_alarm_wakes_who_polls(monkeypatch, has_eventfd):
    if not has_eventfd:
        monkeypatch.delattr("os.eventfd")
    alarm = Alarm()
    alarm.ring()
    assert not is_ringing(alarm)
    alarm.is_needed = True
    alarm.ring()
    alarm.ring()
    assert not alarm.is_needed
    assert is_ringing(alarm)
    alarm.clear()
    alarm.clear()
    assert not is_ringing(alarm)
    alarm.is_needed = True
    alarm.close()
    alarm.ring()
    alarm.rouse()


def test_the_alarm_wakes_who_stands_aside():
    alarm = Alarm()
    for ring in (alarm.ring, alarm.rouse):
        alarm.expect()
        thread = threading.Thread(target=alarm.sleep, args=(60,))
        thread.start()
        ring()
        thread.join(10)
        assert not thread.is_alive()
        assert not is_ringing(alarm)
    alarm.close()


# --- showing ---


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_progress_bar_on_a_terminal_only(monkeypatch):
    for stream, shows in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress("engines", 4, unit="ready") as bar:
            bar.show(2)
            bar.show(4)
        text = stream.getvalue()
        assert ("[###############...............] 2 of 4 ready" in text) is shows
        assert text.endswith("4 of 4 ready\n") is shows
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("f", None) as bar:
        bar.show(7)
    assert sys.stderr.getvalue() == "\rf: 7 items\n"
    monkeypatch.setattr(sys, "stderr", None)
    with Progress("f", 3) as bar:
        bar.show(3)


def test_a_progress_bar_in_a_notebook(monkeypatch):
    shown = []

    def publish(*, data, transient, update):
        shown.append((data["text/plain"], transient["display_id"], update))

    shell = types.SimpleNamespace(kernel=object(), display_pub=types.SimpleNamespace(publish=publish))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    for _ in range(2):
        with Progress("items", 4) as bar:
            bar.show(1)
            bar.show(2)
            bar.show(4)
    # The second comes too soon after the first for anybody to read.
    assert [(text[-14:], is_update) for text, _, is_update in shown] == [
        ("] 1 of 4 items", False),
        ("] 4 of 4 items", True),
    ] * 2
    assert len({place for _, place, _ in shown}) == 2
    # What took no time leaves no bar.
    with Progress("items", 4) as bar:
        bar.show(4)
    assert len(shown) == 4
    shell.kernel = None
    with Progress("items", 4) as bar:
        bar.show(4)
    assert len(shown) == 4


def test_parts_differ_by_at_most_one():
    for size in range(20):
        for parts in range(1, 8):
            pieces = split(list(range(size)), parts)
            assert len(pieces) == parts
            assert max(map(len, pieces)) - min(map(len, pieces)) <= 1
            assert join(pieces) == list(range(size))


def test_joining():
    assert join([]) == []
    assert join(["ab", "c"]) == "abc"
    assert join([b"a", b"b"]) == b"ab"
    assert join([(1,), (2, 3)]) == (1, 2, 3)
    assert join([[1], 2, "ab"]) == [1, 2, "ab"]
    assert np.array_equal(join([np.ones(2), np.zeros(1)]), [1, 1, 0])

"""A call on several engines: one message with one payload, and single tasks in everything that follows."""

from __future__ import annotations

import numpy as np
import pytest

import clusterd
from clusterd.core.wire import messages as m
from clusterd.errors import CompositeError, TaskAborted
from tests.waiting import until


@pytest.fixture
def many(client, controller):
    """A view of eight engines."""
    controller.announce(added=controller.add_engines(6))
    client.wait_for_engines(8)
    return client[:]


def test_the_payload_is_sent_once(many, controller):
    array = np.arange(100_000)
    assert many.apply_sync(lambda a: int(a.sum()), array) == [int(array.sum())] * 8
    many.push({"a": array}, block=True)
    many.execute("a.sum()", block=True)
    assert many.pull("a", block=True)[7].sum() == array.sum()
    many.clear(block=True)
    assert [len(message.tasks) for message in controller.broadcasts] == [8] * 5
    assert [message.frames for message in controller.broadcasts] == [1, 1, 0, 0, 0]
    assert all(message.targets == list(range(8)) for message in controller.broadcasts)


def test_what_differs_is_sent_singly(many, client, controller):
    many.scatter("x", range(16), block=True)
    assert many["x"] == [[number, number + 1] for number in range(0, 16, 2)]
    client[[3]].apply_sync(abs, -1)
    client[3].apply_sync(abs, -1)
    # The pull alone.
    assert len(controller.broadcasts) == 1


def test_each_part_counts_for_its_share(many, controller):
    controller.is_holding = True
    future = many.push({"a": np.zeros(1_000_000, np.uint8)})
    until(lambda: len(controller.held) == 8, "all parts")
    book = many.client._connection.tasks
    assert len(book.in_flight) == 8
    assert 1_000_000 <= book.in_flight_bytes < 1_010_000
    controller.release()
    assert future.result(10) == [None] * 8
    assert (book.in_flight, book.in_flight_bytes) == ({}, 0)
    assert (book.room._entered_bytes, book.room._entered) == (book.room._left_bytes, book.room._left)


def test_options_and_functions_travel_with_it(many, controller):
    view = many.with_options(timeout=5.0, label="all of them")
    assert view.apply_sync(lambda: 5) == [5] * 8
    [message] = controller.broadcasts
    assert message.options == m.TaskOptions(0, 5.0, "all of them")
    assert message.function == controller.functions[0]
    assert len(controller.functions) == 1


def test_beyond_the_credit_the_rest_follows(isolated, connect, controller):
    controller.limits = m.Limits(max_tasks=3, max_targets=1000)
    controller.add_engines(6)
    view = connect()[:]
    assert view.apply_sync(len, b"x" * 50_000) == [50_000] * 8
    assert sum(len(message.tasks) for message in controller.broadcasts) <= 8
    assert max(len(message.tasks) for message in controller.broadcasts) <= 3
    assert len(controller.submits) == 8


def test_a_controller_that_knows_no_broadcast(isolated, connect, controller):
    controller.limits = m.Limits()
    assert connect()[:].apply_sync(abs, -3) == [3, 3]
    assert controller.broadcasts == []
    assert [submit.target for submit in controller.submits] == [0, 1]


def test_what_is_cancelled_before_it_is_sent_is_left_out(isolated, connect, controller):
    controller.limits = m.Limits(max_tasks=1, max_targets=1000)
    controller.is_holding = True
    view = connect()[:]
    running = view.client[0].apply_async(abs, -1)
    until(lambda: controller.held, "the first")
    future = view.apply_async(abs, -2)
    assert future.tasks[0].cancel()
    controller.is_holding = False
    controller.release()
    assert running.result(10) == 1
    assert future.tasks[1].result(10) == 2
    assert [submit.target for submit in controller.submits] == [0, 1]


def test_it_is_offered_again_as_it_was_sent(many, controller):
    controller.is_holding = True
    future = many.apply_async(abs, -4)
    until(lambda: len(controller.held) == 8, "all parts")
    controller.release(count=2)
    until(lambda: future.progress == 2, "two results")
    controller.do(controller.held.clear)
    controller.drop_connections()
    until(lambda: len(controller.held) == 6, "the rest again")
    assert controller.broadcasts[-1].is_offered_again
    assert controller.broadcasts[-1].targets == [2, 3, 4, 5, 6, 7]
    controller.release()
    assert future.result(10) == [4] * 8


def test_errors_and_aborts_are_of_single_engines(many, controller):
    def fail_on(names):
        raise ValueError(names)

    with pytest.raises(CompositeError, match="8 of 8 engines failed"):
        many.apply_sync(fail_on, "x")
    controller.is_holding = True
    future = many.apply_async(abs, -1)
    until(lambda: len(controller.held) == 8, "all parts")
    assert future.tasks[3].abort()
    controller.release()
    with pytest.raises(TaskAborted):
        future.result(10)
    assert [task.result(10) for number, task in enumerate(future.tasks) if number != 3] == [1] * 7


def test_a_closed_client_takes_none(client):
    view = client[:]
    client.close()
    with pytest.raises(clusterd.errors.ClusterdError, match="closed"):
        view.client._connection.tasks.broadcast(m.CLEAR, None, [0, 1], (b"", ()), None, parent=None)

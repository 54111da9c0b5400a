"""What users pass to calls: fast where that is safe, named where it cannot be sent, copied where it may change."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest

from clusterd.client.arguments import pack_call, pack_columns, pack_names
from clusterd.core.wire import payload
from clusterd.core.wire.frames import INLINE_BODY_BYTES, find_body
from clusterd.errors import LimitExceeded, TaskNotSendable
from tests.waiting import until


def unpack(packed):
    body, frames = packed
    return payload.unpack(*find_body(body, frames))


class Plain:
    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return self.value == other.value

    __hash__ = None


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1, 2.5, "text", None, True), {}),
        ((1,), {"key": "value"}),
        ((b"bytes", [1, 2], {"a": (1,)}), {}),
        ((Plain(5),), {"other": Plain([1])}),
        (("x" * (INLINE_BODY_BYTES + 1),), {}),
        ((10**30000,), {}),
        ((b"y" * 1_000_000,), {}),
    ],
)
def test_round_trip(args, kwargs):
    assert unpack(pack_call(args, kwargs, name="f")) == (args, kwargs)


def test_subclasses_of_plain_types_keep_their_type():
    class Number(int):
        pass

    [value], _ = unpack(pack_call((Number(3),), {}, name="f"))
    assert type(value).__name__ == "Number"


def test_small_calls_are_plain_pickles():
    body, frames = pack_call((1, "a"), {}, name="f")
    assert pickle.loads(body) == ((1, "a"), {})
    assert frames == ()


def test_arrays_travel_out_of_band_and_as_they_were():
    array = np.arange(100_000)
    copied, shared = pack_call((array,), {}, name="f"), pack_call((array,), {}, name="f", is_copying=False)
    assert len(copied[0]) < 1000
    assert len(copied[1]) == 1
    array[:] = 0
    assert unpack(copied)[0][0].sum() == 4999950000
    assert unpack(shared)[0][0].sum() == 0


def test_buffers_that_cannot_change_are_not_copied():
    data = b"z" * 1_000_000
    [frame] = pack_call((data,), {}, name="f")[1]
    assert isinstance(frame, memoryview)
    assert frame.obj is data or frame.readonly


def test_what_cannot_be_pickled_is_named():
    lock = threading.Lock()
    with pytest.raises(TaskNotSendable, match="argument 1 of work"):
        pack_call((1, lock), {}, name="work")
    with pytest.raises(TaskNotSendable, match="argument 'key' of work"):
        pack_call((1,), {"key": lock}, name="work")
    with pytest.raises(TaskNotSendable, match="the value of 'x'"):
        pack_names({"a": 1, "x": lock})
    with pytest.raises(TaskNotSendable, match="item 1 of a chunk for work"):
        pack_columns(([1, lock],), name="work")
    with pytest.raises(TaskNotSendable) as caught:
        pack_call((lock,), {}, name="work")
    assert isinstance(caught.value.__cause__, TypeError)


def test_columns():
    assert unpack(pack_columns(([1, 2], ["a", "b"]), name="f")) == ([1, 2], ["a", "b"])
    assert unpack(pack_columns(([Plain(1)],), name="f")) == ([Plain(1)],)


# --- on the wire ---


def test_an_array_may_be_changed_after_apply_async(view, controller):
    controller.is_holding = True
    array = np.ones(100_000)
    future = view.apply_async(np.sum, array)
    array[:] = 0
    until(lambda: controller.held, "the task at the controller")
    controller.release()
    assert future.result(10) == 100_000


def test_large_arguments_and_results(client):
    array = np.arange(2_000_000, dtype=float)
    first, second = client[:].apply_sync(lambda x: x * 2, array)
    assert np.array_equal(first, array * 2)
    assert np.array_equal(second, array * 2)
    # A received array is a user's own: it can be written to.
    first[0] = 7
    assert view_text(client) == 3_000_000


def view_text(client):
    return client.load_balanced_view().apply_sync(len, "x" * 3_000_000)


def test_a_buffer_over_the_limit_is_refused_before_it_is_sent(view):
    view.client._connection.tasks.limits.max_message = 1_000_000
    with pytest.raises(LimitExceeded, match="one buffer has 2000000 bytes, the controller takes 1000000"):
        view.apply_async(len, b"x" * 2_000_000)
    assert view.apply_sync(len, b"x" * 100) == 100

"""What is packed comes back: values, buffers, functions, exceptions; and what cannot be packed says so."""

from __future__ import annotations

import pickle
import sys

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.core.wire import payload
from clusterd.errors import TaskError, TaskNotSendable, WireError

LONG = payload.OUT_OF_BAND_BYTES


def pack(value):
    return payload.pack(value, cloudpickle.dumps)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers()), inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
    ),
    max_leaves=20,
)


@given(plain)
def test_any_plain_value_comes_back_with_its_type(value):
    body, frames = pack(value)
    again = payload.unpack(body, frames)
    assert again == value
    assert type(again) is type(value)
    assert frames == []


@given(
    st.lists(
        st.sampled_from([bytes(3), bytes(LONG), bytearray(LONG), bytearray(b"ab"), {"k": bytes(LONG)}, [bytes(LONG)]]),
        max_size=6,
    )
)
def test_long_bytes_go_out_of_band_wherever_they_stand(value):
    body, frames = pack(value)
    again = payload.unpack(body, frames)
    assert again == value
    assert [type(item) for item in again] == [type(item) for item in value]
    assert len(frames) == sum(type(item) in (list, dict) or len(item) == LONG for item in value)
    assert len(body) < 1000


def test_the_callers_containers_are_not_changed():
    value = {"args": ([bytes(LONG)], bytes(LONG))}
    pack(value)
    assert value == {"args": ([bytes(LONG)], bytes(LONG))}


def test_an_array_is_copied_neither_on_its_way_out_nor_on_its_way_in():
    array = np.arange(10_000)
    body, (frame,) = pack(((array,), {}))
    assert np.shares_memory(np.frombuffer(frame, dtype=array.dtype), array)
    received = bytearray(frame)
    ((again,), _) = payload.unpack(body, [received])
    assert np.array_equal(again, array)
    assert np.shares_memory(again, np.frombuffer(received, dtype=array.dtype))


@pytest.mark.parametrize(("received", "is_writable"), [(bytearray, True), (bytes, False)])
def test_an_array_over_a_frame_is_as_writable_as_the_frame(received, is_writable):
    body, (frame,) = pack(np.zeros(LONG))
    assert payload.unpack(body, [received(frame)]).flags.writeable is is_writable


def test_writable_copies_only_what_is_read_only():
    mine, theirs = bytearray(b"a"), b"b"
    frames = payload.writable([mine, theirs, memoryview(theirs), memoryview(mine)])
    assert frames[0] is mine
    assert frames[1:] == [b"b", b"b", b"a"]
    assert not any(memoryview(frame).readonly for frame in frames)


def test_a_small_array_stays_in_band_and_writable():
    body, frames = pack(np.zeros(8))
    assert frames == []
    assert payload.unpack(body).flags.writeable


def test_bytes_that_arrive_as_bytes_are_not_copied():
    body, (frame,) = pack((b"x" * LONG,))
    received = bytes(frame)
    assert payload.unpack(body, [received])[0] is received


def test_buffers_beyond_the_frame_limit_travel_in_the_body():
    arrays = [np.full(LONG, n % 256, dtype=np.uint8) for n in range(payload.MAX_FRAMES + 3)]
    body, frames = pack(arrays)
    assert len(frames) == payload.MAX_FRAMES
    assert all(np.array_equal(a, b) for a, b in zip(payload.unpack(body, frames), arrays, strict=True))


def test_a_body_may_be_any_buffer():
    body, frames = pack({"a": 1})
    assert payload.unpack(memoryview(body), frames) == {"a": 1}


def test_what_cannot_be_pickled_is_named_with_its_reason():
    with pytest.raises(TaskNotSendable, match="the arguments cannot be pickled: TypeError") as caught:
        payload.pack((sys._getframe(),), cloudpickle.dumps, "the arguments")
    assert "<frame at" in caught.value.hint
    assert isinstance(caught.value.__cause__, TypeError)


class HasNoRepr:
    def __repr__(self):
        raise ValueError

    def __reduce__(self):
        raise ZeroDivisionError("no")


def test_a_value_whose_repr_raises_is_still_named():
    with pytest.raises(TaskNotSendable, match="ZeroDivisionError: no") as caught:
        pack(HasNoRepr())
    assert "HasNoRepr" in caught.value.hint


def test_code_by_value_of_another_python_is_refused():
    body, _ = pack(lambda: 1)
    assert payload.has_code(body)
    assert payload.unpack(body)() == 1
    other = body[:-1] + bytes([sys.version_info[1] + 1])
    with pytest.raises(TaskNotSendable, match=rf"from Python 3\.{sys.version_info[1] + 1} cannot run on Python 3\."):
        payload.unpack(other)


def test_data_and_functions_by_reference_are_good_for_any_python():
    for value in (pickle.dumps, [1], np.zeros(3)):
        assert not payload.has_code(pack(value)[0])


def test_a_function_travels_with_its_sources():
    body, frames = payload.pack_function(len, cloudpickle.dumps, {"<cell>": (7, "x = 1\n")})
    assert payload.unpack(body, frames) == (len, {"<cell>": (7, "x = 1\n")})


def test_the_digest_depends_on_every_part_and_on_their_borders():
    parts = [("f", "3.11", b"ab", []), ("g", "3.11", b"ab", []), ("f", "", b"ab", []), ("f", "3.11", b"a", [b"b"])]
    digests = {payload.function_digest(*part) for part in parts}
    assert len(digests) == len(parts)
    assert all(len(digest) == 16 for digest in digests)


# --- exceptions ---


class TwoArguments(Exception):
    def __init__(self, left, right):
        super().__init__(f"{left} and {right}")
        self.left = left


class Worded(Exception):
    """The usual pickle of it succeeds, and words the message twice."""

    def __init__(self, what, more=""):
        super().__init__(f"worded {what}")


def failure_of(error):
    body = payload.pack_exception(error, cloudpickle.dumps)
    failure = payload.RemoteFailure(type(error).__qualname__, str(error), "On engine x:\nTraceback", "x", -1, body)
    return payload.unpack_failure(payload.pack_failure(failure)).to_exception()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        OSError(2, "gone", "file"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        KeyboardInterrupt(),
        TwoArguments("a", "b"),
        Worded("x"),
        ExceptionGroup("g", [ValueError(1)]),
        TaskError("m", hint="h"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_keeps_type_text_and_attributes(error):
    again = failure_of(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__dict__.keys() == error.__dict__.keys()
    assert str(again.__cause__) == "\nOn engine x:\nTraceback"


def test_notes_travel():
    error = ValueError("x")
    error.add_note("by the way")
    assert failure_of(error).__notes__ == ["by the way"]


def test_an_exception_that_cannot_be_pickled_is_told_by_name():
    error = ValueError(sys._getframe())
    assert payload.pack_exception(error, cloudpickle.dumps) == b""
    again = failure_of(error)
    assert type(again) is TaskError
    assert again.message.startswith("ValueError: <frame")


def test_an_exception_of_a_missing_module_is_told_by_name():
    failure = payload.RemoteFailure("Odd", "why", "tb", exception=b"cnot_a_module_at_all\nOdd\n.")
    assert failure.to_exception().message == "Odd: why"


def test_garbage_is_no_failure():
    with pytest.raises(WireError):
        payload.unpack_failure(b"\x00garbage")

"""Framing on streams: any messages, cut anywhere, arrive whole and in order; what is not framed, or too large, ends the stream."""

from __future__ import annotations

import array
import os
import socket
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterd.system import stream, unix_sockets
from clusterd.system.stream import Closed, Malformed, PartLimits, Stream

LIMITS = PartLimits(first=32, second=4096, further=512 * 1024, parts=8)
MAGIC = 0x31304443


def framed(parts: list[bytes]) -> bytes:
    return struct.pack(f"<II{len(parts)}Q", MAGIC, len(parts), *map(len, parts)) + b"".join(parts)


class Pair:
    """A stream, and the bare socket at its other end."""

    def __init__(self, limits=LIMITS):
        self.far, near = socket.socketpair()
        near.setblocking(False)
        self.near = Stream(near, limits)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.near.close()
        self.far.close()

    def arrived(self) -> list[list[bytes]]:
        """All messages that can be read now."""
        got = []
        while (message := self.near.receive()) is not None:
            got.append([bytes(part) for part in message])
        return got

    def arrived_before_the_end(self) -> list[list[bytes]]:
        """All messages that come before the other side is seen to be gone."""
        got = []
        while True:
            try:
                message = self.near.receive()
            except Closed:
                return got
            if message is not None:
                got.append([bytes(part) for part in message])


@pytest.fixture
def pair():
    with Pair() as both:
        yield both


small = st.binary(max_size=80)
# Bytes of payload are told apart by length and a letter: drawing 300 KB of chance would be the slowest part of the test.
large = st.builds(lambda size, fill: bytes([fill]) * size, st.integers(0, 300_000), st.integers(0, 255))
messages = st.builds(
    lambda mac, header, payload: [mac, header, *payload],
    st.binary(max_size=32),
    st.binary(max_size=300),
    st.lists(small | large, max_size=4),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(messages, max_size=5), st.lists(st.integers(1, 200_000), max_size=12))
def test_whatever_is_sent_arrives_whole_wherever_it_is_cut(sent, cuts):
    data = b"".join(map(framed, sent))
    got, at = [], 0
    with Pair() as both:
        for size in [*cuts, *([100_000] * (len(data) // 100_000 + 1))]:
            both.far.sendall(data[at : at + size])
            at += size
            got += both.arrived()
    assert got == sent


@settings(deadline=None, max_examples=20)
@given(messages.filter(lambda parts: sum(map(len, parts)) < 2000))
def test_a_message_cut_at_each_byte_is_a_message(message):
    data = framed(message)
    with Pair() as both:
        for place in range(len(data) - 1):
            both.far.sendall(data[place : place + 1])
            assert both.near.receive() is None
        both.far.sendall(data[-1:])
        assert both.arrived() == [message]


@settings(deadline=None, max_examples=40)
@given(st.lists(messages, min_size=1, max_size=3), st.data())
def test_what_was_whole_is_returned_before_the_end_is_told(sent, data):
    stuff = b"".join(map(framed, sent))
    cut = data.draw(st.integers(0, len(stuff)))
    whole, size = [], 0
    for message in sent:
        size += len(framed(message))
        if size <= cut:
            whole.append(message)
    got = []
    with Pair() as both:
        for at in range(0, cut, 100_000):
            both.far.sendall(stuff[at : min(at + 100_000, cut)])
            got += both.arrived()
        both.far.close()
        got += both.arrived_before_the_end()
    assert got == whole


@given(st.binary(min_size=8, max_size=64).filter(lambda data: data[:4] != b"CD01"))
def test_other_bytes_end_the_stream_at_once(data):
    with Pair() as both:
        both.far.sendall(data)
        with pytest.raises(Malformed) as caught:
            both.near.receive()
        assert not caught.value.is_oversized


@pytest.mark.parametrize(
    "lengths",
    [(33,), (32, 4097), (0, 0, 512 * 1024 + 1), (0, 0, 2**64 - 1), (0,) * 9],
    ids=["first", "second", "further", "huge", "parts"],
)
def test_what_is_over_a_limit_is_refused_by_its_head_alone(pair, lengths):
    pair.far.sendall(struct.pack(f"<II{len(lengths)}Q", MAGIC, len(lengths), *lengths))
    with pytest.raises(Malformed) as caught:
        pair.near.receive()
    assert caught.value.is_oversized


def test_a_message_of_no_parts_is_none(pair):
    pair.far.sendall(struct.pack("<II", MAGIC, 0))
    with pytest.raises(Malformed) as caught:
        pair.near.receive()
    assert not caught.value.is_oversized


def test_what_is_just_within_the_limits_arrives(pair):
    message = [b"m" * 32, b"h" * 4096, *[b"p" * 1000] * 6]
    pair.far.sendall(framed(message))
    assert pair.arrived() == [message]


def test_messages_before_the_fault_are_returned_and_the_fault_is_told_for_ever(pair):
    message = [b"mac", b"header"]
    pair.far.sendall(framed(message) * 2 + b"garbage!")
    assert pair.near.receive() == message
    assert pair.near.receive() == message
    for _ in range(2):
        with pytest.raises(Malformed):
            pair.near.receive()
        with pytest.raises(Malformed):
            pair.near.read_once()


def test_a_reader_by_hand_finds_them_too(pair):
    pair.far.sendall(framed([b"mac", b"header"]) + b"garbage!")
    with pytest.raises(Malformed):
        pair.near.read_once()
    assert pair.near.has_message
    assert pair.near.next_message() == [b"mac", b"header"]
    assert pair.near.has_message, "the fault is still to be told"
    assert pair.near.next_message() is None


def test_many_messages_of_one_read_wait_inside(pair):
    # The kernel has nothing more to tell of them: who polls must look here first.
    pair.far.sendall(framed([b"mac", b"header"]) * 100)
    assert pair.near.receive() == [b"mac", b"header"]
    assert pair.near.has_message
    assert len(pair.arrived()) == 99


def test_a_large_announcement_takes_no_memory(pair):
    wide = PartLimits(32, 4096, 2**40, 8)
    pair.near.set_limits(wide)
    pair.far.sendall(framed([b"m", b"h"])[:-2] + b"mh")
    assert pair.arrived() == [[b"m", b"h"]]
    pair.far.sendall(struct.pack("<II3Q", MAGIC, 3, 1, 1, 2**30) + b"mh")
    before = _resident()
    assert pair.near.receive() is None
    assert _resident() - before < 32 * 1024**2


def test_what_no_memory_can_hold_ends_the_stream(pair):
    pair.near.set_limits(PartLimits(32, 4096, 2**63, 8))
    pair.far.sendall(struct.pack("<II4Q", MAGIC, 4, 1, 1, 1, 2**62) + b"mh")
    assert pair.near.receive() is None
    pair.far.sendall(b"x")
    with pytest.raises(Malformed) as caught:
        pair.near.receive()
    assert caught.value.is_oversized


def _resident() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - the shortest way to one number
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@settings(deadline=None, max_examples=30)
@given(st.lists(messages, max_size=6))
def test_what_the_kernel_does_not_take_is_kept_and_sent_later(sent):
    with Pair() as both:
        both.near._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for message in sent:
            both.near.send(message)
        assert both.near.outbox_bytes == sum(map(len, both.near._outbox))
        got = bytearray()

        def read():
            while piece := both.far.recv(65536):
                got.extend(piece)

        reader = threading.Thread(target=read)
        reader.start()
        while both.near.wants_write:
            both.near.flush()
        both.near._socket.shutdown(socket.SHUT_WR)
        reader.join()
        assert both.near.outbox_bytes == 0
        assert bytes(got) == b"".join(map(framed, sent))


def test_buffers_of_any_kind_are_sent_as_bytes(pair):
    numbers = array.array("d", [1.0, 2.0])
    pair.near.send([b"m", b"h", memoryview(numbers), bytearray(b"x"), b"", memoryview(b"abcdef")[::1]])
    assert pair.far.recv(65536) == framed([b"m", b"h", numbers.tobytes(), b"x", b"", b"abcdef"])


def test_sending_to_who_has_closed_says_so(pair):
    pair.far.close()
    with pytest.raises(Closed):
        pair.near.send([b"m", b"h"])


def test_a_closed_stream_forgets_all_and_says_closed(pair):
    pair.far.sendall(framed([b"m", b"h"]) * 2)
    pair.near.read_once()
    pair.near.close()
    pair.near.close()
    assert pair.near.is_closed
    assert pair.near.next_message() is None
    with pytest.raises(Closed):
        pair.near.receive()
    with pytest.raises(Closed):
        pair.near.send([b"m", b"h"])


def test_dialling_a_full_listener_fails_at_once(isolated):
    path = isolated.root / "socket"
    listener = unix_sockets.listen(path, backlog=0)
    first = stream.Stream(unix_sockets.connect(str(path)), LIMITS)
    try:
        with pytest.raises(BlockingIOError):
            stream.Stream(unix_sockets.connect(str(path)), LIMITS)
    finally:
        first.close()
        listener.close()


def test_a_listener_is_private_and_does_not_take_a_place(isolated):
    path = isolated.root / "socket"
    listener = unix_sockets.listen(path)
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(OSError):
            unix_sockets.listen(path)
    finally:
        listener.close()
    with pytest.raises(ConnectionRefusedError):
        stream.Stream(unix_sockets.connect(str(path)), LIMITS)


def test_one_flush_is_bounded_however_fast_the_other_side_reads():
    limits = PartLimits(32, 4096, 2**30, 8)
    with Pair(limits) as both:
        arrived = []

        def read():
            while piece := both.far.recv(2**20):
                arrived.append(len(piece))

        reader = threading.Thread(target=read)
        reader.start()
        both.near.send([b"m", b"h", bytes(8 * 2**20)])
        left = both.near.outbox_bytes
        assert left >= 7 * 2**20
        while both.near.wants_write:
            both.near.flush()
            assert left - both.near.outbox_bytes <= 2**20
            left = both.near.outbox_bytes
        both.near._socket.shutdown(socket.SHUT_WR)
        reader.join()
        assert sum(arrived) == len(framed([b"m", b"h", bytes(8 * 2**20)]))

"""A link and the other end of its stream, made by hand in this thread."""

from __future__ import annotations

import select

import pytest

from clusterd.core.model.connection import NativeEndpoints
from clusterd.core.wire import handshake
from clusterd.core.wire import messages as m
from clusterd.link import Link, Received, Up
from clusterd.system import stream, unix_sockets

LIMITS = stream.PartLimits(32, 2**24, 2**32, 2000)
KEY = bytes(32)


class OtherEnd:
    """A controller's data endpoint for one peer."""

    def __init__(self, path):
        self.listener = unix_sockets.listen(path)
        self.stream = None
        self.session = None

    def greet(self, link):
        """Take the link through its handshake."""
        connection, _ = self.listener.accept()
        connection.setblocking(False)
        self.stream = stream.Stream(connection, LIMITS)
        hello = handshake.read_hello(KEY, "client-data", *self.stream.receive())
        welcome, self.session = handshake.welcome(
            KEY, hello, challenge=bytes(16), controller=bytes(16), cluster="c", limits=m.Limits(), has_digests=False
        )
        self.stream.send(welcome)
        assert link.receive() == []
        self.session.open(*self.read())
        self.stream.send(self.session.seal([m.Attached(b"token", 1)]))
        (up,) = link.receive()
        assert isinstance(up, Up)

    def read(self):
        while (parts := self.stream.receive()) is None:
            select.select([self.stream.fileno()], [], [], 10)
        return parts

    def close(self):
        if self.stream is not None:
            self.stream.close()
        self.listener.close()


@pytest.fixture
def other_end(tmp_path):
    end = OtherEnd(tmp_path / "s")
    yield end
    end.close()


@pytest.fixture
def link(tmp_path, other_end):
    address = f"unix://{tmp_path / 's'}"
    endpoints = NativeEndpoints(1, address, address, KEY.hex(), "c", "00")
    link = Link(
        lambda: None, lambda: endpoints, "client", "data", lambda token: m.AttachClient(bytes(16), token, 1, "h")
    )
    link.open()
    other_end.greet(link)
    yield link
    link.close()


def test_a_poll_is_never_needed_for_what_has_been_read(link, other_end):
    # One recv(2) brings them all, and nothing follows that a poll could tell of.
    for number in range(200):
        other_end.stream.send(other_end.session.seal([m.Failed(b"%d" % number, 0, "aborted", "")]))
    received = link.receive()
    assert [event.messages[0].task for event in received] == [b"%d" % number for number in range(200)]
    assert all(isinstance(event, Received) for event in received)
    assert link.receive() == []


def test_pollables_stay_the_same_list_until_they_change(link, other_end):
    before = link.pollables()
    link.send([m.Goodbye("x")])
    assert link.pollables() is before
    other_end.stream.close()
    select.select([before[0][0]], [], [], 10)
    link.receive()
    assert link.pollables() == []
    assert link.pollables() is link.pollables()

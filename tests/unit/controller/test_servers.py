"""The Unix side of the controller: who may connect, how much and how long, and what becomes of those who do not read."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
from collections import Counter

import pytest

from clusterd.controller import servers
from clusterd.controller.servers import PeerGone, UnixServer
from clusterd.core.wire.messages import Limits
from clusterd.system import stream, unix_sockets

LIMITS = Limits(max_message=1 << 20, max_header=1 << 18, max_frames=4)
WIDE = stream.PartLimits(32, 1 << 30, 1 << 40, 100)


class Served:
    """A server, and streams that dial it."""

    def __init__(self, path):
        self.path = path
        self.counters = Counter()
        self.server = UnixServer(path, LIMITS, self.counters)
        self.dialled = []

    def dial(self):
        self.dialled.append(stream.Stream(unix_sockets.connect(str(self.path)), WIDE))
        return self.dialled[-1]

    def turn(self):
        """What one turn brings: (peer, parts or None)."""
        return [(peer, parts) for peer, parts, _ in self.server.receive()]

    def meet(self):
        """A stream that has said something, and the id of its peer."""
        dialled = self.dial()
        dialled.send([b"m", b"hello"])
        while not (heard := self.turn()):
            pass
        ((peer, parts),) = heard
        assert parts == [b"m", b"hello"]
        return dialled, peer

    def is_polled(self):
        """True when the server's descriptor says that there is something to do."""
        return bool(select.select([self.server.pollable()], [], [], 0)[0])

    def close(self):
        for dialled in self.dialled:
            dialled.close()
        self.server.close()


@pytest.fixture
def served(isolated):
    served = Served(isolated.root / "socket")
    yield served
    served.close()


def is_closed(dialled) -> bool:
    select.select([dialled.fileno()], [], [], 5)
    try:
        while dialled.receive() is not None:
            pass
    except stream.Closed:
        return True
    return False


def test_who_has_proved_nothing_may_say_one_small_word(served):
    dialled = served.dial()
    dialled.send([b"m" * 32, b"h" * 64 * 1024])
    assert served.turn() == []  # accepted
    assert served.turn()[0][1] == [b"m" * 32, b"h" * 64 * 1024]
    dialled.send([b"m", b"h", b"payload"])
    assert served.turn() == [(served.server._next_peer.to_bytes(8, "big"), None)]
    assert served.counters == {"oversized": 1}
    assert is_closed(dialled)


def test_who_is_welcome_may_say_all(served):
    dialled, peer = served.meet()
    served.server.welcome(peer)
    dialled.send([b"m", b"h" * 100_000, b"payload", b""])
    ((_, parts),) = served.turn()
    assert parts == [b"m", b"h" * 100_000, b"payload", b""]


def test_what_came_before_a_malformed_message_is_received(served):
    dialled, peer = served.meet()
    dialled.send([b"m", b"last words"])
    dialled._socket.send(b"garbage!")
    assert served.turn() == [(peer, [b"m", b"last words"]), (peer, None)]
    assert served.counters == {"malformed": 1}


def test_strangers_are_closed_after_a_while_and_peers_are_not(served):
    stranger = served.dial()
    served.turn()
    silent, _ = served.meet()
    welcome, peer = served.meet()
    served.server.welcome(peer)
    late = max(served.server._strangers.values()) + servers.STRANGER_SECONDS
    served.server.expire(late - 5.0)
    assert served.counters == {}
    served.server.expire(late)
    assert served.counters == {"late": 2}
    assert is_closed(stranger)
    assert is_closed(silent)
    assert not is_closed_now(welcome)


def is_closed_now(dialled) -> bool:
    try:
        return dialled.receive() is not None
    except stream.Closed:
        return True


def test_the_oldest_stranger_gives_way(served, monkeypatch):
    monkeypatch.setattr(servers, "MAX_STRANGERS", 3)
    dialled = [served.dial() for _ in range(5)]
    served.turn()
    assert [is_closed_now(one) for one in dialled] == [True, True, False, False, False]
    assert served.counters == {"late": 2}


def test_without_descriptors_it_waits_instead_of_spinning(served, caplog):
    kept = served.dial()
    served.turn()
    waiting = served.dial()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        assert served.is_polled()
        assert served.turn() == []
        assert not served.is_polled(), "the listener is still polled: the loop would spin"
        served.server.expire(0.0)
        assert served.is_polled(), "it never tries again"
        assert served.turn() == []
        assert len(caplog.records) == 1
        assert "LimitNOFILE" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # Somebody leaves: there is a descriptor again.
    kept.close()
    served.turn()
    waiting.send([b"m", b"at last"])
    heard = served.turn() or served.turn()
    assert heard[0][1] == [b"m", b"at last"]


def test_whom_it_cannot_watch_it_does_not_keep(served, monkeypatch):
    class Full:
        """An epoll that watches no more."""

        def __init__(self, real):
            self.real = real

        def register(self, *_):
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name):
            return getattr(self.real, name)

    dialled = served.dial()
    real = served.server._epoll
    monkeypatch.setattr(served.server, "_epoll", Full(real))
    assert served.turn() == []
    assert is_closed(dialled)


def fill(served, peer) -> int:
    """Send to a peer until the kernel takes no more; returns how many messages of 64 KiB that were."""
    count = 0
    while not served.server.is_congested(peer):
        served.server.send(peer, [b"m", b"x" * 65536])
        count += 1
    return count


def test_a_peer_that_reads_late_gets_everything(served):
    dialled, peer = served.meet()
    count = fill(served, peer)
    got = 0
    while got < count:
        while dialled.receive() is not None:
            got += 1
        served.turn()
    assert not served.server.is_congested(peer)
    assert not served.is_polled()


def test_a_dropped_peer_gets_the_last_words_and_is_not_heard_any_more(served):
    dialled, peer = served.meet()
    count = fill(served, peer)
    served.server.drop(peer)
    dialled.send([b"m", b"too late"])
    got = 0
    while got < count:
        while got < count and dialled.receive() is not None:
            got += 1
        assert served.turn() == []
    assert is_closed(dialled)
    assert served.server._peers == {}


def test_a_dropped_peer_that_does_not_read_is_closed_after_a_while(served):
    _, peer = served.meet()
    fill(served, peer)
    served.server.drop(peer)
    until = served.server._leaving[peer]
    served.server.expire(until - 0.1)
    assert peer in served.server._peers
    served.server.expire(until)
    assert served.server._peers == {}


def test_a_dropped_peer_that_closes_is_forgotten(served):
    dialled, peer = served.meet()
    fill(served, peer)
    served.server.drop(peer)
    dialled.close()
    assert served.turn() == []
    assert served.server._peers == {}
    assert not served.is_polled()


def test_messages_behind_the_one_that_had_its_peer_dropped_are_not_received(served):
    dialled, peer = served.meet()
    for _ in range(3):
        dialled.send([b"m", b"word"])
    heard = []
    for _, parts, _ in served.server.receive():
        heard.append(parts)
        served.server.drop(peer)
    assert heard == [[b"m", b"word"]]


def test_a_peer_that_died_is_heard_out_and_then_told(served):
    dialled, peer = served.meet()
    dialled.send([b"m", b"last words"])
    dialled.close()
    served.server.send(peer, [b"m", b"an answer"])
    assert served.turn() + served.turn() == [(peer, [b"m", b"last words"]), (peer, None)]
    with pytest.raises(PeerGone):
        served.server.send(peer, [b"m", b"more"])


def test_a_storm_of_connections_leaves_room_for_words(served):
    _, peer = served.meet()
    storm = [socket.socket(socket.AF_UNIX) for _ in range(200)]
    for one in storm:
        one.setblocking(False)
        one.connect(str(served.path))
    served.dialled[0].send([b"m", b"word"])
    assert (peer, [b"m", b"word"]) in served.turn()
    for one in storm:
        one.close()
    while served.server._strangers.keys() - {peer}:
        served.turn()

"""Joining, beating, falling silent, waking and leaving: what clients are told, and when."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.compat.conftest import IS_STOCK, PING_MS
from tests.compat.peer import QUIET, StockEngine, heart_sockets
from tests.waiting import until

PERIOD = PING_MS / 1000
SILENT_AFTER = 11 * PERIOD
GRACE = 0.0 if IS_STOCK else 5.0
"""Seconds between silent and given up: ipcontroller knows no difference, and a client that was told cannot take it back."""


class HandBeaten:
    """An engine whose every pong is sent by the test."""

    def __init__(self, engine: StockEngine) -> None:
        assert engine.register()["status"] == "ok"
        engine.open()
        self.engine = engine
        self.ping, self.pong = heart_sockets(engine)
        self.last = b""

    def take(self) -> bytes:
        """The next ping; the same one again, for somebody who joins, is none."""
        ping = self.last
        while ping == self.last:
            assert self.ping.poll(10_000), "no ping"
            ping = self.ping.recv()
        self.last = ping
        return ping

    def join(self) -> None:
        """Beat until it is announced: the first beat after a moment for its output to be heard; pings may have waited here."""
        for _ in range(3):
            self.beat()

    def beat(self) -> None:
        self.pong.send(self.take())

    def close(self) -> None:
        self.ping.close()
        self.pong.close()


@pytest.fixture
def hand_beaten(peers):
    made = []

    def make():
        made.append(HandBeaten(peers(StockEngine)))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def test_a_registration_is_answered_with_id_and_period(peers, client):
    reply = peers(StockEngine).register()
    assert (reply["status"], reply["id"], reply["hb_period"]) == ("ok", 0, PING_MS)


def test_an_engine_is_announced_at_its_first_pong_and_not_before(client, hand_beaten):
    beaten = hand_beaten()
    # Several periods pass, seen as pings, and nobody is told of an engine that could not be reached yet.
    for _ in range(4):
        beaten.take()
    assert client.engines == {}
    assert client.maybe("notification", 0) is None
    started = time.monotonic()
    beaten.join()
    notice = client.notice("registration_notification")
    assert (notice.content["id"], notice.content["uuid"]) == (beaten.engine.id, beaten.engine.name)
    # At that pong, not some periods later (half a second to six at ipcontroller's).
    assert time.monotonic() - started < 2 * PERIOD + 0.5
    assert client.engines == {beaten.engine.id: beaten.engine.name}


def test_ids_count_up_are_given_as_wanted_and_never_twice(join, client, peers):
    assert join().id == 0
    wanted = join(7)
    assert wanted.id == 7
    assert join().id == 8
    wanted.stop_beating()
    wanted.leave()
    client.notice("unregistration_notification", wanted.name)
    assert join().id == 9
    # A wanted id that is taken is no error.
    other = peers(StockEngine)
    assert other.register(8)["status"] == "ok"
    assert other.id not in {0, 8, 9}


def test_a_uuid_that_is_in_use_is_refused(peers, engine):
    # Its socket has another identity, or the controller could not answer it.
    second = peers(StockEngine)
    second.name = engine.name
    reply = second.register()
    assert (reply["status"], reply["ename"]) == ("error", "KeyError")
    assert engine.name in reply["evalue"]


def test_an_engine_that_falls_silent_is_given_up_after_a_while_and_not_before(client, join):
    silent, alive = join(), join()
    silent.stop_beating()
    stopped = time.monotonic()
    notice = client.notice("unregistration_notification", silent.name)
    taken = time.monotonic() - stopped
    assert notice.content["id"] == silent.id
    assert 9 * PERIOD + GRACE < taken < SILENT_AFTER + GRACE + 3
    assert client.engines == {alive.id: alive.name}


def test_a_pong_to_the_previous_ping_counts(client, hand_beaten):
    beaten = hand_beaten()
    beaten.join()
    client.notice("registration_notification")
    previous = beaten.take()
    for _ in range(16):
        current = beaten.take()
        beaten.pong.send(previous)
        previous = current
    assert client.engines == {beaten.engine.id: beaten.engine.name}


def test_a_pong_to_an_old_ping_does_not_count(client, hand_beaten):
    beaten = hand_beaten()
    beaten.join()
    client.notice("registration_notification")
    old = beaten.take()
    beaten.take()
    beaten.take()
    for _ in range(16):
        beaten.take()
        beaten.pong.send(old)
    client.notice("unregistration_notification", beaten.engine.name)


def test_nine_missed_beats_are_forgiven(client, hand_beaten):
    beaten = hand_beaten()
    beaten.join()
    client.notice("registration_notification")
    for _ in range(2):
        for _ in range(9):
            beaten.take()
        beaten.beat()
    assert client.engines == {beaten.engine.id: beaten.engine.name}
    assert client.maybe("notification", 0) is None


def test_what_a_nanny_says_is_believed_at_once(client, engine):
    engine.stop_beating()
    started = time.monotonic()
    engine.leave()
    client.notice("unregistration_notification", engine.name)
    assert time.monotonic() - started < 1.0


def test_an_engine_that_publishes_its_shutdown_has_left(client, engine):
    engine.publish("shutdown_reply", {"status": "ok", "restart": False}, {})
    client.notice("unregistration_notification", engine.name)


@pytest.fixture
def periods(peers):
    """Wait until so many pings have been sent."""
    watch = heart_sockets(peers(StockEngine))

    def wait(count):
        last = None
        while count:
            assert watch[0].poll(10_000), "no ping"
            ping = watch[0].recv()
            # The same one again is for somebody who joins.
            count -= ping != last
            last = ping

    yield wait
    for socket in watch:
        socket.close()


def test_an_engine_that_wakes_was_never_away(client, engine, periods):
    request = client.submit(os.getpid)
    task = engine.request()
    engine.stop_beating()
    periods(13)
    # It gets no work now; what it has is not failed yet, and nobody is told.
    waiting = client.submit(os.getpid)
    # Two sockets: the question may be read first.
    until(lambda: client.ask("queue_request", {"targets": None, "verbose": False})["unassigned"], "a task that waits")
    engine.begin_beating()
    engine.reply(task, 42)
    assert client.answer(request).value == 42
    engine.reply(engine.request(), 43)
    assert client.answer(waiting).value == 43
    assert client.maybe("notification", 0) is None
    assert client.engines == {engine.id: engine.name}


def test_an_engine_that_was_given_up_comes_back_with_its_id(client, engine):
    engine.stop_beating()
    client.notice("unregistration_notification", engine.name)
    assert client.engines == {}
    engine.begin_beating()
    notice = client.notice("registration_notification", engine.name)
    assert notice.content["id"] == engine.id
    again = client.apply(engine.name, os.getpid)
    engine.reply(engine.request(), 43)
    assert client.answer(again).value == 43


def test_a_late_result_of_a_task_that_was_failed_is_not_delivered(client, engine):
    request = client.submit(os.getpid)
    task = engine.request()
    engine.stop_beating()
    client.notice("unregistration_notification", engine.name)
    failed = client.answer(request)
    assert (failed.status, failed.content["ename"]) == ("error", "EngineError")
    assert failed.kind == "apply_reply"
    engine.reply(task, 42)
    assert client.maybe_answer(request, QUIET) is None


@pytest.mark.timeout(60)
def test_a_stock_engine_that_was_frozen_wakes_with_its_id_and_its_work(client, real_engine, periods):
    frozen = real_engine("stock")
    started = client.notice("registration_notification").content
    running = client.apply(started["uuid"], time.sleep, 0.3)
    waiting = client.apply(started["uuid"], os.getpid)
    frozen.process.send_signal(signal.SIGSTOP)
    try:
        periods(14)
    finally:
        frozen.process.send_signal(signal.SIGCONT)
    assert client.answer(running).value is None
    assert client.answer(waiting).value == frozen.process.pid
    assert client.maybe("notification", 0) is None
    assert client.engines == {started["id"]: started["uuid"]}

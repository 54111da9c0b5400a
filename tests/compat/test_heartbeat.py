"""Joining, beating, falling silent, waking and leaving: what clients are told, and when."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.compat.conftest import PING_MS
from tests.compat.peer import QUIET, StockEngine, heart_sockets

PERIOD = PING_MS / 1000
GONE_AFTER = 11 * PERIOD


class HandBeaten:
    """An engine whose every pong is sent by the test."""

    def __init__(self, engine: StockEngine) -> None:
        assert engine.register()["status"] == "ok"
        engine.open()
        self.engine = engine
        self.ping, self.pong = heart_sockets(engine)

    def take(self) -> bytes:
        assert self.ping.poll(10_000), "no ping"
        return self.ping.recv()

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
    beaten.beat()
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


def test_an_engine_that_falls_silent_is_gone_after_eleven_periods_and_not_before(client, join):
    silent, alive = join(), join()
    silent.stop_beating()
    stopped = time.monotonic()
    notice = client.notice("unregistration_notification", silent.name)
    taken = time.monotonic() - stopped
    assert notice.content["id"] == silent.id
    assert 9 * PERIOD < taken < GONE_AFTER + 3
    assert client.engines == {alive.id: alive.name}


def test_a_pong_to_the_previous_ping_counts(client, hand_beaten):
    beaten = hand_beaten()
    beaten.beat()
    client.notice("registration_notification")
    previous = beaten.take()
    for _ in range(16):
        current = beaten.take()
        beaten.pong.send(previous)
        previous = current
    assert client.engines == {beaten.engine.id: beaten.engine.name}


def test_a_pong_to_an_old_ping_does_not_count(client, hand_beaten):
    beaten = hand_beaten()
    beaten.beat()
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
    beaten.beat()
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


def test_an_engine_that_wakes_keeps_its_id_and_its_late_result_is_delivered(client, engine):
    request = client.submit(os.getpid)
    task = engine.request()
    engine.stop_beating()
    client.notice("unregistration_notification", engine.name)
    # It was frozen and goes on where it was: it beats, and sends what it had computed. Nobody was told that the task failed.
    engine.begin_beating()
    engine.reply(task, 42)
    assert client.answer(request).value == 42
    notice = client.notice("registration_notification", engine.name)
    assert notice.content["id"] == engine.id
    assert client.engines == {engine.id: engine.name}
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
def test_a_stock_engine_that_was_frozen_wakes_with_its_id_and_its_work(client, real_engine):
    frozen = real_engine("stock")
    started = client.notice("registration_notification").content
    running = client.apply(started["uuid"], time.sleep, 0.3)
    frozen.process.send_signal(signal.SIGSTOP)
    try:
        client.notice("unregistration_notification", started["uuid"])
    finally:
        frozen.process.send_signal(signal.SIGCONT)
    assert client.notice("registration_notification", started["uuid"]).content == started
    # Callers were told that the engine left, not that the work failed: what it then says is delivered.
    assert client.answer(running).value is None
    assert client.answer(client.apply(started["uuid"], os.getpid)).value == frozen.process.pid

"""One message for many engines: who gets what, what comes back, and what becomes of errors and deaths within."""

from __future__ import annotations

import os
import pickle

import pytest

from tests.compat.conftest import IS_STOCK
from tests.compat.peer import QUIET


@pytest.fixture
def three(join):
    return [join(), join(), join()]


def targets(engines):
    return [(engine.name, engine.id) for engine in engines]


def test_each_engine_gets_a_copy_of_its_own(client, three):
    original = client.broadcast(targets(three), abs, -5, coalescing=False)
    for engine in three:
        request = engine.request()
        assert request.header["msg_id"] == f"{original}_{engine.name}"
        assert request.header["msg_type"] == "apply_request"
        assert request.metadata["original_msg_id"] == original
        assert request.metadata["is_broadcast"] is True
        assert [pickle.loads(buffer) for buffer in request.buffers[2:]] == [-5]
        engine.reply(request, engine.id)
    for engine in three:
        reply = client.answer(f"{original}_{engine.name}")
        assert (reply.value, reply.metadata["engine"]) == (engine.id, engine.name)
        assert reply.metadata["original_msg_id"] == original
        assert reply.metadata["is_broadcast"] is True
        assert reply.metadata["is_coalescing"] is False


def test_only_the_targets_get_it(client, three):
    original = client.broadcast(targets(three[1:]), abs, -5, coalescing=False)
    for engine in three[1:]:
        engine.reply(engine.request(), 0)
        client.answer(f"{original}_{engine.name}")
    assert three[0].maybe("shell", 0) is None


def test_coalesced_replies_are_one_in_the_order_of_their_targets(client, three):
    asked = targets(reversed(three))
    original = client.broadcast(asked, abs, -5, coalescing=True)
    # They answer in another order, with different numbers of buffers.
    for engine in (three[1], three[2], three[0]):
        engine.reply(engine.request(), buffers=[pickle.dumps(engine.id), *[b"%d" % engine.id] * engine.id])
    reply = client.answer_of(original)
    assert reply.status == "ok"
    assert reply.metadata["is_broadcast"] is True
    assert reply.metadata["is_coalescing"] is True
    named = [tuple(pair) for pair in reply.metadata["broadcast_targets"]]
    assert sorted(named) == sorted(asked)
    if not IS_STOCK:
        assert named == asked  # ipcontroller groups them by leaf of its tree
    expected = [part for _, number in named for part in (pickle.dumps(number), *[b"%d" % number] * number)]
    assert reply.buffers == expected
    assert client.maybe("broadcast") is None


@pytest.mark.parametrize("at", range(3), ids=["first", "second", "last"])
def test_one_error_among_coalesced_replies_is_that_error(client, three, at):
    original = client.broadcast(targets(three), abs, -5, coalescing=True)
    for number, engine in enumerate(three):
        request = engine.request()
        if number == at:
            engine.fail(request, "ZeroDivisionError", "division by zero")
        else:
            engine.reply(request, number)
    reply = client.answer_of(original)
    assert (reply.status, reply.content["ename"]) == ("error", "ZeroDivisionError")
    assert reply.content["engine_info"] == {"engine_uuid": three[at].name, "engine_id": at, "method": "apply"}
    assert reply.buffers == []
    assert reply.metadata["broadcast_targets"]
    assert client.maybe("broadcast") is None


def test_an_error_of_one_engine_is_its_own_when_replies_are_not_coalesced(client, three):
    original = client.broadcast(targets(three), abs, -5, coalescing=False)
    three[1].fail(three[1].request(), "ZeroDivisionError")
    for engine in (three[0], three[2]):
        engine.reply(engine.request(), engine.id)
    for engine in (three[0], three[2]):
        assert client.answer(f"{original}_{engine.name}").value == engine.id
    assert client.answer(f"{original}_{three[1].name}").content["ename"] == "ZeroDivisionError"


def test_a_death_within_leaves_the_others_replies_alone(client, three):
    original = client.broadcast(targets(three), abs, -5, coalescing=False)
    requests = [engine.request() for engine in three]
    three[1].stop_beating()
    three[1].leave()
    client.notice("unregistration_notification", three[1].name)
    for number in (0, 2):
        three[number].reply(requests[number], number)
    for number in (0, 2):
        assert client.answer(f"{original}_{three[number].name}").value == number
    # A Client has failed this one itself when it read the notice; what comes besides may only say the same.
    reply = client.maybe_answer(f"{original}_{three[1].name}", QUIET)
    assert reply is None or reply.content["ename"] == "EngineError"


def test_a_death_within_never_makes_a_coalesced_success(client, three):
    original = client.broadcast(targets(three), abs, -5, coalescing=True)
    requests = [engine.request() for engine in three]
    three[1].stop_beating()
    three[1].leave()
    client.notice("unregistration_notification", three[1].name)
    for number in (0, 2):
        three[number].reply(requests[number], number)
    reply = client.maybe_answer_of(original, QUIET)
    assert reply is None or reply.content["ename"] == "EngineError"
    # The survivors are free again.
    again = client.broadcast(targets([three[0], three[2]]), abs, -5, coalescing=True)
    for number in (0, 2):
        three[number].reply(three[number].request(), number)
    assert client.answer_of(again).status == "ok"


@pytest.mark.skipif(IS_STOCK, reason="ipcontroller drops it, and its caller waits for ever")
@pytest.mark.parametrize("coalescing", [True, False])
def test_a_broadcast_to_an_engine_that_is_gone_is_answered_at_once(client, three, coalescing):
    asked = targets(three)
    three[1].stop_beating()
    three[1].leave()
    client.notice("unregistration_notification", three[1].name)
    original = client.broadcast(asked, os.getpid, coalescing=coalescing)
    for number in (0, 2):
        three[number].reply(three[number].request(), number)
    if coalescing:
        reply = client.answer_of(original, 2)
    else:
        reply = client.answer(f"{original}_{three[1].name}", 2)
        assert client.answer(f"{original}_{three[0].name}").value == 0
    assert (reply.status, reply.content["ename"]) == ("error", "EngineError")


def test_a_large_array_comes_to_all(client, three):
    block = os.urandom(2_000_000)
    original = client.broadcast(targets(three), len, block, coalescing=True)
    for engine in three:
        request = engine.request()
        assert pickle.loads(request.buffers[2]) == block
        engine.reply(request, len(block))
    assert [pickle.loads(part) for part in client.answer_of(original).buffers] == [2_000_000] * 3

"""Messages that were changed, repeated, cut short or made up: dropped and counted, never answered, never executed twice."""

from __future__ import annotations

import operator
import os

import pytest
import zmq

from tests.compat.conftest import IS_STOCK
from tests.compat.framing import DELIMITER, Framing, call, execution
from tests.compat.peer import QUIET, StockClient, StockEngine
from tests.contract import hand_made_peer
from tests.waiting import until

CHANNELS = ("mux", "task", "control", "broadcast")
SIGNATURES = {"wrong": b"0" * 64, "missing": b"", "cut": b"ab", "no hex": b"\xff" * 64}


def request_on(channel, engine):
    """(kind, content, the rest) of a request that an engine would get."""
    if channel == "control":
        return "clear_request", {}, {"to": engine.name}
    metadata = (
        {"targets": [[engine.name, engine.id]], "is_broadcast": True, "is_coalescing": False}
        if channel == "broadcast"
        else {}
    )
    to = {"to": engine.name} if channel == "mux" else {}
    return "apply_request", {}, {"buffers": call(os.getpid), "metadata": metadata, **to}


def assert_idle(client, engine):
    """The engine has nothing: what is sent to it now is the first that it gets, on both of its sockets."""
    probe = client.apply(engine.name, operator.add, 1, 2)
    got = engine.request()
    assert got.header["msg_id"] == probe
    engine.reply(got, 3)
    assert client.answer(probe).value == 3
    probe = client.send("control", "abort_request", {"msg_ids": ["nothing"]}, to=engine.name)
    if IS_STOCK:
        assert engine.request("control").header["msg_id"] == probe
    assert engine.maybe("control", 0) is None


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("signature", SIGNATURES.values(), ids=SIGNATURES)
def test_a_wrongly_signed_request_never_reaches_an_engine(client, engine, channel, signature):
    kind, content, rest = request_on(channel, engine)
    sent = client.send(channel, kind, content, signature=signature, **rest)
    assert_idle(client, engine)
    assert client.maybe_answer(sent, QUIET) is None


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_replayed_request_is_executed_once(client, engine, channel):
    kind, content, rest = request_on(channel, engine)
    to = rest.pop("to", "")
    header = client.framing.header(kind)
    frames = client.framing.frames(header, content, **rest)
    for _ in range(3):
        client.sockets[channel].send_multipart([*([to.encode()] if to else []), *frames])
    where = "control" if channel == "control" else "shell"
    once = engine.request(where)
    engine.reply(once, 1, channel=where)
    asked = once.header["msg_id"]  # of a broadcast: the copy's
    assert client.answer(asked)
    assert_idle(client, engine)
    assert client.maybe_answer(asked, QUIET) is None


def test_a_request_replayed_by_somebody_else_is_not_executed(client, engine, peers):
    header = client.framing.header("apply_request")
    frames = client.framing.frames(header, {}, buffers=call(os.getpid))
    client.sockets["task"].send_multipart(frames)
    engine.reply(engine.request(), 1)
    assert client.answer(header["msg_id"]).value == 1
    thief = peers(StockClient)
    thief.sockets["task"].send_multipart(frames)
    assert_idle(client, engine)
    assert thief.maybe("task") is None


def test_a_repeated_reply_is_delivered_once(client, engine):
    for send in (lambda: client.apply(engine.name, os.getpid), lambda: client.submit(os.getpid)):
        sent = send()
        frames = engine.reply(engine.request(), 1)
        engine.sockets["shell"].send_multipart(frames)
        assert client.answer(sent).value == 1
        assert_idle(client, engine)
        assert client.maybe_answer(sent, QUIET) is None


def test_a_wrongly_signed_reply_is_not_delivered(client, engine):
    sent = client.apply(engine.name, os.getpid)
    task = engine.request()
    engine.reply(task, 666, signature=b"0" * 64)
    engine.reply(task, 1)
    assert client.answer(sent).value == 1


def test_the_wrong_key_opens_nothing(client, engine, peers, controller):
    impostor = peers(StockClient, file={**controller.client, "key": "guessed"})
    asked = [impostor.send("query", kind, {}) for kind in ("connection_request", "history_request", "shutdown_request")]
    worked = impostor.apply(engine.name, os.getpid)
    assert_idle(client, engine)
    assert [impostor.maybe_answer(sent, 0.1) for sent in (*asked, worked)] == [None] * 4
    assert client.engines == {engine.id: engine.name}


def test_a_wrong_key_registers_no_engine(client, peers, controller):
    impostor = peers(StockEngine, file={**controller.engine, "key": "guessed"})
    header = impostor.framing.header("registration_request")
    impostor.sockets["registration"].send_multipart(impostor.framing.frames(header, {"uuid": impostor.name}))
    assert client.engines == {}
    assert not impostor.sockets["registration"].poll(int(QUIET * 1000))


def test_a_wrong_key_unregisters_no_engine(client, engine, peers, controller):
    impostor = peers(StockClient, file={**controller.client, "key": "guessed"})
    impostor.send("query", "unregistration_request", {"id": engine.id})
    assert client.engines == {engine.id: engine.name}
    assert client.maybe("notification") is None


GARBAGE = {
    "nothing": [b""],
    "no delimiter": [b"a", b"b", b"c"],
    "too few frames": [DELIMITER, b"", b"{}", b"{}"],
    "delimiter alone": [DELIMITER],
    "no JSON": ["signed", b"{", b"{}", b"{}", b"{}"],
    "no object": ["signed", b"[]", b"{}", b"{}", b"{}"],
    "no header": ["signed", b"{}", b"{}", b"{}", b"{}"],
    "no text": ["signed", b"\xff\xfe", b"{}", b"{}", b"{}"],
    "numbers for text": ["signed", b'{"msg_id": 1, "msg_type": 2, "session": 3}', b"{}", b"{}", b"{}"],
    "nested without end": ["signed", b"[" * 100_000, b"{}", b"{}", b"{}"],
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_dropped_and_everything_goes_on(client, engine, garbage):
    if garbage[0] == "signed":
        parts = list(garbage[1:])
        garbage = [DELIMITER, client.framing.sign(parts), *parts]
    for name in ("query", "mux", "task", "control", "broadcast"):
        client.sockets[name].send_multipart(garbage)
        client.sockets[name].send_multipart([engine.name.encode(), *garbage])
    for name in ("registration", "iopub"):
        engine.sockets[name].send_multipart(garbage)
    assert client.engines == {engine.id: engine.name}
    if IS_STOCK:
        return  # its relays hand garbage on to the engine
    assert_idle(client, engine)


@pytest.fixture
def dropped(controller):
    """What the controller's status says was dropped on the stock sockets, by reason."""
    context = zmq.Context()
    peer = hand_made_peer.Peer(context, controller.client_file, "operator", "control")

    def ask():
        peer.say([hand_made_peer.CONTROLLER_STATUS, 1])
        return peer.expect(hand_made_peer.REPLY)[2]["dropped"]["stock"]

    peer.greet()
    peer.attach(os.urandom(16))
    yield ask
    peer.close()
    context.term()


@pytest.mark.skipif(IS_STOCK, reason="ipcontroller does not count")
def test_what_is_dropped_is_counted_by_reason(client, engine, dropped):
    assert sum(dropped().values()) == 0
    for _ in range(3):
        client.send("mux", "apply_request", {}, to=engine.name, buffers=call(os.getpid), signature=b"0" * 64)
    header = client.framing.header("apply_request")
    frames = client.framing.frames(header, {}, buffers=call(os.getpid))
    for _ in range(5):
        client.sockets["task"].send_multipart(frames)
    engine.reply(engine.request(), 1)
    client.answer(header["msg_id"])
    for _ in range(7):
        client.sockets["task"].send_multipart([b"garbage"])
    assert_idle(client, engine)
    assert until(lambda: sum(dropped().values()) >= 14, "all is counted", about=dropped)
    assert dropped() == {"bad_mac": 3, "replayed": 4, "malformed": 7}


def test_an_unknown_query_is_answered_with_an_error(client):
    reply = client.ask("no_such_request")
    assert (reply["status"], reply["ename"]) == ("error", "KeyError")
    assert "no_such_request" in reply["evalue"]


def test_a_request_with_a_session_of_its_own_choice_is_nothing_special(client, engine):
    """`header.session` is what the sender says; it names an engine only on an engine's own socket."""
    framing = Framing(client.file["key"], engine.name)
    client.sockets["query"].send_multipart(framing.frames(framing.header("connection_request"), {}))
    client.sockets["mux"].send_multipart(
        [engine.name.encode(), *framing.frames(framing.header("execute_request"), execution("1"))]
    )
    engine.reply(
        engine.request(), content={"status": "ok", "execution_count": 1, "user_expressions": {}, "payload": []}
    )
    assert client.engines == {engine.id: engine.name}

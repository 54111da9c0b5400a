"""Native tasks on stock engines, message by message: what is asked of the guest, and what is made of its answers."""

from __future__ import annotations

import json
import pickle
import pickletools

import pytest

from clusterd.controller.compat import errand
from clusterd.core.wire import messages as m
from clusterd.core.wire import payload
from clusterd.errors import TaskNotSendable
from tests.unit.controller.stock import StockEngine, StockWorld
from tests.unit.controller.test_stock_engines import one
from tests.unit.controller.world import submit, task_id


@pytest.fixture
def world(tmp_path):
    return StockWorld(tmp_path)


@pytest.fixture
def engine(world):
    return StockEngine(world).join()


@pytest.fixture
def client(world):
    return world.client()


def packed(content=b"", raw=(), **head):
    """What a guest returns."""
    about = {
        "status": 0,
        "started": 1.0,
        "finished": 1.5,
        "body": len(content),
        "frames": [len(frame) for frame in raw],
    }
    text = json.dumps({**about, **head}).encode()
    whole = b"".join([len(text).to_bytes(4, "big"), text, content, *raw])
    return whole + bytes(max(0, 1025 - len(whole)))


def answer(engine, request, *buffers, **content):
    engine.reply(request, {"status": "ok", **content}, buffers=[b"a pickle of ipyparallel's", *buffers])


def order_of(request):
    """What the guest is told, with the raw buffers in their places."""
    assert pickle.loads(request.buffers[0]) is eval
    call = pickle.loads(request.buffers[1])
    assert call == {"nargs": 2, "narg_bufs": 2 + len(request.buffers) - 4, "kw_keys": []}
    given = pickle.loads(request.buffers[3])
    for name, buffer in zip(sorted(name for name in given if name.startswith("b0")), request.buffers[4:], strict=True):
        # ipyparallel's class refills its one buffer from the frames.
        assert given[name].buffers == [None]
        given[name] = buffer
    return given


def test_the_request_is_what_ipyparallel_unpacks(world, engine, client):
    client.say(submit(body=b"text", frames=2), payload=[b"one", b"two"])
    world.turn()
    given = order_of(one(engine.requests()))
    order = given["order"]
    assert (order["kind"], order["body"], order["frames"], order["blobs"]) == ("execute", b"text", 2, 2)
    assert (given["b000"], given["b001"]) == (b"one", b"two")
    assert "def run(given" in given["source"]


def test_many_frames_are_joined(world, engine, client):
    frames = [bytes([index]) * index for index in range(100)]
    client.say(submit(frames=100), payload=frames)
    world.turn()
    request = one(engine.requests())
    given = order_of(request)
    assert given["order"]["lengths"] == [len(frame) for frame in frames]
    assert request.buffers[4:] == [b"".join(frames)]


def test_a_result_keeps_its_bytes(world, engine, client):
    task = task_id()
    client.say(submit(task))
    world.turn()
    display = [{"kind": "display_data", "data": {"text/plain": "x"}, "metadata": {}}]
    said = {"stdout": "out", "stderr": "err", "display": display}
    answer(engine, one(engine.requests()), packed(b"body", [b"f" * 20_000, b"g"], **said))
    ((delivered, frames),) = client.hear(m.Deliver)
    assert (delivered.task, delivered.status, delivered.body) == (task, m.STATUS_OK, b"body")
    assert [bytes(frame) for frame in frames] == [b"f" * 20_000, b"g"]
    assert (delivered.stdout, delivered.stderr, delivered.display) == ("out", "err", display)
    assert (delivered.started, delivered.finished) == (1.0, 1.5)


def test_a_failure(world, engine, client):
    client.say(submit())
    world.turn()
    about = {"status": 1, "name": "ValueError", "message": "no", "traceback": "On engine stock/0:\n...", "index": 3}
    answer(engine, one(engine.requests()), packed(pickle.dumps(ValueError("no")), **about))
    failure = payload.unpack_failure(one(client.messages(m.Deliver)).body)
    assert (failure.name, failure.index, failure.engine) == ("ValueError", 3, "stock/0")
    assert isinstance(failure.to_exception(), ValueError)


def test_what_cannot_be_sent_is_an_error_of_ours(world, engine, client):
    client.say(submit())
    world.turn()
    about = {
        "status": 1,
        "error": "TaskNotSendable",
        "name": "TaskNotSendable",
        "message": "no cloudpickle",
        "hint": "install it",
    }
    answer(engine, one(engine.requests()), packed(**about))
    error = payload.unpack_failure(one(client.messages(m.Deliver)).body).to_exception()
    assert isinstance(error, TaskNotSendable)
    assert error.hint == "install it"


def test_a_function_travels_once_and_again_when_it_is_asked_for(world, engine, client):
    digest = bytes(range(16))
    client.say(m.Function(digest, "f", "", b"the code", 1), payload=[b"of it"])
    call = {"kind": m.APPLY, "function": digest, "body": b"arguments"}
    for _ in range(2):
        client.say(submit(**call))
    world.turn()
    first = one(engine.requests())
    given = order_of(first)
    assert (given["order"]["code"], given["order"]["function"], given["b000"]) == (b"the code", digest.hex(), b"of it")
    answer(engine, first, packed(b"1"))
    world.turn()
    second = one(engine.requests())
    assert order_of(second)["order"]["code"] is None
    answer(engine, second, packed(needs=True))
    third = one(engine.requests())
    assert order_of(third)["order"]["code"] == b"the code"
    assert third.identities == second.identities
    answer(engine, third, packed(b"2"))
    assert [delivered.body for delivered in client.messages(m.Deliver)] == [b"1", b"2"]


@pytest.mark.parametrize(
    "buffers",
    [
        [],
        [b""],
        [b"a", b"b"],
        [b"\0\0\0\4null"],
        [packed(b"x", body=-1)],
        [packed(b"x", body=5000)],
        [packed(b"x", frames=[5000])],
        [b"\xff" * 2000],
    ],
)
def test_an_answer_that_makes_no_sense_ends_its_task(world, engine, client, buffers):
    client.say(submit())
    world.turn()
    answer(engine, one(engine.requests()), *buffers)
    failure = payload.unpack_failure(one(client.messages(m.Deliver)).body)
    assert failure.name == "WireError"


def test_an_error_around_the_guest_and_an_interrupt(world, engine, client):
    for name in ("KeyboardInterrupt", "SomeError"):
        client.say(submit())
        world.turn()
        about = {"status": "error", "ename": name, "evalue": "text", "traceback": ["a", "b"]}
        engine.reply(one(engine.requests()), about, {"status": "error"}, ())
    interrupted, failed = (payload.unpack_failure(entry.body) for entry in client.messages(m.Deliver))
    assert isinstance(interrupted.to_exception(), KeyboardInterrupt)
    assert "SomeError: text" in str(failed.to_exception())
    assert "a\nb" in failed.traceback


def test_what_was_aborted_in_the_engine_is_given_again(world, engine, client):
    client.say(submit())
    world.turn()
    engine.reply(one(engine.requests()), {"status": "aborted"}, {"status": "aborted"}, ())
    world.turn()
    answer(engine, one(engine.requests()), packed(b"done"))
    assert one(client.messages(m.Deliver)).body == b"done"


@pytest.mark.parametrize("fields", [{"kind": 99}, {"kind": m.APPLY}])
def test_a_task_that_is_none_is_refused(world, engine, client, fields):
    client.say(submit(**fields))
    world.turn()
    world.turn()
    failure = payload.unpack_failure(one(client.messages(m.Deliver)).body)
    assert (failure.name, engine.requests()) == ("WireError", [])


def test_its_output_is_for_no_stock_client(world, engine, client):
    world.arrive("iopub", [b"\1"])
    client.say(submit())
    world.turn()
    request = one(engine.requests())
    for kind, content in (("status", {"execution_state": "busy"}), ("stream", {"name": "stdout", "text": "x"})):
        world.arrive("iopub_engine", [b"topic", *engine.frames(kind, content, parent=request.header)])
    assert world.sockets.take("iopub") == []


def test_the_pickles_made_by_hand_are_pickles():
    opcodes = [code.name for code, _, _ in pickletools.genops(b"\x80\x04" + errand._RAW + b".")]
    assert opcodes[-1] == "STOP"
    assert "NEWOBJ" in opcodes

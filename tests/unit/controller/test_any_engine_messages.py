"""Whatever a stock engine or its nanny says, signed or not: the controller takes or drops it, has no mistake of its own, and goes on."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterd.core.wire import jupyter
from clusterd.core.wire import messages as m
from tests.unit.controller.stock import StockEngine, StockWorld
from tests.unit.controller.test_stock_engines import one, stock_task
from tests.unit.controller.world import submit

SOCKETS = ("registration", "mux_engine", "task_engine", "broadcast_engine", "control_engine", "iopub_engine", "hb_pong")
KINDS = (
    "apply_reply",
    "execute_reply",
    "registration_request",
    "unregistration_request",
    "clear_reply",
    "signal_reply",
    "_request",
    "shutdown_reply",
    "stream",
    "error",
    "execute_input",
    "execute_result",
    "status",
    "iopub_welcome",
)
_KEYS = "status started dependencies_met engine uuid id ename evalue traceback name text code msg_id session date data"
KEYS = st.sampled_from(_KEYS.split())
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "ok", "error", "aborted", "ENGINE", "2020-01-01T00:00:00Z", "2020", "é" * 200, "stdout"])
)
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=5
)
DICTS = st.dictionaries(KEYS, VALUES, max_size=4)
WORDS = st.sampled_from([b"ENGINE", b"", b"\1", b"\2", b"\3", b"\4", b"\2route", b"nanny", b"REPLY"]) | st.binary(
    max_size=8
)
SIGNED = st.tuples(
    st.sampled_from(SOCKETS),
    st.lists(WORDS, max_size=3),
    st.sampled_from(KINDS),
    st.tuples(DICTS, DICTS, DICTS),
    st.lists(st.binary(max_size=40), max_size=3),
)
RAW = st.tuples(
    st.sampled_from(SOCKETS), st.lists(WORDS | st.sampled_from([jupyter.DELIMITER, b"{}", b"[]", b"null"]), max_size=9)
)


def filled(value, engine):
    """The value with the engine's name where ENGINE stands."""
    if isinstance(value, dict):
        return {key: filled(item, engine) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, engine) for item in value]
    return engine.name if value == "ENGINE" else value


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(SIGNED | RAW, min_size=1, max_size=8))
def test_the_controller_survives_any_engine(tmp_path, said):
    world = StockWorld(tmp_path)
    engine, client = StockEngine(world).join(), world.client()
    stock_task(client)
    client.say(submit())
    world.turn()
    word = one(engine.requests()).identities[1]
    places = {b"ENGINE": engine.identity, b"REPLY": word}
    for socket, *message in said:
        if len(message) == 1:
            world.arrive(socket, [places.get(frame, frame) for frame in message[0]])
            continue
        route, kind, dicts, buffers = message
        parent, metadata, content = (filled(value, engine) for value in dicts)
        frames = engine.frames(kind, content, parent=parent, metadata=metadata, buffers=buffers)
        world.arrive(socket, [*(places.get(frame, frame) for frame in route), *frames])
    world.turn(1.0)
    assert world.stock_counters["failed"] == 0
    # Another engine joins, and works.
    other = StockEngine(world).join()
    _, task = stock_task(client, target=other.id)
    world.turn()
    for request in other.requests():
        other.reply(request)
    world.turn()
    for request in other.requests():
        other.reply(request)
    assert task in [delivered.task for delivered in client.messages(m.Deliver)]

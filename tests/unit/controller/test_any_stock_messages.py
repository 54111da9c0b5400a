"""Whatever a stock client says, correctly signed: the controller answers or drops it, has no mistake of its own, and goes on."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.controller.stock import StockClient, StockWorld
from tests.unit.controller.test_stock_clients import answer, name_of

CHANNELS = ("registration", "control", "mux", "task", "broadcast")
KINDS = (
    "apply_request",
    "execute_request",
    "comm_msg",
    "connection_request",
    "queue_request",
    "result_request",
    "history_request",
    "db_request",
    "purge_request",
    "resubmit_request",
    "registration_request",
    "unregistration_request",
    "stop_distributed_request",
    "clear_request",
    "abort_request",
    "signal_request",
    "shutdown_request",
    "strange_request",
)
_KEYS = """label targets after follow timeout retries is_broadcast is_coalescing original_msg_id msg_ids sig restart code silent
stop_on_error user_expressions verbose status_only query keys engine_ids uuid id dependencies all success failure msg_id $in $gt $glob
completed scheduler_args"""
KEYS = st.sampled_from(_KEYS.split())
WORDS = st.sampled_from(["", "x", "all", "SIGINT", "ENGINE", "2020-01-01T00:00:00Z", "\ud800", "é" * 100])
ATOMS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | WORDS
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | WORDS, inner, max_size=3), max_leaves=6
)
DICTS = st.dictionaries(KEYS, VALUES, max_size=5)
MESSAGES = st.tuples(
    st.sampled_from(CHANNELS),
    st.sampled_from(KINDS),
    st.sampled_from([None, "", "ENGINE", "f" * 32]),
    DICTS,
    DICTS,
    st.lists(st.binary(max_size=4), max_size=3),
)


def named(value, name):
    """The value with the engine's name where ENGINE stands."""
    if isinstance(value, dict):
        return {named(key, name): named(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [named(item, name) for item in value]
    return name if value == "ENGINE" else value


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(script=st.lists(MESSAGES, max_size=12))
def test_no_message_is_a_mistake_of_the_controller(tmp_path, script):
    world = StockWorld(tmp_path)
    engine, client = world.engine(), StockClient(world)
    name = name_of(engine)
    for channel, kind, to, metadata, content, buffers in script:
        client.send(
            channel,
            kind,
            named({"code": "1", **content} if kind == "execute_request" else content, name),
            to=named(to, name),
            metadata=named(metadata, name),
            buffers=buffers,
        )
    assert world.stock_counters["failed"] == 0
    world.sockets.sent.clear()
    client.send("registration", "connection_request")
    (reply,) = client.heard("registration")
    assert reply.content["engines"] == {"0": name}
    # What it was given runs, whatever it was.
    for _ in range(len(script)):
        answer(engine)
        engine.read()
    assert world.stock_counters["failed"] == 0

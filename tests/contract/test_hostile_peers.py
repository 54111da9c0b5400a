"""Peers that hold the right key, prove who they are, and then say anything: the controller stays up, and others are served."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract import hand_made_peer as wire

# What each link carries (PROTOCOL.md section 4), by number, without the Attach messages and Shutdown.
TYPES = {
    ("client", "data"): [20, 22, 79],
    ("client", "control"): [40, 44, 45, 46, 47, 48, 49, 50, 52, 79],
    ("operator", "control"): [40, 44, 45, 46, 47, 48, 49, 50, 52, 79],
    ("engine", "data"): [21, 24, 25, 79],
    ("agent", "control"): [40, 70, 71, 72, 73, 76, 78, 79],
}
field = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(0, 3)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.sampled_from([b"t" * 16, b"f" * 16, b"", "l-0", "interrupt", []]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=8,
)
payload = st.lists(st.binary(max_size=50), max_size=3)


def said(kinds):
    known = st.builds(lambda kind, fields: [kind, *fields], st.sampled_from(kinds), st.lists(field, max_size=10))
    return st.lists(known | st.lists(field, max_size=5), min_size=1, max_size=4)


@pytest.mark.parametrize(("role", "channel"), TYPES, ids=["-".join(pair) for pair in TYPES])
def test_whatever_a_proven_peer_says_others_are_served(controller, connect, status_of, role, channel):
    bystander = connect(controller, "client", "control")

    @settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
    @given(messages=said(TYPES[role, channel]), frames=payload)
    def say_anything(messages, frames):
        peer = connect(controller, role, channel)
        peer.say(*messages, payload=tuple(frames))
        peer.close()
        bystander.say([wire.PING])
        bystander.expect(wire.PONG)

    say_anything()
    assert controller.process.poll() is None, controller.log_path.read_text()
    status = status_of(controller)
    assert not any("failed" in counters for counters in status["dropped"].values()), controller.log_path.read_text()
    client, engine = connect(controller, "client", "data"), connect(controller, "engine", "data")
    wire_id = int(engine.attached[2])
    task = os.urandom(16)
    client.say([wire.SUBMIT, task, 2, b"", wire_id, b"body", 0])
    dispatch = engine.expect(wire.DISPATCH)
    assert dispatch[1] == task
    engine.say([wire.RESULT, dispatch[1], dispatch[2], 0, 1.0, 1.5, "", "", b"value", 0])
    assert client.expect(wire.DELIVER)[1] == task


@pytest.mark.parametrize(
    "message",
    [
        [wire.RESULT, b"t" * 16, 0, 7, 1.0, 2.0, "", "", b"", 0],
        [wire.RESULT, b"t" * 16, 0, 0, 1.0, 2.0, "", "", b"", 5],
        [wire.RESULT, b"t" * 16, -1, 0, 1.0, 2.0, "", "", b"", 0],
        [wire.NOT_RUN, b"", 0, "recalled"],
    ],
    ids=["status", "frames", "attempt", "task"],
)
def test_signed_nonsense_resets_its_sender(controller, connect, status_of, message):
    engine = connect(controller, "engine", "data")
    engine.say(message)
    assert engine.is_cut_off(engine.recorded[-1][0])
    assert status_of(controller)["dropped"]["engine-data"] == {"malformed": 1}

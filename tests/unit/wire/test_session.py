"""Sessions: what is signed is what arrives; numbers, acknowledgements, windows and limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.core.wire import codec, frames, handshake, session
from clusterd.core.wire import messages as m
from clusterd.errors import AuthenticationError, LimitExceeded, VersionMismatch, WireError

KEY = b"k" * 32


def connected(*, role="client", channel="data", has_digests=False, limits=None):
    """(peer's session, controller's session) after a handshake."""
    peer = handshake.PeerHandshake(KEY, role, channel, b"n" * 16, "test", has_digests=has_digests)
    hello = handshake.read_hello(KEY, codec.ENDPOINT_OF[role, channel], *peer.hello())
    answer, controller = handshake.welcome(
        KEY,
        hello,
        challenge=b"c" * 16,
        controller=b"i" * 16,
        cluster="test",
        limits=limits or m.Limits(),
        has_digests=has_digests,
    )
    return peer.receive(answer), controller


def submit(number=0, frames=0):
    return m.Submit(number.to_bytes(16, "big"), m.APPLY, b"f" * 16, None, b"body", frames)


binary = st.binary(max_size=64)
submits = st.builds(
    m.Submit,
    task=st.binary(min_size=1, max_size=64),
    kind=st.integers(0, 5),
    function=st.just(b"") | st.binary(min_size=16, max_size=16),
    target=st.none() | st.integers(0, 2**40) | st.lists(st.integers(0, 9), max_size=3),
    body=binary,
    options=st.none()
    | st.builds(
        m.TaskOptions, retries=st.integers(0, 9), timeout=st.none() | st.floats(0, 1e9), label=st.text(max_size=9)
    ),
)


@given(st.lists(st.tuples(st.lists(submits, max_size=5), st.lists(binary, max_size=4)), max_size=8))
def test_what_is_sealed_is_opened_in_order(batches):
    peer, controller = connected()
    for said, payload in batches:
        sealed = peer.seal(said, payload)
        content = controller.open(sealed[0], sealed[1], sealed[2:])
        assert content.messages == said
        assert sealed[2:] == payload


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_are_refused(mac, header):
    _, controller = connected()
    with pytest.raises(WireError):
        controller.open(mac, header)
    assert controller.received == 0
    assert not controller.is_broken


@given(st.data())
def test_any_flipped_bit_is_refused(data):
    peer, controller = connected()
    mac, header = peer.seal([submit()])
    joined = bytearray(mac + header)
    bit = data.draw(st.integers(0, len(joined) * 8 - 1))
    joined[bit // 8] ^= 1 << bit % 8
    with pytest.raises(AuthenticationError):
        controller.open(bytes(joined[:32]), bytes(joined[32:]))


def test_a_replay_is_refused_and_does_not_break_the_session():
    peer, controller = connected()
    first = peer.seal([submit(1)])
    controller.open(*first)
    with pytest.raises(session.Replayed):
        controller.open(*first)
    assert not controller.is_broken
    controller.open(*peer.seal([submit(2)]))


def test_a_gap_breaks_the_session():
    peer, controller = connected()
    peer.seal([submit(1)])
    with pytest.raises(session.Replayed):
        controller.open(*peer.seal([submit(2)]))
    assert controller.is_broken


def test_a_message_of_the_other_direction_does_not_verify():
    peer, _ = connected()
    mac, header = peer.seal([submit()])
    with pytest.raises(AuthenticationError):
        peer.open(mac, header)


def test_a_signed_message_of_another_link_breaks_the_session():
    peer, controller = connected()
    with pytest.raises(WireError):
        controller.open(*peer.seal([m.Shutdown(1)]))
    assert controller.is_broken


@pytest.mark.parametrize("received", [[], [b"payload", b"more"], [b"other length"]])
def test_payload_must_be_what_the_header_announces(received):
    peer, controller = connected()
    mac, header, *_ = peer.seal([submit(frames=1)], [b"payload"])
    with pytest.raises(WireError, match="payload frames"):
        controller.open(mac, header, received)


def test_acknowledging_more_than_was_sent_is_refused():
    peer, controller = connected()
    controller.received = controller.dealt_with = 7
    with pytest.raises(WireError, match="acknowledges"):
        peer.open(*controller.seal([m.Attached(b"t")]))


def test_the_window_closes_and_opens_with_acknowledgements():
    peer, controller = connected(limits=m.Limits(window=1000))
    sealed = []
    while peer.has_window:
        sealed.append(peer.seal([submit()], [b"x" * 300]))
    assert len(sealed) == 3
    for parts in sealed:
        controller.open(parts[0], parts[1], parts[2:])
    assert controller.must_ack
    peer.open(*controller.seal(()))
    assert peer.has_window
    assert peer.unacked_bytes == 0
    assert not controller.owes_ack
    assert not controller.must_ack


def test_a_bare_acknowledgement_is_not_acknowledged():
    peer, controller = connected()
    controller.open(*peer.seal([submit()]))
    peer.open(*controller.seal(()))
    assert not peer.owes_ack


def test_many_small_messages_are_acknowledged_before_the_window_is_full():
    peer, controller = connected()
    for number in range(session.ACK_EVERY_MESSAGES):
        assert not controller.must_ack
        controller.open(*peer.seal([submit(number)]))
    assert controller.must_ack


def test_held_acknowledgements_say_only_what_was_dealt_with():
    peer, controller = connected()
    controller.is_holding_acks = True
    for number in range(3):
        controller.open(*peer.seal([submit(number)]))
    peer.open(*controller.seal([m.NeedFunction(b"d" * 16)]))
    assert peer.acked == 0
    controller.deal_with(2)
    peer.open(*controller.seal(()))
    assert peer.acked == 2
    assert controller.owes_ack


@pytest.mark.parametrize(
    ("limits", "payload", "said"),
    [
        (m.Limits(max_message=10), [b"x" * 11], [submit(frames=1)]),
        (m.Limits(max_frames=2), [b""] * 3, [submit(frames=3)]),
        (m.Limits(max_header=100), [], [submit(number) for number in range(9)]),
    ],
    ids=["payload", "frames", "header"],
)
def test_over_a_limit_nothing_is_sealed(limits, payload, said):
    peer, controller = connected(limits=limits)
    with pytest.raises(LimitExceeded):
        peer.seal(said, payload)
    assert peer.sent == 0
    assert peer.unacked_bytes == 0
    controller.open(*peer.seal([]))


def test_what_the_controller_adds_to_a_message_at_the_limit_can_be_said():
    peer, controller = connected(limits=m.Limits(max_header=100, max_frames=1, max_message=10))
    peer.open(*controller.seal([m.NeedFunction(b"d" * 16)] * 9))
    mac, header, *payload = controller.seal([m.Deliver(b"t", 0, 0, 0, 1.0, 2.0, "", "", b"", 2)], [b"x" * 11] * 2)
    peer.open(mac, header, payload)


ids = b"t" * 16
NAN = float("nan")


@pytest.mark.parametrize(
    ("role", "channel", "message"),
    [
        ("client", "data", m.Submit(b"", 0, b"", None, b"")),
        ("client", "data", m.Submit(b"t" * 65, 0, b"", None, b"")),
        ("client", "data", m.Submit(ids, -1, b"", None, b"")),
        ("client", "data", m.Submit(ids, 256, b"", None, b"")),
        ("client", "data", m.Submit(ids, 0, b"f" * 17, None, b"")),
        ("client", "data", m.Submit(ids, 0, b"", None, b"", -1)),
        ("client", "data", m.Submit(ids, 0, b"", None, b"", 0, m.TaskOptions(retries=-1))),
        ("client", "data", m.Submit(ids, 0, b"", None, b"", 0, m.TaskOptions(timeout=-1.0))),
        ("client", "data", m.Submit(ids, 0, b"", None, b"", 0, m.TaskOptions(timeout=NAN))),
        ("client", "data", m.Submit(ids, 0, b"", None, b"", 0, m.TaskOptions(after=m.Dependency([b""])))),
        ("client", "data", m.Function(b"short", "f", "", b"")),
        ("client", "control", m.Abort(1, [b""])),
        ("engine", "data", m.NeedFunction(b"")),
        ("engine", "data", m.Result(ids, -1, 0, 1.0, 2.0, "", "", b"")),
        ("engine", "data", m.Result(ids, 2**64 - 1, 0, 1.0, 2.0, "", "", b"")),
        ("engine", "data", m.NotRun(ids, 2**32, "")),
        ("engine", "data", m.AttachEngine(ids, b"", "e", 0, "", 1, "h", "3", "", wanted_id=2**40)),
    ],
    ids=repr,
)
def test_a_field_out_of_its_range_breaks_the_session(role, channel, message):
    peer, controller = connected(role=role, channel=channel)
    with pytest.raises(WireError, match="malformed"):
        controller.open(*peer.seal([message]))
    assert controller.is_broken


def test_lengths_are_bytes_also_for_buffers_of_other_items():
    peer, controller = connected()
    buffer = memoryview(bytes(80)).cast("d")
    sealed = peer.seal([submit(frames=1)], [buffer])
    controller.open(sealed[0], sealed[1], [bytes(80)])


def test_digests_are_given_demanded_and_checked():
    peer, controller = connected(has_digests=True)
    sealed = peer.seal([submit(frames=1)], [b"payload"])
    content = controller.open(sealed[0], sealed[1], sealed[2:])
    session.check_payload(content.digests, [b"payload"])
    with pytest.raises(AuthenticationError):
        session.check_payload(content.digests, [b"Payload"])
    peer.has_digests = False
    mac, header, *payload = peer.seal([submit(frames=1)], [b"x"])
    with pytest.raises(WireError, match="digests"):
        controller.open(mac, header, payload)


@pytest.mark.parametrize("size", [0, 1, frames.INLINE_BODY_BYTES, frames.INLINE_BODY_BYTES + 1])
def test_a_body_is_found_where_it_was_placed(size):
    body, buffers = b"b" * size or b"b", [b"one", b"two"]
    assert frames.find_body(*frames.place_body(body, buffers)) == (body, buffers)


@pytest.mark.parametrize(
    ("parts", "error"),
    [([], WireError), ([b"x" * 32], WireError), ([b"x", b""], WireError), ([b"x" * 32, b"h" * 11], LimitExceeded)],
)
def test_the_shape_is_checked_before_anything_is_verified(parts, error):
    with pytest.raises(error):
        frames.split(parts, m.Limits(max_header=10))


# --- handshake ---


def test_a_refusal_is_raised_with_its_code():
    peer = handshake.PeerHandshake(KEY, "client", "data", b"n" * 16, "test", has_digests=False)
    with pytest.raises(handshake.Refused) as caught:
        peer.receive(handshake.refuse(KEY, b"n" * 16, VersionMismatch("too old", hint="upgrade")))
    assert (caught.value.code, caught.value.message, caught.value.hint) == ("version", "too old", "upgrade")


def test_an_answer_to_another_hello_is_refused():
    peer = handshake.PeerHandshake(KEY, "client", "data", b"n" * 16, "test", has_digests=False)
    with pytest.raises(AuthenticationError):
        peer.receive(handshake.refuse(KEY, b"m" * 16, VersionMismatch("x")))


def test_keys_differ_by_direction_role_channel_nonce_and_challenge():
    hello = m.Hello((1, 1), "client", "data", b"n" * 16, "")
    keys = {
        *handshake.session_keys(KEY, hello, b"c" * 16),
        *handshake.session_keys(KEY, hello, b"d" * 16),
        *handshake.session_keys(b"x" * 32, hello, b"c" * 16),
        *handshake.session_keys(KEY, m.Hello((1, 1), "operator", "data", b"n" * 16, ""), b"c" * 16),
        *handshake.session_keys(KEY, m.Hello((1, 1), "client", "control", b"n" * 16, ""), b"c" * 16),
        *handshake.session_keys(KEY, m.Hello((1, 1), "client", "data", b"m" * 16, ""), b"c" * 16),
    }
    assert len(keys) == 12


def test_only_the_reset_for_the_last_message_is_believed():
    peer_handshake = handshake.PeerHandshake(KEY, "client", "data", b"n" * 16, "test", has_digests=False)
    hello = handshake.read_hello(KEY, "client-data", *peer_handshake.hello())
    answer, _ = handshake.welcome(
        KEY, hello, challenge=b"c" * 16, controller=b"i" * 16, cluster="t", limits=m.Limits(), has_digests=False
    )
    peer = peer_handshake.receive(answer)
    old = peer.seal([submit(1)])[0]
    last = peer.seal([submit(2)])[0]
    assert peer_handshake.reset_of(handshake.reset(KEY, last), peer)
    assert not peer_handshake.reset_of(handshake.reset(KEY, old), peer)
    assert not peer_handshake.reset_of(handshake.reset(b"x" * 32, last), peer)


@given(st.tuples(st.integers(-5, 9), st.integers(-5, 9)))
def test_the_version_is_the_highest_in_common(versions):
    common = handshake.common_version(versions)
    both = set(range(versions[0], versions[1] + 1)) & set(range(m.VERSIONS[0], m.VERSIONS[1] + 1))
    assert common == (max(both) if both else None)


def test_every_message_has_a_number_of_its_own():
    tags = [
        kind.__struct_config__.tag
        for kind in set(filter(callable, vars(m).values()))
        if isinstance(kind, type) and issubclass(kind, m.Message)
    ]
    tags = [tag for tag in tags if tag is not None]
    assert len(tags) == len(set(tags)) > 40

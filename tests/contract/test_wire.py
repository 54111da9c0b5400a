"""PROTOCOL.md held to its word by a peer made by hand: garbage, an old version, 1 GB, a silent reader, an impostor, a replay."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import msgspec
import pytest

from tests.contract import hand_made_peer as wire
from tests.waiting import until


def submit(task: bytes, body: bytes = b"body", frames: int = 0, kind: int = 2) -> list:
    return [wire.SUBMIT, task, kind, b"", None, body, frames]


def result_of(dispatch: list, body: bytes = b"result", frames: int = 0) -> list:
    return [wire.RESULT, dispatch[1], dispatch[2], 0, 1.0, 1.5, "", "", body, frames]


@pytest.fixture
def pair(controller, connect):
    """(client-data, engine-data) peers, attached."""
    engine = connect(controller, "engine", "data")
    return connect(controller, "client", "data"), engine


def dropped(status: dict, endpoint: str) -> dict:
    return status["dropped"][endpoint]


# --- the files ---


def test_connection_files_are_private_and_hold_different_keys(controller):
    for path in (controller.client_file, controller.engine_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    client = msgspec.json.decode(controller.client_file.read_bytes())["clusterd"]
    engine = msgspec.json.decode(controller.engine_file.read_bytes())["clusterd"]
    assert client["key"] != engine["key"]
    assert client["data"] != engine["data"]
    assert stat.S_IMODE(controller.runtime.stat().st_mode) == 0o700


def test_unix_sockets_are_private_and_tcp_has_none(controller, transport):
    sockets = [path for path in controller.runtime.iterdir() if path.is_socket()]
    assert len(sockets) == (4 if transport == "unix" else 0)
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} <= {0o600}


def test_files_and_sockets_are_removed_at_exit(controller):
    assert controller.stop() == 0
    assert not controller.client_file.exists()
    assert not controller.engine_file.exists()
    assert not [path for path in controller.runtime.rglob("*") if not path.is_dir()]


def test_files_and_keys_are_kept_with_reuse(start_controller):
    controller = start_controller("--reuse")
    before = msgspec.json.decode(controller.client_file.read_bytes())["clusterd"]
    assert controller.stop() == 0
    assert controller.client_file.exists()
    controller.start()
    after = until(
        lambda: (
            (new := msgspec.json.decode(controller.client_file.read_bytes())["clusterd"])["controller"]
            != before["controller"]
            and new
        ),
        "the new controller's file",
    )
    assert after["key"] == before["key"]
    assert after["data"] == before["data"]


# --- the handshake ---


def test_a_right_peer_is_let_in(controller, connect):
    peer = connect(controller, "client", "data", attached=False)
    assert peer.greet()[0] == wire.WELCOME
    assert peer.attach(os.urandom(16))[0] == wire.ATTACHED


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"x"],
        [b"GET / HTTP/1.1\r\n\r\n"],
        [b"x" * 32, b""],
        [b"x" * 32, b"\x95\x00"],
        [b"x" * 32, b"\xc1" * 100],
        [b"x" * 31, b"header"],
        [os.urandom(32), os.urandom(300), os.urandom(300)],
        [b"x" * 32, b"h", *([b""] * 2000)],
    ],
    ids=["empty", "one-byte", "http", "no-header", "half-array", "not-msgpack", "short-mac", "noise", "2000-frames"],
)
def test_garbage_gets_no_answer_and_disturbs_nobody(controller, connect, status_of, parts):
    bystander = connect(controller, "client", "control")
    peer = connect(controller, "client", "data", attached=False)
    peer.send_raw(*parts)
    # The next message on the same connection is handled after the garbage: either its answer shows that there was none before,
    # or the garbage was no message at all, and a stream that lost its framing is closed.
    peer.send_raw(*peer.hello())
    answer = peer.receive_raw()
    assert not answer or wire.unpack(answer[1])[4][0][:3:2] == [wire.WELCOME, peer.nonce]
    bystander.say([wire.PING])
    bystander.expect(wire.PONG)
    assert sum(dropped(status_of(controller), "client-data").values()) == 1


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", bytes(4096), b"CD01" + b"\xff" * 100], ids=["http", "zeros", "huge"]
)
@pytest.mark.parametrize("transport", ["unix"], indirect=True)
def test_bytes_that_are_not_framed_close_the_stream(controller, connect, status_of, data):
    peer = connect(controller, "client", "data", attached=False)
    peer.wire.send_bytes(data)
    assert peer.receive_raw() == []
    assert sum(dropped(status_of(controller), "client-data").values()) == 1


@pytest.mark.parametrize("transport", ["unix"], indirect=True)
def test_a_message_in_single_bytes_is_a_message(controller, connect):
    peer = connect(controller, "client", "data", attached=False)
    whole = peer.wire.send_bytes
    peer.wire.send_bytes = lambda data: [whole(data[place : place + 1]) for place in range(len(data))]
    assert peer.greet()[0] == wire.WELCOME
    assert peer.attach(os.urandom(16))[0] == wire.ATTACHED


def test_wrong_key_gets_no_answer(controller, connect, status_of):
    peer = connect(controller, "client", "data", attached=False)
    peer.send_raw(*peer.hello(key=os.urandom(32)))
    assert peer.greet()[0] == wire.WELCOME
    assert dropped(status_of(controller), "client-data") == {"bad_mac": 1}


def test_the_engine_key_is_no_client_key(controller, connect, status_of):
    peer = connect(controller, "client", "data", attached=False)
    engine_key = bytes.fromhex(msgspec.json.decode(controller.engine_file.read_bytes())["clusterd"]["key"])
    peer.send_raw(*peer.hello(key=engine_key))
    assert peer.greet()[0] == wire.WELCOME
    assert dropped(status_of(controller), "client-data") == {"bad_mac": 1}


@pytest.mark.parametrize("role", ["engine", "agent", "king"])
def test_a_role_that_does_not_belong_there_is_dropped(controller, connect, status_of, role):
    peer = connect(controller, "client", "data", attached=False)
    peer.role = role
    peer.send_raw(*peer.hello())
    peer.role = "client"
    assert peer.greet()[0] == wire.WELCOME
    assert dropped(status_of(controller), "client-data") == {"malformed": 1}


@pytest.mark.parametrize("versions", [(0, 0), (2, 9)])
def test_other_versions_are_refused_with_both_ranges(controller, connect, versions):
    peer = connect(controller, "client", "data", attached=False)
    answer = peer.greet(versions)
    assert answer[:3] == [wire.REFUSE, peer.nonce, "version"]
    assert "1 to 1" in answer[3]
    assert f"{versions[0]} to {versions[1]}" in answer[3]


def test_a_newer_peer_that_also_speaks_ours_gets_ours(controller, connect):
    peer = connect(controller, "client", "data", attached=False)
    assert peer.greet((1, 7))[:2] == [wire.WELCOME, 1]


def test_fields_that_a_later_release_adds_are_ignored(controller, connect):
    peer = connect(controller, "client", "data", attached=False)
    peer.greet()
    peer.say([wire.ATTACH_CLIENT, os.urandom(16), b"", 1, "here", "user", "label", "a later field", 42])
    assert peer.hear()[0][0][0] == wire.ATTACHED


def test_a_task_before_attach_is_refused(controller, connect):
    peer = connect(controller, "client", "data", attached=False)
    peer.greet()
    peer.say(submit(b"t" * 16))
    assert peer.hear()[0][0][0] == wire.REFUSE


# --- who is who ---


def test_an_impostor_is_refused_and_the_real_one_goes_on(controller, connect, status_of):
    real = connect(controller, "engine", "data")
    real.say([wire.NEED_FUNCTION, b"d" * 16])
    # Answered or not, the message proves that somebody speaks for this uuid; the status shows that it was dealt with.
    until(lambda: status_of(controller)["engines"] == 1, "the engine")
    for token in (b"", b"x" * 16):
        impostor = connect(controller, "engine", "data", attached=False)
        impostor.greet()
        assert impostor.attach(real.uuid, token)[:3] == [wire.REFUSE, b"", "token"]
    assert dropped(status_of(controller), "engine-data") == {"impostor": 2}
    client = connect(controller, "client", "data")
    client.say(submit(b"t" * 16))
    assert real.expect(wire.DISPATCH)[1] == b"t" * 16


def test_the_right_token_takes_the_place_over(controller, connect):
    first = connect(controller, "engine", "data")
    second = connect(controller, "engine", "data", attached=False)
    second.greet()
    answer = second.attach(first.uuid, first.token)
    assert answer[0] == wire.ATTACHED
    assert answer[3] is True
    client = connect(controller, "client", "data")
    client.say(submit(b"t" * 16))
    assert second.expect(wire.DISPATCH)[1] == b"t" * 16
    first.say([wire.NEED_FUNCTION, b"d" * 16])
    assert first.is_cut_off(first.recorded[-1][0])


def test_a_token_outlives_the_controller_with_reuse(start_controller, connect):
    controller = start_controller("--reuse")
    before = connect(controller, "engine", "data")
    controller.kill()
    controller.client_file.unlink()
    controller.start()
    after = connect(controller, "engine", "data", attached=False)
    after.greet()
    assert after.attach(before.uuid, before.token)[0] == wire.ATTACHED
    stranger = connect(controller, "engine", "data", attached=False)
    stranger.greet()
    assert stranger.attach(os.urandom(16), b"x" * 16)[:3] == [wire.REFUSE, b"", "token"]


# --- replays ---


def test_a_replayed_message_is_counted_and_not_executed(controller, pair, status_of):
    client, engine = pair
    client.say(submit(b"t" * 16))
    first = engine.expect(wire.DISPATCH)
    client.send_raw(*client.recorded[-1])
    client.say(submit(b"u" * 16))
    engine.say(result_of(first))
    assert engine.expect(wire.DISPATCH)[1] == b"u" * 16
    assert dropped(status_of(controller), "client-data") == {"replayed": 1}


def test_a_recorded_connection_is_worth_nothing_on_another(controller, connect, status_of):
    victim = connect(controller, "client", "data")
    victim.say(submit(b"t" * 16))
    attacker = connect(controller, "client", "data", attached=False)
    attacker.nonce = victim.nonce
    attacker.send_raw(*attacker.hello())
    assert attacker.receive_raw() is not None  # a Welcome for a challenge that nothing recorded is signed for
    for parts in victim.recorded:
        attacker.send_raw(*parts)
    victim.say(submit(b"u" * 16))
    until(lambda: status_of(controller)["tasks"]["queued"] == 2, "two tasks")
    assert dropped(status_of(controller), "client-data") == {"bad_mac": len(victim.recorded) - 1}


def test_a_message_reflected_to_its_sender_is_refused(controller, connect, status_of):
    peer = connect(controller, "client", "control")
    peer.say([wire.PING])
    reflected = peer.receive_raw()
    peer.send_raw(*reflected)
    until(lambda: dropped(status_of(controller), "client-control") == {"bad_mac": 1}, "the drop")


def test_a_gap_in_the_numbers_resets_the_connection(controller, connect):
    peer = connect(controller, "client", "control")
    peer.send_raw(*(sent := peer.seal([wire.PING], seq=17)))
    assert peer.is_cut_off(sent[0])


def test_what_belongs_to_another_link_resets_the_connection(controller, connect, status_of):
    peer = connect(controller, "client", "data")
    peer.say([wire.SHUTDOWN, 1])
    assert peer.is_cut_off(peer.recorded[-1][0])
    assert dropped(status_of(controller), "client-data") == {"malformed": 1}


def test_a_client_may_not_do_what_operators_may(controller, connect):
    peer = connect(controller, "client", "control")
    peer.say([wire.SHUTDOWN, 7], [wire.SET_DESIRED, 8, "launch", 1, [0]])
    messages = peer.hear()[0]
    assert [message[:3] for message in messages] == [[wire.ERROR_REPLY, 7, "denied"], [wire.ERROR_REPLY, 8, "denied"]]


def test_an_unknown_session_is_reset(start_controller, connect):
    controller = start_controller("--reuse")
    before = connect(controller, "client", "control")
    controller.kill()
    controller.client_file.unlink()
    controller.start()
    peer = connect(controller, "client", "control", attached=False)
    peer.up, peer.sent = before.up, before.sent
    peer.say([wire.PING])
    parts = peer.receive_raw()
    assert wire.unpack(parts[1])[4][0][:2] == [wire.RESET, peer.recorded[-1][0]]
    assert parts[0] == wire.mac_of(peer.static, parts[1])


# --- sizes ---


def test_payload_goes_through_untouched(pair):
    client, engine = pair
    blob = os.urandom(300_000)
    client.say(submit(b"t" * 16, b"", 2), payload=(blob, b"second"))
    heard = engine.hear()
    assert heard[0][0][0] == wire.DISPATCH
    assert heard[1] == [blob, b"second"]
    engine.say(result_of(heard[0][0], b"", 1), payload=(blob,))
    messages, payload = client.hear()
    assert messages[0][0] == wire.DELIVER
    assert payload == [blob]


def test_one_payload_for_several_engines(controller, connect):
    client = connect(controller, "client", "data", attached=False)
    assert client.greet()[6][7] >= 64
    client.attach(os.urandom(16))
    engines = [connect(controller, "engine", "data", attached=False) for _ in range(2)]
    ids = []
    for engine in engines:
        engine.greet()
        ids.append(engine.attach(os.urandom(16))[2])
    blob = os.urandom(300_000)
    client.say([wire.BROADCAST, [b"first", b"second", b"nobody"], [*ids, 77], 2, b"", b"", 1], payload=(blob,))
    assert client.expect(wire.FAILED)[1:4] == [b"nobody", 0, "unschedulable"]
    for engine, task in zip(engines, (b"first", b"second"), strict=True):
        messages, payload = engine.hear()
        assert messages[0][:3] == [wire.DISPATCH, task, 0]
        assert payload == [blob]
        engine.say(result_of(messages[0], task))
        assert client.expect(wire.DELIVER)[9] == task


def test_a_broadcast_that_does_not_fit_together_resets_the_connection(controller, connect):
    peer = connect(controller, "client", "data")
    parts = peer.seal([wire.BROADCAST, [b"a", b"b"], [0], 2, b"", b"body", 0])
    peer.send_raw(*parts)
    assert peer.is_cut_off(parts[0])


def test_frames_that_the_header_does_not_announce_are_refused(controller, connect, status_of):
    peer = connect(controller, "client", "data")
    parts = peer.seal(submit(b"t" * 16, b"", 1), payload=(b"announced",))
    peer.send_raw(*parts[:2], b"something else")
    assert peer.is_cut_off(parts[0])
    assert dropped(status_of(controller), "client-data") == {"malformed": 1}


def test_a_gigabyte_to_the_control_endpoint_is_cut(controller, connect):
    bystander = connect(controller, "client", "control")
    peer = connect(controller, "client", "control", attached=False)
    peer.send_raw(b"x" * 1024**3)
    bystander.say([wire.PING])
    bystander.expect(wire.PONG)
    peer.close()
    assert memory_of(controller) < 300 * 1024**2


def test_a_gigabyte_of_unsigned_data_is_dropped(start_controller, connect, status_of):
    controller = start_controller(spec={"max_message": 64 * 1024**2})
    bystander = connect(controller, "client", "control")
    peer = connect(controller, "client", "data", attached=False)
    peer.send_raw(b"m" * 32, b"h", b"x" * 1024**3)
    bystander.say([wire.PING])
    bystander.expect(wire.PONG)
    peer.close()
    assert connect(controller, "client", "data", attached=False).greet()[0] == wire.WELCOME
    assert memory_of(controller) < 300 * 1024**2


def memory_of(controller) -> int:
    """The most that the controller has had resident, in bytes."""
    lines = Path(f"/proc/{controller.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def test_a_huge_count_in_a_small_header_costs_nothing(controller, connect, status_of):
    # MessagePack announces lengths: an array of 2**32 - 1 elements in ten bytes must not be allocated.
    peer = connect(controller, "client", "data")
    header = b"\x95\x01\x00\xdd" + struct.pack(">I", 2**32 - 1)
    mac = wire.mac_of(peer.up, header)
    peer.send_raw(mac, header)
    assert peer.is_cut_off(mac)
    assert memory_of(controller) < 300 * 1024**2


# --- windows ---


def test_a_silent_reader_slows_nobody_and_grows_nothing(start_controller, connect, status_of):
    controller = start_controller(
        spec={"client_credit": {"tasks": 100_000, "memory": 64 * 1024**2, "results": 8 * 1024**2}}
    )
    engine = connect(controller, "engine", "data")
    silent = connect(controller, "client", "data")
    block = os.urandom(4 * 1024**2)
    tasks = [f"silent-{number:08}".encode() for number in range(200)]
    silent.say(*(submit(task) for task in tasks))
    answered = 0
    # The engine answers 4 MiB a task, 800 MiB in all; the client reads nothing, and the controller stops giving.
    while (heard := engine.hear(2.0)) is not None:
        for message in heard[0]:
            if message[0] == wire.DISPATCH:
                engine.say(result_of(message, b"", 1), payload=(block,))
                answered += 1
    assert 0 < answered < 100
    assert memory_of(controller) < 512 * 1024**2
    assert next(client for client in status_of(controller)["clients"] if client["is_blocked"])
    other = connect(controller, "client", "data")
    other.say(submit(b"other-task-00001"))
    dispatch = engine.expect(wire.DISPATCH)
    assert dispatch[1] == b"other-task-00001"
    engine.say(result_of(dispatch))
    assert other.expect(wire.DELIVER)[1] == b"other-task-00001"
    # It reads again: everything arrives, once.
    got = []
    while len(got) < 200:
        heard = silent.hear(10)
        assert heard is not None, f"{len(got)} of 200 arrived"
        got += [message[1] for message in heard[0] if message[0] == wire.DELIVER]
        silent.say()
        while (ready := engine.hear(0.01)) is not None:
            for message in ready[0]:
                if message[0] == wire.DISPATCH:
                    engine.say(result_of(message, b"small"))
    assert sorted(got) == sorted(tasks)


def test_tasks_beyond_the_credit_are_refused_and_the_rest_run(start_controller, connect):
    controller = start_controller(spec={"client_credit": {"tasks": 10, "memory": 64 * 1024**2, "results": 8 * 1024**2}})
    client = connect(controller, "client", "data")
    client.say(*(submit(f"task-{number:011}".encode()) for number in range(12)))
    failed = []
    while len(failed) < 2:
        failed += [message for message in client.hear()[0] if message[0] == wire.FAILED]
    assert [message[1] for message in failed] == [b"task-00000000010", b"task-00000000011"]
    assert {message[3] for message in failed} == {"overloaded"}


def test_acknowledgements_come_without_anything_to_carry_them(controller, connect):
    client = connect(controller, "client", "data")
    client.say(submit(b"t" * 16))
    parts = client.receive_raw()
    seq, ack, sizes, digests, messages = wire.unpack(parts[1])
    assert (ack, sizes, digests, messages) == (client.sent, [], None, [])
    assert seq == client.received + 1


def test_undelivered_results_reach_the_client_when_it_is_back(controller, connect):
    engine = connect(controller, "engine", "data")
    client = connect(controller, "client", "data")
    client.say(submit(b"t" * 16))
    dispatch = engine.expect(wire.DISPATCH)
    client.close()
    engine.say(result_of(dispatch, b"kept"))
    back = connect(controller, "client", "data", attached=False)
    back.greet()
    assert back.attach(client.uuid, client.token)[3] is True
    assert back.expect(wire.DELIVER)[9] == b"kept"


def test_a_repeated_result_is_delivered_once(controller, pair):
    client, engine = pair
    client.say(submit(b"t" * 16))
    dispatch = engine.expect(wire.DISPATCH)
    engine.say(result_of(dispatch))
    engine.say(result_of(dispatch))
    client.expect(wire.DELIVER)
    client.say(submit(b"u" * 16))
    second = engine.expect(wire.DISPATCH)
    engine.say(result_of(second))
    assert client.expect(wire.DELIVER)[1] == b"u" * 16

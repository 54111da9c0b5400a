"""Keys that are changed while the cluster works: who is accepted when, who is told what, what is in the files, and what a thief gets."""

from __future__ import annotations

import errno
import os
import time

import pytest

from clusterd.controller import credentials, rotation
from clusterd.core.model import connection
from clusterd.core.wire import handshake
from clusterd.core.wire import messages as m
from clusterd.core.wire.handshake import Refused
from tests.unit.controller.durable import Cluster
from tests.unit.controller.world import Peer, result_of, submit

GRACE = 60.0
ALL_KEYS = ("client_key", "engine_key", "stock_key")


@pytest.fixture
def world(make_world, isolated):
    (isolated.root / "profile").mkdir(mode=0o700)
    return with_files(make_world(reuse=True))


def with_files(world):
    """Give it connection files, as `Controller.run` does."""
    security = world.controller._security
    security.mkdir(mode=0o700, exist_ok=True)
    addresses = dict.fromkeys(world.servers, "unix:///nowhere")
    world.files = world.controller.rotation.files = credentials.ConnectionFiles(
        security,
        addresses,
        world.controller._secrets,
        cluster="test",
        controller=world.controller._incarnation,
        curve=False,
        location="here",
        stock={},
    )
    world.files.write()
    credentials.save_secrets(world.controller._secrets_file, world.controller._secrets)
    return world


def keys(world):
    return tuple(getattr(world.controller._secrets, name) for name in ALL_KEYS)


def keys_in_files(world):
    return tuple(
        connection.decode(path.read_bytes(), str(path)).clusterd.key
        for path in (world.files.client_path, world.files.engine_path)
    )


def rotate(world, grace=GRACE, operator=None):
    return world.ask(operator or world.operator(), m.RotateKeys(7, grace))


def again(peer, key=None, **fields):
    """The same peer on another connection; it has read its file, or has this key."""
    back = Peer(peer.world, peer.role, peer.channel, peer.uuid, key)
    back.token = peer.token
    back.answer = back.attach(back.attach_message(**fields))
    return back


def refused(world, role, channel, key):
    peer = Peer(world, role, channel, key=key)
    with pytest.raises(Refused) as caught:
        peer.greet()
    assert not peer.is_open
    return caught.value


def test_all_files_have_new_keys_and_are_private(world):
    before = keys(world)
    answer = rotate(world).value
    assert set(keys(world)).isdisjoint(before)
    kept = credentials.load_secrets(world.controller._secrets_file)
    assert (kept.client_key, kept.engine_key, kept.stock_key) == keys(world)
    (retired,) = kept.retired
    assert (retired.client_key, retired.engine_key, retired.stock_key) == before
    assert keys_in_files(world) == keys(world)[:2]
    assert answer["files"] == [str(world.files.engine_path), str(world.files.client_path)]
    for path in (world.controller._secrets_file, *answer["files"]):
        assert os.stat(path).st_mode & 0o777 == 0o600  # noqa: PTH116 - of two types
    # What must not change: tokens prove who is who, and the CURVE key is in every copy of the files.
    assert kept.token_secret == world.controller._secrets.token_secret


@pytest.mark.parametrize("role", ["client", "engine", "agent"])
def test_in_the_grace_both_keys_open_and_afterwards_only_the_new_one(world, role):
    channel = "control" if role == "agent" else "data"
    old = Peer(world, role, channel).key
    rotate(world)
    new = Peer(world, role, channel).key
    for key in (old, new):
        assert isinstance(Peer(world, role, channel, key=key).attach(), m.Attached)
    world.pass_time(GRACE + 1)
    error = refused(world, role, channel, old)
    assert error.code == "key_changed"
    changed_at = time.localtime(world.controller._secrets.retired[0].changed_at)
    assert error.message == (
        f"the key of this cluster was changed at {time.strftime('%Y-%m-%d %H:%M:%S %z', changed_at)}; "
        "read the connection file again"
    )
    assert world.counters[Peer(world, role, channel).endpoint]["old_key"] == 1
    assert isinstance(Peer(world, role, channel, key=new).attach(), m.Attached)


def test_who_asks_has_the_answer_before_it_is_told_to_attach_again(world):
    operator = world.operator()
    answer = rotate(world, operator=operator)
    assert isinstance(answer, m.Reply)
    assert answer.value["using_old"]["clients"] == [world.hub.clients[operator.uuid].name]
    assert operator.is_open
    world.turn(rotation.ANSWER_SECONDS)
    operator.read()
    assert operator.is_reset
    assert operator.reason == "the key of this cluster was changed"
    assert not operator.is_open


def test_running_work_is_not_lost_and_nobody_is_somebody_else(world):
    client, control = world.client(), world.client("control")
    engine, agent = world.engine(), world.agent()
    done, running = submit(), submit()
    client.say(done, running)
    world.turn()
    dispatches = engine.messages(m.Dispatch)
    engine.say(result_of(dispatches[0]))
    world.turn()
    rotate(world)
    world.turn(rotation.ANSWER_SECONDS)
    for peer in (client, control, engine, agent):
        peer.read()
        assert peer.is_reset
    # What was said before is read; the rest comes on the next connection.
    delivered = client.messages(m.Deliver)
    engine_back, client_back = again(engine), again(client)
    again(agent)
    again(control)
    assert engine_back.answer.id == engine.wire_id
    assert engine_back.answer.is_resumed
    assert client_back.answer.is_resumed
    for dispatch in [*dispatches[1:], *engine_back.messages(m.Dispatch)]:
        engine_back.say(result_of(dispatch))
    world.turn()
    delivered += client_back.messages(m.Deliver)
    # The first was not acknowledged: a client drops what it does not wait for.
    assert {message.task for message in delivered} == {done.task, running.task}
    assert world.tasks.payloads == {}
    assert world.status()["keys"]["using_old"]["engines"] == []


def test_durable_work_is_told_once_it_is_committed(isolated):
    root = isolated.root / "profile"
    root.mkdir(mode=0o700)
    cluster = Cluster(root)
    world = with_files(cluster.world)
    client, engine = world.client(), world.engine()
    task = submit()
    client.say(task)
    (dispatch,) = heard(world, engine, m.Dispatch)
    rotate(world)
    world.turn(rotation.ANSWER_SECONDS)
    engine, client = again(engine, held=[(dispatch.task, dispatch.attempt)]), again(client)
    assert engine.messages(m.Dispatch) == []
    engine.say(result_of(dispatch))
    assert [message.task for message in heard(world, client, m.Deliver)] == [task.task]
    world.kill()


def heard(world, peer, kind):
    """What a peer is told once it is committed."""
    world.turn()
    world.commit()
    return peer.messages(kind)


def test_who_comes_back_with_a_stale_copy_stays_until_the_end_and_is_named(world):
    engine = world.engine()
    old = engine.key
    rotate(world)
    world.turn(rotation.ANSWER_SECONDS)
    stale = again(engine, old)
    world.pass_time(GRACE / 2)
    stale.read()
    assert not stale.is_reset
    about = world.status()["keys"]
    assert about["using_old"] == {"clients": [], "engines": ["engines/0"], "agents": []}
    assert about["left"] == pytest.approx(GRACE / 2, abs=1)
    world.pass_time(GRACE / 2 + 1)
    stale.read()
    assert stale.is_reset
    assert "read the connection file again" in stale.reason
    refused(world, "engine", "data", old)
    about = world.status()["keys"]
    assert (about["until"], about["left"], about["using_old"]) == (None, None, {})
    assert about["changed_at"] == world.controller._secrets.retired[0].changed_at
    # Whoever renews the copy is the same engine.
    assert again(engine).answer.id == engine.wire_id


def test_over_tcp_too_a_silent_peer_is_told(make_world, isolated):
    (isolated.root / "profile").mkdir(mode=0o700)
    world = with_files(make_world(reuse=True, is_unix=False))
    engine = world.engine()
    rotate(world, 0.0)
    world.turn(rotation.ANSWER_SECONDS)
    engine.read()
    assert engine.is_reset


def test_without_grace_the_old_key_is_refused_at_once(world):
    client = world.client()
    rotate(world, 0.0)
    world.turn(rotation.ANSWER_SECONDS)
    client.read()
    assert client.is_reset
    assert refused(world, "client", "data", client.key).code == "key_changed"
    assert again(client).answer.is_resumed


def test_a_change_within_the_grace_of_another_is_refused_unless_it_has_none(world):
    first = Peer(world, "client", "data").key
    rotate(world)
    second = Peer(world, "client", "data").key
    world.pass_time(1)
    answer = rotate(world)
    assert isinstance(answer, m.ErrorReply)
    assert answer.code == "refused"
    assert "accepted for another" in answer.message
    assert "--now" in answer.hint
    assert Peer(world, "client", "data").key == second
    assert isinstance(rotate(world, 0.0), m.Reply)
    world.turn(rotation.ANSWER_SECONDS)
    for key in (first, second):
        assert refused(world, "client", "data", key).code == "key_changed"
    assert isinstance(Peer(world, "client", "data").attach(), m.Attached)


def test_many_peers_are_told_a_few_at_a_time(world, monkeypatch):
    monkeypatch.setattr(rotation, "AT_ONCE", 1)
    engines = [world.engine() for _ in range(3)]
    rotate(world, operator=(operator := world.operator()))
    world.turn(rotation.ANSWER_SECONDS)
    for _ in range(3):
        world.turn()
    for peer in (*engines, operator):
        peer.read()
        assert peer.is_reset
    assert world.controller.rotation.next_deadline() > world.now + GRACE / 2


def test_status_says_who_was_told_and_is_not_back(world):
    client, control, engine = world.client(), world.client("control"), world.engine()
    operator = world.operator()
    assert rotate(world, operator=operator).value["away"] == 4
    world.turn(rotation.ANSWER_SECONDS)
    for left, peer in enumerate((engine, client, control, operator)):
        assert world.status()["keys"]["away"] == 4 - left
        again(peer)
    assert world.status()["keys"]["away"] == 0


def test_only_operators_may(world):
    answer = world.ask(world.client("control"), m.RotateKeys(1))
    assert (answer.code, "operators" in answer.message) == ("denied", True)
    assert world.controller._secrets.retired == []


def test_the_keys_before_the_last_eight_are_nobody_s(world):
    first = Peer(world, "client", "data").key
    for _ in range(9):
        rotate(world, 0.0)
        world.turn(rotation.ANSWER_SECONDS)
    secrets = world.controller._secrets
    assert len(secrets.retired) == 8
    assert first.hex() not in {retired.client_key for retired in secrets.retired}


# --- the controller after it ---


def successor(world, make_world):
    world.store.close()
    return with_files(make_world(reuse=True, has_predecessor=True))


def test_a_successor_accepts_both_until_the_same_moment(world, make_world):
    old, engine = Peer(world, "client", "data").key, world.engine()
    rotate(world)
    after = successor(world, make_world)
    assert keys(after) == keys(world)
    assert isinstance(Peer(after, "client", "data", key=old).attach(), m.Attached)
    assert isinstance(Peer(after, "client", "data").attach(), m.Attached)
    back = Peer(after, "engine", "data", engine.uuid)
    back.token = engine.token
    assert isinstance(back.attach(back.attach_message(wanted_id=engine.wire_id)), m.Attached)
    assert after.status()["keys"]["left"] == pytest.approx(GRACE, abs=5)
    after.pass_time(GRACE + 1)
    assert refused(after, "client", "data", old).code == "key_changed"


def test_a_successor_after_the_grace_still_knows_what_has_happened(world, make_world, monkeypatch):
    old = Peer(world, "client", "data").key
    rotate(world)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + GRACE + 1)
    after = successor(world, make_world)
    assert after.status()["keys"]["left"] is None
    assert refused(after, "client", "data", old).code == "key_changed"


def test_a_clock_that_is_set_back_does_not_lengthen_the_grace(world, make_world, monkeypatch):
    old = Peer(world, "client", "data").key
    rotate(world)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 10 * GRACE)
    after = successor(world, make_world)
    assert refused(after, "client", "data", old).code == "key_changed"


# --- files that cannot be written ---


@pytest.mark.parametrize("at", ["secrets", "engine", "client"])
def test_where_a_file_cannot_be_written_nothing_has_changed(world, monkeypatch, at):
    client, before = world.client(), keys(world)
    paths = [world.controller._secrets_file, world.files.engine_path, world.files.client_path]
    contents = [path.read_bytes() for path in paths]
    broken = dict(zip(["secrets", "engine", "client"], paths, strict=True))[at]
    write = credentials.files.atomic_write
    is_full = [True]

    def full(path, data, **options):
        if path == broken and is_full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, data, **options)

    monkeypatch.setattr(credentials.files, "atomic_write", full)
    answer = rotate(world)
    assert isinstance(answer, m.ErrorReply)
    assert answer.code == "refused"
    assert str(broken) in answer.message
    assert "No space left" in answer.message
    assert keys(world) == before
    assert [path.read_bytes() for path in paths] == contents
    world.pass_time(1)
    assert client.is_open
    assert world.status()["keys"]["changed_at"] is None
    is_full[0] = False
    assert isinstance(rotate(world), m.Reply)


# --- who has stolen the old key ---


def test_a_thief_hears_no_new_key(world):
    thief = Peer(world, "client", "control")
    thief.attach()
    told = []
    for server in world.servers.values():
        send = server.send
        server.send = lambda peer, parts, send=send: (told.extend(map(bytes, parts)), send(peer, parts))
    rotate(world)
    thief.say(m.ControllerStatus(1), m.ListEngines(2))
    world.turn()
    again(thief, thief.key).say(m.ControllerStatus(3))
    world.pass_time(GRACE + 1)
    refused(world, "client", "control", thief.key)
    everything = b"".join(told)
    assert b"changed_at" in everything
    for key in keys(world):
        assert key.encode() not in everything
        assert bytes.fromhex(key) not in everything


def test_a_thief_s_words_count_for_nothing_on_a_connection_with_the_new_key(world):
    rotate(world)
    old = bytes.fromhex(world.controller._secrets.retired[0].client_key)
    peer = Peer(world, "client", "data")
    peer.greet()
    hello, challenge = peer.handshake._hello, peer.handshake.welcome.challenge
    # All that travels is known to the thief; the key is not.
    up, down = handshake.session_keys(old, hello, challenge)
    forged = handshake.Session(up, down, peer.session._decoder, peer.session.limits, has_digests=False)
    peer.send_raw(forged.seal([peer.attach_message()]))
    world.turn()
    assert world.hub.clients.keys() & {peer.uuid} == set()
    assert world.counters["client-data"]["bad_mac"] == 1
    peer.say(peer.attach_message())
    world.turn()
    assert peer.messages(m.Attached)
    assert peer.handshake.reset_of(handshake.reset(old, peer.session.last_mac), peer.session) is None


def test_a_thief_cannot_have_a_session_of_its_own_after_the_grace(world):
    thief = world.client()
    rotate(world, 0.0)
    world.turn(rotation.ANSWER_SECONDS)
    # The connection is forgotten: what is said on it goes nowhere, token or not.
    thief.server.open.add(thief.id)
    thief.say(submit())
    world.turn()
    assert world.tasks.payloads == {}
    assert refused(world, "client", "data", thief.key).code == "key_changed"

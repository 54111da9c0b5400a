"""`clusterctl rotate-key` on a real cluster with work under way: nobody is lost, and who has the old file is told so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ipyparallel
import pytest
import zmq

import clusterd
from clusterd.errors import KeyChanged
from tests.processes.cluster import PROFILE, Cluster
from tests.waiting import until

WITH_COPY = "publish: ipython\n" + PROFILE.replace("controller: {", "controller: {stock: 'on', ")


def _make_held():
    # Nested, so that it travels by value: engines cannot import the tests.
    def held(gate, value):
        import os  # noqa: PLC0415 - on the engine
        import time  # noqa: PLC0415

        while not os.path.exists(gate):  # noqa: PTH110
            time.sleep(0.005)
        return value, os.getpid()

    return held


@pytest.fixture
def cluster(isolated):
    with Cluster(isolated, WITH_COPY) as cluster:
        cluster.serve()
        cluster.converged()
        yield cluster


def test_without_grace_the_curve_pair_is_another_and_nobody_listens_with_the_old_one(isolated):
    profile = PROFILE.replace("controller: {", "controller: {stock: curve, ")
    with Cluster(isolated, profile) as cluster:
        cluster.serve()
        cluster.converged()
        file = cluster.state / "security/ipcontroller-client.json"
        old = json.loads(file.read_bytes())
        context = zmq.Context()
        thief = context.socket(zmq.SUB)
        thief.curve_publickey, thief.curve_secretkey = zmq.curve_keypair()
        thief.curve_serverkey = old["curve_serverkey"].encode()
        thief.subscribe(b"")
        thief.connect(f"{old['interface']}:{old['iopub']}")
        try:
            client = ipyparallel.Client(str(file), timeout=20, context=context)
            until(lambda: _shown(client) and thief.poll(0), "output is heard")
            assert cluster.json("rotate-key", "--now")["using_old"] == {}
            until(lambda: client._closed, "the client was told of the end")
            new = json.loads(file.read_bytes())
            # Who listened is cut off a moment later.
            assert new["curve_serverkey"] != old["curve_serverkey"]
            assert (new["iopub"], new["registration"]) == (old["iopub"], old["registration"])
            client = ipyparallel.Client(str(file), timeout=20, context=context)
            while thief.poll(0):
                thief.recv_multipart()
            until(lambda: _shown(client), "output is heard")
            assert not thief.poll(0)
            client.close()
            with clusterd.Client(file, timeout=20) as native:
                assert native.ids == [0, 1]
        finally:
            thief.close(0)
            context.destroy(linger=0)


def _shown(client):
    """Whether a client hears what it prints: it cannot know when its subscription has arrived."""
    shown = client[:].execute("print('shown')")
    shown.get(20)
    return shown.stdout == ["shown\n", "shown\n"]


@pytest.fixture
def stock(cluster):
    context = zmq.Context()
    client = ipyparallel.Client(str(cluster.state / "security/ipcontroller-client.json"), timeout=20, context=context)
    yield client
    client.close()
    context.destroy(linger=0)


def test_nothing_is_lost_and_the_old_file_is_refused(cluster, stock, isolated):
    file = cluster.state / "security/ipcontroller-client.json"
    copy, gate = isolated.root / "copy.json", isolated.root / "gate"
    shutil.copy2(file, copy)
    before = cluster.engines()
    with clusterd.Client(cluster.name, timeout=20) as client:
        held = _make_held()
        futures = client[:].apply_async(held, str(gate), 1), client.load_balanced_view().apply_async(held, str(gate), 2)
        asked = stock.load_balanced_view().apply_async(held, str(gate), 3)
        until(lambda: client.queue_status()["unassigned"] + len(client.ids) >= 2, "they run")

        answer = cluster.json("rotate-key", "--grace", "5min")
        assert {kind: len(names) for kind, names in answer["using_old"].items()} == {
            "clients": 0,
            "engines": 0,
            "agents": 0,
            "stock_engines": 0,
            "stock_clients": 1,
        }
        published = json.loads(Path(answer["ipython_file"]).read_bytes())
        assert published == json.loads(file.read_bytes())
        text = cluster.ctl("status").stdout
        assert "the old ones are accepted until" in text
        assert "1 stock client (" in text
        # A copy of the old file is as good, and an unchanged client is answered with the key that it has.
        with clusterd.Client(copy, timeout=20) as late:
            assert late.ids == client.ids
        assert stock.queue_status(verbose=True)
        refused = cluster.ctl("rotate-key", status=5).stderr
        assert "accepted for another" in refused
        assert "--now" in refused

        gate.touch()
        assert [value for value, _ in futures[0].result(20)] == [1, 1]
        assert futures[1].result(20)[0] == 2
        assert asked.get(20)[0] == 3

        assert cluster.ctl("rotate-key", "--now").stdout.endswith("the old ones are refused\n")
        with pytest.raises(
            KeyChanged, match=r"the key of this cluster was changed at .*; read the connection file again"
        ):
            clusterd.Client(copy, timeout=20)
        until(lambda: stock._closed, "the unchanged client was told of the end")
        assert sorted(client[:].apply_sync(held, str(gate), 4)) == sorted((4, pid) for _, pid in before.values())
    assert cluster.engines() == before
    told = [event["event"] for event in cluster.client.stream(f"{cluster.path}/events")]
    assert told.count("keys_changed") == 2
    # Whoever reads the file now has the key; an unchanged client, too.
    with clusterd.Client(file, timeout=20) as client:
        assert client.ids == sorted(number for number, _ in before.values())
    again = ipyparallel.Client(str(file), timeout=20, context=(context := zmq.Context()))
    assert again.ids == [0, 1]
    again.close()
    context.destroy(linger=0)

    # While nothing runs the keys are changed in the files.
    cluster.ctl("stop")
    assert "no controller runs" in cluster.ctl("rotate-key").stdout
    shutil.copy2(file, copy)
    key = json.loads(file.read_bytes())["clusterd"]["key"]
    cluster.ctl("start")
    assert json.loads(file.read_bytes())["clusterd"]["key"] == key
    with clusterd.Client(copy, timeout=20) as client:
        assert len(client.wait_for_engines(2, timeout=20)) == 2

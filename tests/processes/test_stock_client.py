"""An unchanged ipyparallel.Client on a cluster that a daemon keeps: work, output, control, deaths, and the end."""

from __future__ import annotations

import os
import signal
import time

import ipyparallel
import pytest
import zmq

from tests.processes.cluster import PROFILE, Cluster, kill

STOCK = PROFILE.replace("controller: {", "controller: {stock: 'on', ")


@pytest.fixture
def cluster(isolated):
    with Cluster(isolated, STOCK) as cluster:
        cluster.serve()
        cluster.converged()
        yield cluster


@pytest.fixture
def client(cluster):
    # Of its own: the one that is made by default lives as long as the process.
    context = zmq.Context()
    file = cluster.state / "security" / "ipcontroller-client.json"
    client = ipyparallel.Client(str(file), timeout=20, context=context)
    yield client
    client.close()
    context.destroy(linger=0)


def test_it_computes_prints_and_is_answered_while_user_code_runs(cluster, client):
    assert client.ids == [0, 1]
    view = client[:]
    engines = {pid for _, pid in cluster.engines().values()}
    assert set(view.apply_sync(os.getpid)) == engines
    assert client.load_balanced_view().map_sync(abs, range(-20, 0)) == list(range(20, 0, -1))
    shown = view.execute("print(6 * 7)", block=True)
    assert shown.stdout == ["42\n", "42\n"]
    # Ten seconds inside one call that keeps the interpreter's lock: control is answered beside it, and a signal ends it.
    stuck = view.apply_async(_hold_the_lock)
    assert _until(lambda: all(load["queue"] for name, load in client.queue_status().items() if name != "unassigned"))
    began = time.monotonic()
    view.abort(block=True)
    assert time.monotonic() - began < 5
    with pytest.raises(ipyparallel.TimeoutError):
        stuck.get(0.1)
    client.send_signal(signal.SIGKILL, block=True)
    with pytest.raises(ipyparallel.error.CompositeError, match="EngineError"):
        stuck.get(20)


def test_an_engine_that_dies_is_told_and_replaced(client, capsys):
    pid = client[0].apply_sync(os.getpid)
    pending = client[0].apply_async(time.sleep, 600)
    balanced = client.load_balanced_view(targets=[0]).apply_async(time.sleep, 600)
    kill(pid)
    with pytest.raises(ipyparallel.RemoteError, match="EngineError"):
        pending.get(20)
    # It waited behind the other, for an engine that will not come back.
    with pytest.raises(ipyparallel.RemoteError, match="ImpossibleDependency"):
        balanced.get(20)
    assert _until(lambda: client.ids == [1, 2])
    assert client[2].apply_sync(os.getpid) != pid
    # What a client prints of replies that it does not wait for.
    assert "result" not in capsys.readouterr().out


def test_who_shuts_the_hub_down_stops_the_cluster(cluster, client):
    client.shutdown(hub=True, block=True)
    assert _until(lambda: cluster.json("status")["state"] == "stopped")
    assert cluster.running() == []


def _hold_the_lock():
    import re  # noqa: PLC0415 - it runs on an engine

    return re.match(r"(a+)+$", "a" * 40 + "b")


def _until(condition, limit=30.0):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True

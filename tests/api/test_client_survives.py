"""The client when parts of a real cluster are killed: its work is done, once, or it is told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

import clusterd
from clusterd.errors import ControllerLost, EngineLost, UnknownTask
from tests.processes.cluster import kill
from tests.waiting import until


def slowly(path, number):
    time.sleep(0.02)
    with Path(path).open("a") as file:
        file.write(f"{number}\n")
    return number


def test_kill_9_of_the_controller_loses_no_task(client, cluster, isolated):
    log = isolated.home / "log"
    futures = [client.load_balanced_view().apply_async(slowly, str(log), number) for number in range(100)]
    until(lambda: sum(future.done() for future in futures) > 10, "some results")
    kill(cluster.pids()["controller"])
    assert [future.result(60) for future in futures] == list(range(100))
    # The next controller is asked as if nothing had happened; the engines are the same.
    assert client.load_balanced_view().map_sync(abs, range(1000)) == list(range(1000))
    assert sorted(map(int, log.read_text().split())) == list(range(100))


def test_kill_9_of_the_controller_loses_no_part_of_a_broadcast(client, cluster, isolated):
    log = isolated.home / "log"
    view = client[:]
    futures = [view.apply_async(slowly, str(log), number) for number in range(30)]
    # A payload that is sent once, and again to the next controller.
    pushes = [view.push({f"data{number}": bytes(100_000)}) for number in range(5)]
    until(futures[3].done, "some results")
    kill(cluster.pids()["controller"])
    assert [future.result(60) for future in futures] == [[number] * 2 for number in range(30)]
    assert [future.result(60) for future in pushes] == [[None, None]] * 5
    assert view.apply_sync(lambda: len(data4)) == [100_000] * 2  # noqa: F821 - a name of the engines
    assert sorted(map(int, log.read_text().split())) == sorted([*range(30)] * 2)


def test_what_only_the_controller_knew_ends_with_it(client, cluster, isolated):
    gate, view = isolated.home / "gate", client.load_balanced_view()

    def wait(path):
        while not Path(path).exists():
            time.sleep(0.005)

    gate.touch()
    done = view.apply_async(wait, str(gate))
    done.result(30)
    gate.unlink()
    again = client.resubmit(done)
    mine = view.apply_async(wait, str(gate))
    until(lambda: sum(e["running"] for e in client.queue_status()["engines"].values()) == 2, "both run")
    kill(cluster.pids()["controller"])
    with pytest.raises(ControllerLost, match="ran this task once more was lost"):
        again.result(60)
    gate.touch()
    mine.result(60)
    with pytest.raises(UnknownTask):
        client.resubmit(done)
    assert client.history() == [mine.task_id]


def test_kill_9_of_daemon_and_agent_is_not_noticed(client, cluster, isolated):
    pids = client[:].apply_sync(os.getpid)
    agents, control = cluster.pids()["agents"], cluster.client
    assert control.is_listening()
    futures = [
        client.load_balanced_view().apply_async(slowly, str(isolated.home / "log"), number) for number in range(50)
    ]
    kill(control.pid)
    kill(agents[0])
    assert [future.result(60) for future in futures] == list(range(50))
    assert client[:].apply_sync(os.getpid) == pids


def test_a_frozen_controller_is_given_up_after_the_time_that_was_asked_for(cluster):
    pid = cluster.pids()["controller"]
    with clusterd.Client(cluster.name, controller_timeout=4.0) as client:
        client.wait_for_engines(2)
        assert client.load_balanced_view().apply_sync(abs, -1) == 1
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(ControllerLost, match="has not answered"):
                client.load_balanced_view().apply_async(abs, -1).result(60)
            assert time.monotonic() - began < 20
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: client._connection.tasks.refusal is None, "the connection")
        assert client.load_balanced_view().apply_sync(abs, -2) == 2


def test_a_stopped_cluster_ends_its_clients_waits(client, cluster):
    future = client[0].apply_async(time.sleep, 60)
    client._connection.loop._patience.limit = 2.0
    cluster.ctl("stop", "--kill-after", "1")
    error = future.exception(30)
    assert error is not None
    with pytest.raises(clusterd.errors.ClusterdError):
        clusterd.Client(cluster.name, timeout=2)


def test_a_view_of_before_a_new_start_is_not_a_view_of_who_has_its_number_now(cluster):
    with clusterd.Client(cluster.name, controller_timeout=60) as client:
        client.wait_for_engines(2, timeout=30)
        view = client[0]
        view["x"] = 1
        cluster.ctl("stop")
        cluster.ctl("start", "-n", "2")
        cluster.converged()
        uuids = {engine.id: engine.uuid for engine in engines_seen_by_another(cluster)}
        until(
            lambda: {engine.id: engine.uuid for engine in client.engines} == uuids, "the client to know the new engines"
        )
        assert client.ids == [0, 1]
        with pytest.raises(EngineLost, match="stopped and started again"):
            view.apply_sync(int)
        assert client[0].apply_sync(int) == 0


def engines_seen_by_another(cluster):
    with clusterd.Client(cluster.name) as other:
        other.wait_for_engines(2, timeout=30)
        return other.engines

"""The daemon with real controllers, agents and engines: who survives whom, and what is left at the end."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import stat

import pytest

from tests.processes.cluster import PROFILE, Cluster, kill


@pytest.fixture
def cluster(isolated):
    with Cluster(isolated) as cluster:
        yield cluster


def test_start_and_stop_leave_nothing_but_the_state(cluster):
    started = cluster.ctl("start", "-n", "3")
    assert "no daemon served test: started one" in started.stdout
    assert "engines     3 of 3" in started.stdout
    assert cluster.running() == ["agent", "controller", "engine/0", "engine/1", "engine/2"]
    for directory in (cluster.runtime, cluster.state, cluster.runtime / "units", cluster.state / "log"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    pids = [
        cluster.client.get(cluster.path)["daemon"]["pid"],
        *cluster.pids()["agents"],
        *(p for _, p in cluster.engines().values()),
    ]
    stopped = cluster.ctl("stop")
    assert stopped.stdout == "test: stopped; its daemon has ended\n"
    assert not cluster.runtime.exists()
    assert [pid for pid in pids if _lives(pid)] == []
    assert sorted(path.name for path in cluster.state.iterdir()) == ["journal", "log", "security"]


def test_the_wish_survives_stop_and_start(cluster):
    cluster.ctl("start", "-n", "1")
    cluster.ctl("stop")
    assert cluster.json("start")["engine_sets"]["engines"]["desired"] == 2  # the profile's own number again


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_the_daemon_dies_and_nobody_notices(cluster, number):
    daemon = cluster.serve()
    cluster.converged()
    before = cluster.engines(), cluster.pids()
    daemon.send_signal(number)
    assert daemon.wait(10) == (-9 if number == signal.SIGKILL else 0)
    assert cluster.running() == ["agent", "controller", "engine/0", "engine/1"]
    cluster.serve()
    status = cluster.converged()
    assert (cluster.engines(), cluster.pids()) == before
    assert status["engine_sets"]["engines"]["observed"] == 2
    told = [event["event"] for event in cluster.client.stream(f"{cluster.path}/events")]
    # Of the second daemon: the story begins with what the first one did.
    told = told[len(told) - told[::-1].index("daemon_started") :]
    assert told.count("launch_adopted") == 2
    assert "launch_started" not in told
    if number == signal.SIGTERM:
        assert "2 launches run on" in daemon.stderr.read()


def test_the_controller_dies_and_engines_stay(cluster):
    cluster.serve()
    cluster.converged()
    engines, before = cluster.engines(), cluster.pids()
    kill(before["controller"])
    cluster.until(lambda s: s["controller"]["pid"] not in (None, before["controller"]))
    cluster.converged()
    after = cluster.pids()
    assert after["agents"] == before["agents"]
    assert {slot: pid for slot, (_, pid) in cluster.engines().items()} == {
        slot: pid for slot, (_, pid) in engines.items()
    }


def test_an_agent_dies_and_its_engines_are_adopted(cluster):
    cluster.serve()
    cluster.converged()
    engines, before = cluster.engines(), cluster.pids()
    kill(before["agents"][0])
    cluster.until(
        lambda s: [e["pid"] for e in s["engine_sets"]["engines"]["launches"]] not in ([], [None], before["agents"])
    )
    cluster.converged()
    assert cluster.engines() == engines
    assert cluster.pids()["controller"] == before["controller"]


def test_an_engine_dies_and_is_replaced(cluster):
    cluster.serve()
    cluster.converged()
    before = cluster.engines()
    kill(before[0][1])
    # The daemon may not have heard of it yet: the id of a new incarnation is what tells.
    cluster.until(lambda _: cluster.engines()[0][0] not in (None, before[0][0]))
    after = cluster.engines()
    assert after[1] == before[1]
    assert after[0][1] != before[0][1]


def test_everything_but_the_engines_dies(cluster):
    daemon = cluster.serve()
    cluster.converged()
    engines, before = cluster.engines(), cluster.pids()
    daemon.kill()
    daemon.wait()
    kill(before["controller"])
    kill(before["agents"][0])
    assert cluster.running() == ["engine/0", "engine/1"]
    cluster.serve()
    cluster.converged()
    assert {pid for _, pid in cluster.engines().values()} == {pid for _, pid in engines.values()}


def test_engines_without_an_agent_are_ended_by_stop(cluster):
    daemon = cluster.serve()
    cluster.converged()
    before = cluster.pids()
    daemon.kill()
    daemon.wait()
    kill(before["controller"])
    kill(before["agents"][0])
    # The agent's interpreter is gone, so no successor will come for the engines.
    cluster.file.write_text(PROFILE.replace("work_dir: /tmp", "work_dir: /tmp\n    python: /nonexistent/python"))
    cluster.serve("--ends-on-stop")
    cluster.ctl("stop")
    assert not cluster.runtime.exists()


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(cluster):
    first = cluster.serve()
    second = cluster.serve(is_ready=False)
    assert second.wait(10) == 3
    assert f"served already, by process {first.pid}" in second.stderr.read()
    assert first.poll() is None
    assert cluster.client.get("/v1/version")["pid"] == first.pid


def test_a_stale_socket_and_lock_are_taken_over(cluster):
    first = cluster.serve()
    cluster.converged()
    first.kill()
    first.wait()
    assert (cluster.runtime / "control.sock").exists()
    second = cluster.serve()
    assert cluster.client.get("/v1/version")["pid"] == second.pid


def test_a_stopped_service_daemon_stays_and_says_so(cluster):
    daemon = cluster.serve()
    cluster.converged()
    assert cluster.ctl("stop").stdout == "test: stopped\n"
    assert daemon.poll() is None
    assert cluster.json("status")["state"] == "stopped"
    # The wish to run nothing outlives the daemon.
    daemon.terminate()
    daemon.wait(10)
    cluster.serve()
    assert cluster.json("status")["state"] == "stopped"
    assert cluster.running() == []
    assert cluster.json("start")["state"] == "running"


def test_reload_refuses_a_wrong_profile_and_keeps_the_old_one(cluster):
    cluster.serve()
    cluster.converged()
    good = cluster.file.read_text()
    cluster.file.write_text(good.replace("n: 2", "nn: 3"))
    refused = cluster.ctl("reload", status=7)
    assert "test.yaml:6:5" in refused.stderr
    assert "nn" in refused.stderr
    status = cluster.converged()
    assert status["engine_sets"]["engines"]["desired"] == 2
    assert any("cannot be used" in warning for warning in status["warnings"])
    cluster.file.write_text(good.replace("n: 2", "n: 3"))
    assert "engine_sets.engines.n: in effect now" in cluster.ctl("reload").stdout
    status = cluster.converged()
    assert status["engine_sets"]["engines"]["observed"] == 3
    assert status["warnings"] == []


def test_sighup_reloads(cluster):
    daemon = cluster.serve()
    cluster.converged()
    cluster.file.write_text(cluster.file.read_text().replace("n: 2", "n: 1"))
    daemon.send_signal(signal.SIGHUP)
    assert cluster.until(lambda s: s["engine_sets"]["engines"]["desired"] == 1)
    cluster.converged()


def test_a_profile_that_cannot_be_used_starts_nothing(cluster):
    cluster.file.write_text("version: 1\nengine_sets:\n  engines: {launcher: local, n: -1}\n")
    refused = cluster.ctl("start", status=7)
    assert "test.yaml:3" in refused.stderr
    assert not cluster.runtime.exists()


def test_an_interpreter_that_does_not_exist_is_told_by_name(cluster):
    cluster.file.write_text(PROFILE.replace("work_dir: /tmp", "work_dir: /tmp\n    python: /nonexistent/python"))
    failed = cluster.ctl("start", "--timeout", "20", status=6)
    assert "/nonexistent/python does not exist" in failed.stderr
    assert cluster.json("status")["is_stuck"]


def test_systemd_is_told(cluster, isolated):
    path = isolated.temporary / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(10)
        told = iter(lambda: manager.recv(4096).partition(b"\n")[0], None)
        daemon = cluster.serve(NOTIFY_SOCKET=str(path))
        assert next(told) == b"READY=1"
        assert "NOTIFY_SOCKET" not in _environment(cluster.pids()["controller"])
        assert b"STATUS=2/2 engines, 0 tasks queued" in told
        daemon.send_signal(signal.SIGHUP)
        assert [next(told) for _ in range(2)] == [b"RELOADING=1", b"READY=1"]
        daemon.terminate()
        assert next(told) == b"STOPPING=1"
        assert daemon.wait(10) == 0
    path.unlink()


def test_the_watchdog_is_patted(cluster, isolated):
    path = isolated.temporary / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(10)
        told = iter(lambda: manager.recv(4096), None)
        cluster.serve(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="200000")
        assert b"WATCHDOG=1" in told
        assert b"WATCHDOG=1" in told
    path.unlink()


def test_each_line_of_the_log_is_an_object_with_json(cluster):
    daemon = cluster.serve("--log-format", "json")
    cluster.converged()
    daemon.terminate()
    lines = [json.loads(line) for line in daemon.communicate(timeout=10)[1].splitlines()]
    assert lines[0]["message"].startswith("serves test from")
    assert {"time", "level", "logger", "message"} <= lines[0].keys()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_state_directory_of_somebody_else_is_refused(cluster):
    cluster.state.mkdir(parents=True)
    os.chown(cluster.state, 65534, 65534)
    daemon = cluster.serve(is_ready=False)
    assert daemon.wait(10) == 1
    assert "belongs to uid 65534, not to us" in daemon.stderr.read()
    assert not cluster.runtime.exists()


def test_what_cannot_be_recorded_is_refused_and_changes_nothing(cluster):
    daemon = cluster.serve()
    cluster.converged()
    [journal] = (cluster.state / "journal").glob("journal-*.log")
    # Full, as far as this process is concerned: write(2) fails with EFBIG.
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (journal.stat().st_size, resource.RLIM_INFINITY))
    refused = cluster.ctl("scale", "engines", "4", status=1)
    assert "could not be recorded" in refused.stderr
    assert cluster.json("status")["engine_sets"]["engines"]["desired"] == 2
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert cluster.json("scale", "engines", "4")["engine_sets"]["engines"]["observed"] == 4


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _environment(pid):
    with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
        return dict(word.decode().split("=", 1) for word in file.read().split(b"\0") if b"=" in word) or os.environ


def test_over_tcp_the_daemon_hears_the_controller_as_well(isolated):
    # ZeroMQ's descriptor is edge-triggered: what is not taken at once would never be told again.
    with Cluster(
        isolated, PROFILE.replace("launcher: local, start", "launcher: local, transport: tcp, start")
    ) as cluster:
        cluster.serve()
        cluster.converged()
        assert cluster.client.get(f"{cluster.path}/connection")["url"].startswith("tcp://127.0.0.1:")
        for count in (6, 1, 4):
            assert cluster.json("scale", "engines", str(count))["engine_sets"]["engines"]["observed"] == count
        before = cluster.pids()
        kill(before["controller"])
        cluster.until(lambda s: s["controller"]["pid"] not in (None, before["controller"]))
        cluster.converged()
        assert len(cluster.engines()) == 4

"""ipyparallel's own `Cluster` and `ipcluster` with our launchers: start, connect, signal, restart, find again, stop.

Each test is a program of its own, as a user would write it: what it starts must be gone when the test ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ipyparallel")

PATIENCE = 100
BEGIN = """
import json, os, signal, sys, time
import ipyparallel as ipp

def cluster(**options):
    return ipp.Cluster(**{"controller": "clusterd", "engines": "clusterd", "n": 2, "delay": 0, **options})

def connected(cluster, n=2):
    client = cluster.connect_client_sync()
    client.wait_for_engines(n, timeout=60)
    return client

def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)

said = {}
"""
END = "\nprint(json.dumps(said))\n"


def run(program, directory, **environment):
    """Run a program and return what it noted in `said`."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program + END],
        cwd=directory,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def pids_alive(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_cluster_from_start_to_end(isolated):
    said = run(
        """
with cluster(log_level=40) as client:
    everyone = client[:]
    said["pids"] = everyone.apply_sync(os.getpid)
    said["ids"] = client.ids
    said["secret"] = everyone.apply_sync(lambda: __import__("os").environ.get("IPP_CONNECTION_INFO"))
    said["where"] = everyone.apply_sync(os.getcwd)
    told = everyone.apply_sync(lambda: __import__("os").environ["IPP_CLUSTER_ID"])
    said["cluster"] = set(told) == {client.cluster.cluster_id}
    said["sum"] = sum(client.load_balanced_view().map_sync(lambda n: n * n, range(20)))
    everyone.execute("print('a word of an engine')", block=True)

    pending = everyone.execute("import time; print('sleeps', flush=True); time.sleep(60)")
    # What runs is not queued: they are in it when they have written.
    until(lambda: all("sleeps" in out for out in pending.stdout))
    client.cluster.signal_engines_sync(signal.SIGINT)
    said["interrupted"] = [type(error).__name__ for error in [pending.exception(30)]]
    said["alive"] = everyone.apply_sync(os.getpid) == said["pids"]

    client.cluster.restart_engines_sync()
    until(lambda: len(client.ids) == 2 and not set(client.ids) & set(said["ids"]))
    said["new"] = client[:].apply_sync(os.getpid)
    said["output"] = client.cluster.engine_set.get_output()
    files = os.listdir(os.path.join(client.cluster.profile_dir, "security"))
    said["files"] = sorted(name for name in files if name.startswith("ipcontroller"))
    said["cluster_id"] = client.cluster.cluster_id
said["left"] = [name for name in os.listdir(os.path.join(client.cluster.profile_dir, "security")) if "json" in name]
""",
        isolated.home,
    )
    assert said["ids"] == [0, 1]
    assert said["secret"] == [None, None]
    assert said["where"] == [str(isolated.home)] * 2
    assert said["cluster"] is True
    assert said["sum"] == 2470
    assert said["interrupted"] == ["CompositeError"]
    assert said["alive"] is True
    assert not set(said["new"]) & set(said["pids"])
    names = [f"ipcontroller-{said['cluster_id']}-{side}.json" for side in ("client", "engine")]
    assert said["files"] == names
    assert said["left"] == []
    assert pids_alive(said["pids"] + said["new"]) == []
    assert list(isolated.temporary.glob("clusterd-set-*")) == []


def test_a_cluster_is_found_again_by_another_process(isolated):
    begun = run(
        """
ours = cluster(shutdown_atexit=False, cluster_id="lab", profile_dir="profile")
ours.start_cluster_sync()
client = connected(ours)
client[:].push({"kept": 42}, block=True)
said["pids"] = client[:].apply_sync(os.getpid)
client.close()
""",
        isolated.home,
    )
    assert len(pids_alive(begun["pids"])) == 2
    said = run(
        """
ours = ipp.Cluster.from_file(profile_dir="profile", cluster_id="lab")
said["state"] = [ours.controller.state, ours.engine_set.state, ours.engine_set.n]
client = connected(ours)
said["kept"] = client[:].pull("kept", block=True)
said["pids"] = client[:].apply_sync(os.getpid)
client.close()
ours.stop_cluster_sync()
said["left"] = [name for name in os.listdir("profile/security") if "json" in name]

ours = cluster(cluster_id="lab", profile_dir="profile")
state = {"pid": os.getpid(), "start_time": 1, "state": "running", "profile_dir": "profile"}
for kind in (ours.controller_launcher_class, ours.engine_launcher_class):
    try:
        kind.from_dict(state)
    except Exception as error:
        said.setdefault("stranger", []).append(type(error).__name__)
""",
        isolated.home,
    )
    assert said["state"] == ["running", "running", 2]
    assert said["kept"] == [42, 42]
    assert said["pids"] == begun["pids"]
    assert said["left"] == []
    assert said["stranger"] == ["NotRunning", "NotRunning"]
    assert pids_alive(begun["pids"]) == []


def test_an_engine_that_dies_is_replaced_and_one_that_is_shut_down_is_not(isolated):
    said = run(
        """
with cluster(log_level=40) as client:
    pids = client[:].apply_sync(os.getpid)
    died = client[0].apply_async(os._exit, 7)
    said["died"] = str(died.exception(60))
    client.wait_for_engines(2, timeout=60)
    until(lambda: 0 not in client.ids and len(client.ids) == 2)
    said["ids"] = client.ids
    said["survivor"] = client[1].apply_sync(os.getpid) == pids[1]

    client.shutdown([1], block=True)
    until(lambda: client.ids == [2])
    said["state"] = client.cluster.engine_set.state
    client.shutdown([2], block=True)
    engines = client.cluster.engine_set
    until(lambda: client.ids == [])
    engines._wait_thread.join(30)
    said["is_over"] = engines.poll() is not None or engines.state == "after"
""",
        isolated.home,
    )
    assert "engine" in said["died"].lower()
    assert said["ids"] == [1, 2]
    assert said["survivor"] is True
    assert said["state"] == "running"
    assert said["is_over"] is True


@pytest.mark.parametrize(
    "end", ["os.kill(engines.pid, signal.SIGKILL)", "client.cluster.signal_engines_sync(signal.SIGKILL)"]
)
def test_no_engine_outlives_its_set_however_that_ends(isolated, end):
    said = run(
        f"""
with cluster(log_level=40) as client:
    said["pids"] = client[:].apply_sync(os.getpid)
    engines = client.cluster.engine_set
    {end}
    engines._wait_thread.join(30)
    engines.poll()
    said["state"] = engines.state
    until(lambda: not any(os.path.exists(f"/proc/{{pid}}") for pid in said["pids"]))
    if "signal_engines" in {end!r}:
        until(lambda: client.ids == [])
""",
        isolated.home,
    )
    assert said["state"] == "after"
    assert list(isolated.temporary.glob("clusterd-set-*")) == []


def test_two_clusters_share_a_profile_directory_and_one_is_encrypted(isolated):
    said = run(
        """
with cluster(log_level=40, n=1, profile_dir="profile") as one:
    os.environ["IPP_ENABLE_CURVE"] = "1"
    with cluster(log_level=40, n=1, profile_dir="profile", controller_args=["--nodb", "--Hub.no_such=1"]) as two:
        said["sums"] = [each[:].apply_sync(sum, [1, 2]) for each in (one, two)]
        files = [each.cluster.controller.connection_files["client"] for each in (one, two)]
        said["curve"] = [bool(json.load(open(file))["curve_serverkey"]) for file in files]
""",
        isolated.home,
    )
    assert said == {"sums": [[3], [3]], "curve": [False, True]}


def test_stock_engines_come_to_a_controller_of_ours(isolated):
    said = run(
        """
with cluster(engines="local", n=1, log_level=50) as client:
    said["sum"] = client[:].apply_sync(sum, [1, 2])
    said["program"] = client[:].apply_sync(lambda: __import__("sys").argv)
""",
        isolated.home,
    )
    assert said["sum"] == [3]


def test_ipcluster_on_the_command_line(isolated):
    words = ["--profile-dir", str(isolated.home / "profile"), "--cluster-id", "line"]
    begin = [sys.executable, "-m", "ipyparallel.cluster", "start", "-n", "2", "--delay=0", *words]
    with subprocess.Popen(
        [*begin, "--controller=clusterd", "--engines=clusterd", "--log-level=INFO"],
        cwd=isolated.home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            said = run(
                """
until(lambda: os.path.exists("profile/security/ipcontroller-line-client.json"))
client = ipp.Client(profile_dir="profile", cluster_id="line")
client.wait_for_engines(2, timeout=60)
said["sum"] = client[:].apply_sync(sum, [1, 2])
client.close()
""",
                isolated.home,
            )
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert said["sum"] == [3, 3]

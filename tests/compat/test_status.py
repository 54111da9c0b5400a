"""Stock engines beside those of a profile: counted, listed, commanded, and used by both kinds of client."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import clusterd
from tests.processes.cluster import PROFILE, Cluster

pytest.importorskip("ipyparallel")

SMALL = PROFILE.replace("n: 2", "n: 1").replace("controller: {", "publish: ipython\ncontroller: {stock: 'on', ")
STOCK_CLIENT = """
import json, os
import ipyparallel

client = ipyparallel.Client(profile="test")
client.wait_for_engines(2, timeout=60)
print(json.dumps(sorted(client[:].apply_async(os.getpid).get_dict(60).items())))
client.close()
"""


@pytest.fixture
def cluster(isolated):
    with Cluster(isolated, SMALL) as cluster:
        cluster.serve()
        cluster.converged()
        yield cluster


@pytest.fixture
def stock_engine(cluster, isolated):
    """An ipengine that has joined."""
    file = cluster.state / "security" / "ipcontroller-engine.json"
    with subprocess.Popen(
        [sys.executable, "-m", "ipyparallel.engine", f"--file={file}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=isolated.home,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_stock_engine_is_one_of_them(cluster, stock_engine, isolated):
    status = cluster.until(lambda status: status["other_engines"] == {"stock": 1})
    # What the profile wishes is not met by engines that it does not speak of.
    assert status["engine_sets"]["engines"]["observed"] == 1
    assert status["is_converged"]
    assert "not of the profile" in cluster.ctl("status").stdout
    engines = {engine["engine"]: engine for engine in cluster.json("engines")["engines"]}
    (stock_name,) = [name for name in engines if name.startswith("stock/")]
    ours, stock = engines["engines/0"], engines[stock_name]
    assert (stock["set"], stock["state"], stock["restarts"]) == ("stock", "idle", 0)

    # Both kinds of client, on both kinds of engine.
    told = subprocess.run(
        [sys.executable, "-c", STOCK_CLIENT],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=isolated.home,
    )
    assert told.returncode == 0, told.stderr
    pids = dict(json.loads(told.stdout.splitlines()[-1]))
    assert pids[ours["id"]] == ours["pid"]
    with clusterd.Client("test") as client:
        assert client[[ours["id"], stock["id"]]].apply_sync(os.getpid) == [ours["pid"], pids[stock["id"]]]

    assert cluster.json("engines", "stop", stock_name)["done"] == [stock_name]
    cluster.until(lambda status: status["other_engines"] == {})
    assert stock_engine.wait(30) is not None

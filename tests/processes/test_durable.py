"""A durable cluster whose client and controller are both killed: what was acknowledged runs, once, and is found by whoever asks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import clusterd
from tests.processes.cluster import Cluster
from tests.processes.kill_table.scene import kill, work
from tests.rigs import mongodb
from tests.waiting import until

TASKS = 300
"""On MongoDB fewer: the server that tests have everywhere takes 10 ms for each."""
PROFILE = """\
version: 1
controller: {{launcher: local, {records}, start_timeout: 20, stop_timeout: 3}}
engine_sets:
  engines: {{launcher: local, n: 2, work_dir: /tmp, stop_timeout: 2}}
"""
VICTIM = """
import sys, time
import clusterd
from tests.processes.kill_table.scene import work
ledger, gate, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = clusterd.Client("test", label="victim")
view = client.load_balanced_view()
futures = [view.apply_async(work, ledger, number, gate) for number in range(count)]
while client.acknowledged < client.submitted:
    time.sleep(0.01)
assert all(future.is_acknowledged for future in futures)
assert not any(future.done() for future in futures)
print("acknowledged", flush=True)
time.sleep(600)
"""


def test_what_is_run_once_more_outlives_its_controller(isolated):
    ledger, gate = isolated.root / "ledger", isolated.root / "gate"
    with Cluster(isolated, PROFILE.format(records="database: sqlite, durable: process")) as cluster:
        cluster.serve()
        cluster.converged()
        gate.touch()
        with clusterd.Client("test", timeout=20.0) as client:
            view = client.load_balanced_view()
            first = view.apply_async(work, ledger, 0, gate)
            first.result(20)
            gate.unlink()
            # As many wait as run.
            again = client.resubmit([first] * 4)
            until(lambda: client.queue_status()["unassigned"] == 2, "two run", about=cluster.log)
            kill(cluster.client.get(cluster.path)["controller"]["pid"])
            gate.touch()
            assert [future.result(30)[0] for future in again] == [0] * 4
    assert len(ledger.read_text().splitlines()) == 5


@pytest.fixture(scope="module", params=["sqlite, process", "sqlite, disk", "mongodb, process"])
def records(request):
    """Where what is durable lies, as a profile says it."""
    database, durable = request.param.split(", ")
    if database == "sqlite":
        yield f"database: sqlite, durable: {durable}"
        return
    with mongodb.server() as uri, mongodb.database(uri) as name:
        yield f"database: mongodb, mongodb: {{uri: {uri!r}, database: {name}}}, durable: {durable}"


def test_what_was_acknowledged_needs_neither_its_client_nor_its_controller(isolated, records):
    count = TASKS if "sqlite" in records else TASKS // 6
    ledger, gate = isolated.root / "ledger", isolated.root / "gate"
    argv = [sys.executable, "-c", VICTIM, str(ledger), str(gate), str(count)]
    with Cluster(isolated, PROFILE.format(records=records)) as cluster:
        cluster.serve()
        cluster.converged()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as victim:
            assert victim.stdout.readline() == "acknowledged\n"
            status = cluster.client.get(cluster.path)
            kill(victim.pid)
        kill(status["controller"]["pid"])
        gate.touch()
        found = until(
            lambda: ledger.exists() and len(set(ledger.read_text().split("\n"))) > count and ledger.read_text(),
            "all tasks run",
            limit=40.0,
            about=cluster.log,
        )
        numbers = sorted(int(line.split()[0]) for line in found.splitlines())
        assert numbers == list(range(count))
        cluster.converged()
        with clusterd.Client("test", timeout=20.0) as client:
            query = {"completed": {"$ne": None}}
            until(
                lambda: len(client.task_records(query, keys=["status"])) == count, "all are recorded", about=cluster.log
            )
            assert {record["status"] for record in client.task_records(query, keys=["status"])} == {"ok"}

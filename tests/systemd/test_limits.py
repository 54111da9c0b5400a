"""`limits` of a profile are the kernel's: real control groups with real controllers, and an engine that asks for too much."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.systemd.conftest import Service, boot

PROFILE = """\
version: 1
run_as: clusterd
engine_sets:
  engines: {n: 2, work_dir: /tmp, stop_timeout: 3, limits: {memory: 400M, cpus: 2, tasks: 64}}
"""
HUNGRY = """
import json, os, sys, clusterd, clusterd.errors
with clusterd.Client(sys.argv[1]) as client:
    seen = {"before": client[:].apply_sync(os.getpid)}
    greedy = client[0].apply(lambda: len(b"x" * (600 << 20)))
    seen["other"] = client[1].apply_sync(os.getpid)
    try:
        greedy.result(30)
    except clusterd.errors.EngineLost as error:
        seen["lost"] = str(error)
    print(json.dumps(seen))
"""
CROWD = """
import json, sys, clusterd
def crowd():
    import subprocess
    children = []
    try:
        for _ in range(80):
            children.append(subprocess.Popen(["sleep", "60"]))
    except OSError as error:
        return type(error).__name__
    finally:
        for child in children:
            child.kill(), child.wait()
with clusterd.Client(sys.argv[1]) as client:
    print(json.dumps(client[1].apply_sync(crowd)))
"""


@pytest.fixture(scope="module")
def service():
    if not Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists():
        pytest.skip("the kernel's controllers are not bound to control groups of version 1 here")
    with boot("-1") as host:
        service = Service(host, "small", PROFILE)
        service.systemctl("start")
        service.converged()
        yield service
        service.systemctl("stop")


def test_an_engine_that_takes_too_much_memory_ends_alone_and_status_says_why(service):
    [agent] = [launch["pid"] for launch in service.get()["engine_sets"]["engines"]["launches"]]
    seen = json.loads(service.compute(HUNGRY))
    assert "the memory limit of its cgroup was reached" in seen["lost"]
    assert seen["other"] == seen["before"][1]
    status = service.converged()
    # The agent, and what it runs on, were not touched; the slot has a new engine.
    assert [launch["pid"] for launch in status["engine_sets"]["engines"]["launches"]] == [agent]
    after = service.engines()
    assert after[1] == seen["before"][1]
    assert after[0] != seen["before"][0]
    assert "memory limit" in service.ctl("events")


def test_a_set_may_have_so_many_processes_and_no_more(service):
    assert json.loads(service.compute(CROWD)) == "BlockingIOError"


def test_what_is_not_held_is_said(service):
    # The controller `cpu` has to share a hierarchy with `cpuacct` for systemd to use it.
    warnings = service.get()["warnings"]
    has_cpu = Path("/sys/fs/cgroup/cpu,cpuacct").exists()
    assert [warning for warning in warnings if "limits" in warning] == (
        []
        if has_cpu
        else ["engines: limits: cpus not held: this system has no such control group controller for the unit"]
    )

"""A thousand engines, and five thousand, on one daemon and one controller.

The engines are connections only (`peers/fleet.py`): what is measured is daemon and controller, and memory for as many processes is not
needed. `start` is wall time of `clusterctl start -n N --wait` from nothing; `status` that of the request on the control socket, 95th
percentile; `again` from kill -9 of the controller until all engines are registered with the next one; idle is the daemon's CPU and its
wake-ups over some seconds in which nothing happens. `real_1000_start_s` is 1,000 engines that are processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.cluster import Cluster
from benchmarks.peers.fleet import wrapper
from clusterd.control.client import ControlClient

PROFILE = """\
version: 1
controller: {{launcher: local, stock: "off"}}
engine_sets:
  engines: {{launcher: local, n: 1, max: 5000, work_dir: /tmp, {python}}}
"""
REAL_BYTES = 8 * 1024**3
"""Of free memory that 1,000 processes want."""


class FleetCluster(Cluster):
    """A cluster whose engines are a fleet, or, for comparison, are not."""

    def __init__(self, *, is_simulated: bool) -> None:
        super().__init__(profile="fleet")
        python = f"python: {wrapper(self.place / 'python')}" if is_simulated else "env: {OMP_NUM_THREADS: '1'}"
        profiles = self.place / "c" / "profiles"
        profiles.mkdir(mode=0o700)
        (profiles / "fleet.yaml").write_text(PROFILE.format(python=python))

    def control(self) -> ControlClient:
        """Return a client of the daemon."""
        return ControlClient(self.place / "r" / self.profile / "control.sock", timeout=60.0)

    def status(self, query: str = "") -> Any:
        """Return the daemon's answer."""
        return self.control().get(f"/v1/clusters/{self.profile}{query}", timeout=60.0)


def measure(*, is_short: bool) -> dict[str, float]:
    """Return seconds, milliseconds and per cent, by number of engines."""
    figures: dict[str, float] = {}
    for engines in (20,) if is_short else (1000, 5000):
        figures |= {f"fleet_{engines}_{name}": value for name, value in fleet(engines, is_short=is_short).items()}
    real = 10 if is_short else 1000
    if is_short or psutil.virtual_memory().available > REAL_BYTES:
        cluster = FleetCluster(is_simulated=False)
        figures[f"real_{real}_start_s"] = cluster.start(real)
        figures[f"real_{real}_stop_s"] = cluster.stop()
    return figures


def fleet(engines: int, *, is_short: bool) -> dict[str, float]:
    """One fleet, from start to stop."""
    cluster = FleetCluster(is_simulated=True)
    figures = {"start_s": cluster.start(engines)}
    with contextlib.ExitStack() as stack:
        stack.callback(cluster.stop)
        control = cluster.control()
        path = f"/v1/clusters/{cluster.profile}"
        asked = []
        for _ in range(20 if is_short else 200):
            began = time.perf_counter()
            control.get(path)
            asked.append((time.perf_counter() - began) * 1e3)
        figures["status_p95_ms"] = statistics.quantiles(asked, n=20)[-1]
        figures["command_ms"] = statistics.median(cluster.ctl("status") for _ in range(5)) * 1e3
        status = cluster.status()
        daemon = psutil.Process(status["daemon"]["pid"])
        figures |= idle(daemon, 2.0 if is_short else 20.0)
        figures["daemon_mb"] = daemon.memory_info().rss / 1e6
        controller = status["controller"]["pid"]
        figures["controller_mb"] = psutil.Process(controller).memory_info().rss / 1e6
        began = time.perf_counter()
        os.kill(controller, signal.SIGKILL)
        figures["again_s"] = again(cluster, controller, engines) - began
        stack.pop_all()
        figures["stop_s"] = cluster.stop()
    return figures


def idle(daemon: psutil.Process, seconds: float) -> dict[str, float]:
    """What the daemon does while nothing happens, in per cent of a core, and how often it wakes up."""

    def taken() -> tuple[float, int]:
        # In nanoseconds of the scheduler's: ticks of 10 ms would say 0.
        spent = int(Path(f"/proc/{daemon.pid}/schedstat").read_text().split()[0]) / 1e9
        return spent, daemon.num_ctx_switches().voluntary

    before, began = taken(), time.perf_counter()
    time.sleep(seconds)
    after, lasted = taken(), time.perf_counter() - began
    return {
        "idle_percent": (after[0] - before[0]) / lasted * 100,
        "idle_wakeups_per_s": (after[1] - before[1]) / lasted,
    }


def again(cluster: FleetCluster, killed: int, engines: int) -> float:
    """Wait until the next controller has them all; when that was."""
    deadline = time.perf_counter() + 60
    status = cluster.status()
    while (
        not status["is_converged"]
        or status["controller"]["pid"] == killed
        or status["engine_sets"]["engines"]["observed"] != engines
    ):
        if time.perf_counter() > deadline:
            raise RuntimeError(f"not all of {engines} engines came back: {status['engine_sets']}")
        status = cluster.status(f"?wait=change&since={status['seq']}&timeout=10")
    return time.perf_counter()

"""How long a cluster of 128 engines does not serve after kill -9 of its controller, with `database: memory` and `durable: disk`.

The clock starts at the kill. `attached`: a client that was there submits a task at once, and has its result. `new`: another one is
made at once, tries again until it is let in, and has the result of its first task. `all_engines`: the first one has had an answer of each
engine. The daemon starts the controller again; between two kills there is a time in which it counts as healthy, as after any crash that
does not repeat itself. Medians, and the longest.
"""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from typing import Any

import cloudpickle

from benchmarks.cluster import Cluster
from benchmarks.peers import tasks
from benchmarks.scenarios.stores import STORES

MEASURED = ("memory", "sqlite_disk")
HEALTHY = 6.0
PATIENCE = 60.0


def measure(*, is_short: bool) -> dict[str, float]:
    """Return seconds."""
    cloudpickle.register_pickle_by_value(tasks)
    engines, kills = (16, 1) if is_short else (128, 5)
    figures: dict[str, float] = {}
    for name in MEASURED:
        found: dict[str, list[float]] = {}
        with (
            Cluster(engines, profile=name.replace("_", "-"), controller=STORES[name]) as cluster,
            cluster.client() as client,
        ):
            client.wait_for_engines(engines, timeout=30)
            client[:].apply_sync(tasks.nothing, 1)
            for _ in range(kills):
                time.sleep(HEALTHY)
                for what, seconds in one_kill(cluster, client, engines).items():
                    found.setdefault(what, []).append(seconds)
        figures[f"{name}_attached_s"] = statistics.median(found["attached"])
        figures[f"{name}_new_s"] = statistics.median(found["new"])
        figures[f"{name}_all_engines_s"] = statistics.median(found["all_engines"])
        figures[f"{name}_longest_s"] = max(*found["attached"], *found["new"])
    return figures


def one_kill(cluster: Cluster, client: Any, engines: int) -> dict[str, float]:
    """Kill the controller; return when whom was served."""
    [controller] = cluster.pids("controller")
    view = client.load_balanced_view()
    everybody = client[:]
    served: dict[str, float] = {}
    killed = time.perf_counter()
    newcomer = threading.Thread(target=arrive, args=(cluster, killed, served))
    os.kill(controller, signal.SIGKILL)
    newcomer.start()
    assert view.apply_async(tasks.nothing, 1).result(PATIENCE) == 1
    served["attached"] = time.perf_counter() - killed
    assert len(everybody.apply_async(os.getpid).result(PATIENCE)) == engines
    served["all_engines"] = time.perf_counter() - killed
    newcomer.join()
    if "new" not in served:
        raise RuntimeError(f"a new client was not served within {PATIENCE:.0f} s after the kill")
    return served


def arrive(cluster: Cluster, killed: float, served: dict[str, float]) -> None:
    """Be a client that nobody knows."""
    from clusterd.errors import ClusterdError  # noqa: PLC0415 - as in `Cluster.client`

    while "new" not in served and time.perf_counter() - killed < PATIENCE:
        try:
            with cluster.client() as client:
                assert client.load_balanced_view().apply_async(tasks.nothing, 2).result(PATIENCE) == 2
                served["new"] = time.perf_counter() - killed
        except ClusterdError:
            time.sleep(0.02)

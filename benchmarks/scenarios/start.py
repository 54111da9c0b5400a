"""From nothing to engines: `clusterctl start -n 4`, `scale engines 128`, `status`, `stop`, each as wall time of the command.

"Nothing" is: no daemon, empty state directory, sources and libraries in the system's cache (one start before is not
counted). Output goes to a pipe, so that no progress bar is drawn. 128 engines are asked for in the same cluster, from 4.
"""

from __future__ import annotations

import contextlib
import statistics
import sys

import cloudpickle

from benchmarks.cluster import Cluster


def measure(*, is_short: bool) -> dict[str, float]:
    """Return seconds of each command; `status` is the median of several."""
    # Engines start in their own work directory, where `benchmarks` cannot be imported.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    many = 16 if is_short else 128
    with Cluster(1):
        pass

    cluster = Cluster()
    figures = {"start_4_s": cluster.start(4)}
    with contextlib.ExitStack() as stack:
        stack.callback(cluster.stop)
        with cluster.client() as client:
            assert len(client.ids) == 4
        figures["status_ms"] = statistics.median(cluster.ctl("status") for _ in range(3 if is_short else 11)) * 1e3
        figures["help_ms"] = statistics.median(cluster.ctl("--help") for _ in range(3 if is_short else 11)) * 1e3
        figures["scale_128_s"] = cluster.scale(many)
        with cluster.client() as client:
            # What the command said is true: they are there, and they compute.
            client.wait_for_engines(many, timeout=5)
            assert len(set(client[:].apply_sync(_pid))) == many
        figures["scale_down_s"] = cluster.scale(4)
        stack.pop_all()
        figures["stop_s"] = cluster.stop()
    return figures


def _pid() -> int:
    import os  # noqa: PLC0415 - runs on the engine, sent by value

    return os.getpid()

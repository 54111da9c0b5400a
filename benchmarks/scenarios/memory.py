"""What engines and controller hold: PSS of an engine idle and after 50 cells, RSS of the controller, with 4 engines and with 128.

PSS (smaps_rollup) splits the pages that engines share with their warm parent: some 14 MB, a fifth of which falls to each of 4
engines and next to nothing to each of 128. Cells are what a person types: small functions, comprehensions, dicts, a class,
strings, an import of a part of the standard library; no numpy, no preload. The controller is measured last, after 20,000 tasks.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

import cloudpickle

from benchmarks import processes
from benchmarks.cluster import Cluster
from benchmarks.scenarios.neighbours import nothing

CELLS = (
    "import json, collections, re",
    "def f{i}(a, b=2):\n    return [a * k + b for k in range(100)]\nr{i} = f{i}({i})",
    "d{i} = {{str(k): k ** 2 for k in range(200)}}; json.loads(json.dumps(d{i}))",
    "class C{i}:\n    def __init__(self):\n        self.x = {i}\nc{i} = [C{i}() for _ in range(20)]",
    "words{i} = collections.Counter(re.findall(r'[a-z]+', 'the quick brown fox jumps over the lazy dog ' * 50))",
    "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    text{i} = repr(error)",
    "total{i} = sum(x * x for x in range(10_000)); total{i}",
)


def measure(*, is_short: bool) -> dict[str, float]:
    """Return MB (10**6 bytes): medians over the engines; the controller idle, and after all of it."""
    cloudpickle.register_pickle_by_value(sys.modules[nothing.__module__])
    few, many, cells, tasks = (4, 16, 10, 2_000) if is_short else (4, 128, 50, 20_000)
    figures = {}
    with Cluster(few) as cluster:
        [controller] = cluster.pids("controller")
        with cluster.client() as client:
            client.wait_for_engines(few, timeout=30)
            figures["engine_idle_of_4_mb"] = engine_pss(cluster, few)
            figures["controller_idle_mb"] = processes.rss(controller)
            run_cells(client, cells)
            figures["engine_50_cells_of_4_mb"] = engine_pss(cluster, few)
        # Down to none and up: engines that have run no cell.
        cluster.scale(0)
        cluster.scale(many)
        with cluster.client() as client:
            client.wait_for_engines(many, timeout=30)
            figures["engine_idle_mb"] = engine_pss(cluster, many)
            run_cells(client, cells)
            figures["engine_50_cells_mb"] = engine_pss(cluster, many)
            for role in ("daemon", "agent", "zygote"):
                figures[f"{role}_mb"] = sum(map(processes.pss, cluster.pids(role)))
            view = client.load_balanced_view()
            for future in [view.apply_async(nothing, number) for number in range(tasks)]:
                future.result()
            figures["controller_mb"] = processes.rss(controller)
    return figures


def engine_pss(cluster: Cluster, engines: int) -> float:
    """Return the median PSS of the engines, in MB.

    Raises:
        RuntimeError: there are not so many.
    """
    pids = cluster.pids("engine")
    if len(pids) != engines:
        raise RuntimeError(f"{len(pids)} engines where {engines} were asked for")
    return statistics.median(map(processes.pss, pids))


def run_cells(client: Any, cells: int) -> None:
    """Run as many cells on all engines, one after the other as a person would."""
    view = client[:]
    for number in range(cells):
        view.execute(CELLS[number % len(CELLS)].format(i=number)).result()

"""What engines and controller hold: PSS of an engine idle and after 50 cells, RSS of the controller.

PSS (smaps_rollup) splits the pages that engines share with their warm parent. Cells are what a person types: small
functions, comprehensions, dicts, a class, strings, an import of a part of the standard library; no numpy, no preload.
"""

from __future__ import annotations

import statistics

from benchmarks import processes
from benchmarks.cluster import Cluster

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
    """Return MB (10**6 bytes): medians over the engines, and the controller before and after the cells."""
    engines = 4
    figures = {}
    with Cluster(engines) as cluster:
        with cluster.client() as client:
            client.wait_for_engines(engines, timeout=30)
            view = client[:]
            figures["engine_idle_mb"] = statistics.median(map(processes.pss, cluster.pids("engine")))
            figures["controller_idle_mb"] = processes.rss(cluster.pids("controller")[0])
            for number in range(10 if is_short else 50):
                result = view.execute(CELLS[number % len(CELLS)].format(i=number))
                # A view may answer at once or with a future: both mean that the cell has run when this line is over.
                getattr(result, "result", lambda: None)()
            figures["engine_50_cells_mb"] = statistics.median(map(processes.pss, cluster.pids("engine")))
            figures["controller_mb"] = processes.rss(cluster.pids("controller")[0])
        for role in ("daemon", "agent", "zygote"):
            figures[f"{role}_mb"] = sum(map(processes.pss, cluster.pids(role)))
    return figures

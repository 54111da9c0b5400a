"""What the controller holds (PSS) after a million no-op tasks, and after 1,500 results of 100 kB under a bound of 64 MB.

With `database: memory` and `sqlite`, each with a new cluster for either part. Flat is what grows no more once the bounds are full: tasks
are compared with the state after the first 100,000 (65,536 records are kept), results with that after the first 750, which fill 64 MB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cloudpickle

from benchmarks import processes
from benchmarks.cluster import Cluster
from benchmarks.peers import tasks
from benchmarks.scenarios.stores import at_rest

if TYPE_CHECKING:
    from collections.abc import Callable

ENGINES = 4
BOUND = 64_000_000
RESULT = 100_000
BOUNDS: dict[str, dict[str, Any]] = {
    "memory": {"records": {"memory": BOUND}},
    "sqlite": {"sqlite": {"max_size": BOUND}},
}


def measure(*, is_short: bool) -> dict[str, float]:
    """Return MB (10**6 bytes) and factors, by store."""
    cloudpickle.register_pickle_by_value(tasks)
    figures: dict[str, float] = {}
    for name, bounds in BOUNDS.items():
        # In short the record bound is small, too, so that it is full at the baseline.
        few = {"records": {"tasks": 5_000}} if is_short else {}
        with Cluster(ENGINES, profile=name, controller={"database": name, **few}) as cluster:
            first, last = (10_000, 50_000) if is_short else (100_000, 1_000_000)
            held = holding(cluster, (first, last), 10_000, nothing)
            figures[f"{name}_first_tasks_mb"], figures[f"{name}_tasks_mb"] = held[first], held[last]
            figures[f"{name}_tasks_peak_mb"] = max(held.values())
            figures[f"{name}_tasks_growth"] = held[last] / held[first]
        with Cluster(ENGINES, profile=name, controller={"database": name, **bounds}) as cluster:
            last = 1_500
            held = holding(cluster, (0, last // 2, last), 30, hundred_kb)
            figures[f"{name}_before_results_mb"] = held[0]
            figures[f"{name}_first_results_mb"], figures[f"{name}_results_mb"] = held[last // 2], held[last]
            figures[f"{name}_results_held_mb"] = max(held.values()) - held[0]
            figures[f"{name}_results_growth"] = held[last] / held[last // 2]
    return figures


def nothing(view: Any, count: int) -> None:
    """Run as many no-op tasks."""
    for number, future in enumerate([view.apply_async(tasks.nothing, number) for number in range(count)]):
        assert future.result() == number


def hundred_kb(view: Any, count: int) -> None:
    """Fetch as many results of 100 kB."""
    for future in [view.apply_async(tasks.give, RESULT) for _ in range(count)]:
        assert len(future.result()) == RESULT


def holding(cluster: Cluster, moments: tuple[int, ...], step: int, run: Callable[[Any, int], None]) -> dict[int, float]:
    """Return what the controller holds after so many tasks: at these moments when it is at rest, else as it is."""
    [controller] = cluster.pids("controller")
    held: dict[int, float] = {}
    with cluster.client() as client:
        client.wait_for_engines(ENGINES, timeout=30)
        view = client.load_balanced_view()
        run(view, ENGINES)
        for done in range(0, moments[-1] + 1, step):
            if done:
                run(view, step)
            if done in moments:
                at_rest(controller)
            held[done] = processes.pss(controller)
    return held

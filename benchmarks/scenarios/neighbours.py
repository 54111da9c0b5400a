"""What a heavy neighbour costs a light one: a 10 s task beside short tasks, a 200 MB push beside control requests.

A delay is the slowest short task (or control request) while the neighbour is at work, less the median without it.
Short tasks go through the balanced view one at a time, a control request is `queue_status()`, on the client that pushes.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from typing import TYPE_CHECKING

import cloudpickle

from benchmarks.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable

MEGABYTE = 1_000_000


def timed(action: Callable[[], object]) -> float:
    """Return the milliseconds that the action took."""
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1e3


def sleep(seconds: float) -> float:
    """Runs on the engine: a long task that leaves it idle, as waiting for a file or a licence does."""
    import time  # noqa: PLC0415 - sent by value

    time.sleep(seconds)
    return seconds


def nothing(value: int) -> int:
    """Runs on the engine: the shortest of tasks."""
    return value


def measure(*, is_short: bool) -> dict[str, float]:
    """Return the delays in milliseconds, and the figures that they come from."""
    # Engines start in their own work directory, where `benchmarks` cannot be imported.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with Cluster(4) as cluster, cluster.client() as client:
        client.wait_for_engines(4, timeout=30)
        return {
            **beside_a_long_task(client, 2.0 if is_short else 10.0),
            **beside_a_push(client, 20 if is_short else 200),
        }


def beside_a_long_task(client, seconds: float) -> dict[str, float]:
    """Run short tasks while one engine is busy for that long."""
    view = client.load_balanced_view()
    quiet = [timed(lambda: view.apply_sync(nothing, 1)) for _ in range(300)]
    long = view.apply_async(sleep, seconds)
    beside: list[float] = []
    while not long.done():
        beside.append(timed(lambda: view.apply_sync(nothing, 1)))
    assert long.result() == seconds
    return {
        "short_task_quiet_ms": statistics.median(quiet),
        "short_task_slowest_ms": max(beside),
        "short_task_delay_ms": max(beside) - statistics.median(quiet),
    }


def beside_a_push(client, megabytes: int) -> dict[str, float]:
    """Ask for the state of the queues while a large value is on its way to one engine."""
    data = bytes(megabytes * MEGABYTE)
    quiet = [timed(client.queue_status) for _ in range(100)]

    def push() -> None:
        result = client[0].push({"data": data})
        getattr(result, "result", lambda: None)()

    pusher = threading.Thread(target=push)
    started = time.perf_counter()
    pusher.start()
    beside: list[float] = []
    while pusher.is_alive():
        beside.append(timed(client.queue_status))
    pusher.join()
    return {
        "push_s": time.perf_counter() - started,
        "control_quiet_ms": statistics.median(quiet),
        "control_slowest_ms": max(beside),
        "control_delay_ms": max(beside) - statistics.median(quiet),
    }

"""What a heavy neighbour costs a light one: a 10 s task beside short tasks, a 200 MB push beside control requests.

A delay is the slowest short task (or control request) while the neighbour is at work, less the median without it.
Short tasks go through the balanced view one at a time; once more in numbers, where the long task is a call of the same function,
which was short each time before: what engines were given in advance then waits behind it until it is recalled. That delay is
the time in which all but the long one end, less the same without it. A control request is `queue_status()`, on the client that pushes.
"""

from __future__ import annotations

import os
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
            **beside_an_outlier(client, 2.0 if is_short else 10.0),
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


def sometimes(seconds: float) -> float:
    """Runs on the engine: short nearly always."""
    if seconds:
        import time  # noqa: PLC0415 - sent by value

        time.sleep(seconds)
    return seconds


def beside_an_outlier(client, seconds: float) -> dict[str, float]:
    """Run short tasks in numbers while one of them, which nothing tells from the others, takes that long."""
    view = client.load_balanced_view()

    def batch(slow: int) -> float:
        started = time.perf_counter()
        futures = [view.apply_async(sometimes, seconds if number == slow else 0.0) for number in range(400)]
        for number, future in enumerate(futures):
            if number != slow:
                assert future.result() == 0.0
        taken = (time.perf_counter() - started) * 1e3
        if slow >= 0:
            assert not futures[slow].done()
            assert futures[slow].result() == seconds
        return taken

    for _ in range(5):
        batch(-1)
    quiet = statistics.median(batch(-1) for _ in range(20))
    beside = max(batch(slow) for slow in ((0, 200) if seconds > 5 else (0, 57, 200, 399)))
    return {"batch_quiet_ms": quiet, "batch_slowest_ms": beside, "outlier_delay_ms": beside - quiet}


def beside_a_push(client, megabytes: int) -> dict[str, float]:
    """Ask for the state of the queues while a large value is on its way to one engine."""
    # Not zeroes: untouched memory is one and the same page, and copies of it cost half.
    data = os.urandom(MEGABYTE) * megabytes
    quiet = [timed(client.queue_status) for _ in range(100)]

    def push() -> None:
        client[client.ids[0]].push({"data": data}).result()

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

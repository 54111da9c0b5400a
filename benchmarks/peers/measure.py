"""Run one round of one peer and write its figures as JSON: `python -m benchmarks.peers.measure process_pool --output FILE`.

The number of tasks follows from a first, short try, so that each measure lasts about `--seconds`: a peer that is thirty
times slower than another is measured as long, not with as many tasks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import peers, processes
from benchmarks.peers import tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.peers import System

CHUNKS = (10, 100)
SWIFTEST_TRIP = 5_000
MOST_TASKS = 2_000_000


def ready(system: System, workers: int) -> None:
    """Return when as many workers have answered.

    Raises:
        TimeoutError: they did not in two minutes.
    """
    seen: set[int] = set()
    deadline = time.monotonic() + 120
    while len(seen) < workers:
        # As many at once as there are workers, each long enough that a worker does not take two.
        seen.update(future.result() for future in [system.submit(tasks.who, 0.02) for _ in range(workers)])
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(seen)} of {workers} workers answered in 120 s")


def one_by_one(system: System, count: int) -> float:
    """Submit tasks one by one, then wait for all; return the seconds taken."""
    started = time.perf_counter()
    futures = [system.submit(tasks.nothing, number) for number in range(count)]
    for number, future in enumerate(futures):
        assert future.result() == number
    return time.perf_counter() - started


def mapped(system: System, count: int, chunk: int | None) -> float:
    """Map over a range and check the results; return the seconds taken."""
    items = list(range(count))
    started = time.perf_counter()
    results = system.map(tasks.nothing, items, chunk)
    taken = time.perf_counter() - started
    assert results == items
    return taken


def how_many(seconds: float, taken: float, tried: int) -> int:
    """Return the number of tasks that lasts about as long as asked, after a try."""
    return max(tried, min(MOST_TASKS, int(tried * seconds / max(taken, 1e-6))))


def trips(system: System, seconds: float) -> list[float]:
    """Return the seconds of lone round trips: submit one, wait for it, again."""
    deadline = time.perf_counter() + seconds
    found: list[float] = []
    while len(found) < SWIFTEST_TRIP and time.perf_counter() < deadline:
        started = time.perf_counter()
        system.submit(tasks.nothing, 1).result()
        found.append(time.perf_counter() - started)
    return found


@contextlib.contextmanager
def sampled(system: System, role: str | None, file: str, seconds: float) -> Iterator[None]:
    """Let py-spy sample the first process of that role meanwhile, into a file of collapsed stacks."""
    if role is None:
        yield
        return
    pid = next(pid for pid, process in processes.tree(os.getpid()).items() if system.role(process) == role)
    program = Path(sys.executable).with_name("py-spy")
    command = [program, "record", "--nonblocking", "--format", "raw", "--rate", "500", "--output", file]
    with subprocess.Popen([*command, "--duration", str(max(1, int(seconds))), "--pid", str(pid)]) as sampler:
        yield
        sampler.wait(60)


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Return the figures of one round: seconds, milliseconds, tasks per second, microseconds of CPU per task."""
    figures: dict[str, float] = {}
    seconds = arguments.seconds

    started = time.perf_counter()
    system = peers.load(arguments.peer)
    system.start(arguments.workers)
    ready(system, arguments.workers)
    figures["ready_s"] = time.perf_counter() - started
    try:
        tried = 200
        one_by_one(system, tried)
        count = how_many(seconds, one_by_one(system, tried), tried)
        with sampled(system, arguments.sample, arguments.sample_file, seconds):
            meter = processes.CpuMeter(os.getpid(), system.role)
            figures["one_by_one_per_s"] = count / one_by_one(system, count)
            for role, spent in meter.stop().items():
                figures[f"cpu_us_{role}"] = spent / count * 1e6

        trips(system, seconds / 10)
        figures["round_trip_p50_ms"] = statistics.median(trips(system, seconds / 2)) * 1e3

        for chunk in (*CHUNKS, None):
            name = f"map_{chunk or 'default'}"
            count = how_many(seconds / 2, mapped(system, 2_000 if chunk else 500, chunk), 2_000 if chunk else 500)
            # Twice: the first try of a fast peer is too short to tell how many fill the time.
            count = how_many(seconds / 2, mapped(system, count // 4 or 1, chunk), count // 4 or 1)
            meter = processes.CpuMeter(os.getpid(), system.role)
            figures[f"{name}_per_s"] = count / mapped(system, count, chunk)
            figures[f"{name}_cpu_us"] = meter.stop()["total"] / count * 1e6
    finally:
        started = time.perf_counter()
        system.stop()
        figures["stop_s"] = time.perf_counter() - started
    return figures


def main() -> int:
    """Measure, write the figures, and leave no process behind."""
    parser = argparse.ArgumentParser(description="Measure one round of one peer.")
    parser.add_argument("peer", choices=peers.NAMES)
    parser.add_argument("--output", required=True, help="file for the figures")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measure")
    parser.add_argument(
        "--sample", metavar="ROLE", help="let py-spy sample the process of this role (controller, client, ...)"
    )
    parser.add_argument("--sample-file", default="stacks.txt", help="where the stacks go (default: stacks.txt)")
    arguments = parser.parse_args()
    processes.become_reaper()
    try:
        figures = measure(arguments)
        Path(arguments.output).write_text(json.dumps(figures))
    finally:
        left = processes.end_descendants(os.getpid())
    # The resource tracker of multiprocessing ends with the process that it serves: it is not left, only last.
    if left := [command for command in left if "resource_tracker" not in command]:
        print(f"{arguments.peer} left {len(left)} processes: {', '.join(sorted(set(left)))}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Bounded: one client submits 1,000,000 tasks of 10 kB, another never reads 5 GB of results, a third one works.

The second asks for 100 results of 50 MB and is then stopped with SIGSTOP: its sockets stay open and nobody reads them. The
third sends lone tasks all the while; its 95th percentile is the figure. The controller's peak is VmHWM of its process.
The first is ended after ten minutes at the latest; how many of its tasks were done by then is a figure too.
"""

from __future__ import annotations

import contextlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import cloudpickle

from benchmarks import processes
from benchmarks.cluster import Cluster
from benchmarks.scenarios.neighbours import timed

LIMIT = 600.0

# Programs, not functions: each client is a process of its own, as it would be.
SUBMITTER = """
import sys, threading, clusterd
tasks, size = int(sys.argv[1]), int(sys.argv[2])
def take(data):
    return len(data)
done = threading.Semaphore(0)
count = 0
def finished(future):
    global count
    assert future.result() == size
    count += 1
    if count % 1000 == 0 or count == tasks:
        print(count, flush=True)
    if count == tasks:
        done.release()
with clusterd.Client("local") as client:
    view = client.load_balanced_view()
    data = bytes(size)
    for number in range(tasks):
        view.apply_async(take, data).add_done_callback(finished)
    done.acquire()
"""
NEVER_READS = """
import sys, time, clusterd
results, size = int(sys.argv[1]), int(sys.argv[2])
def give(size):
    return bytes(size)
client = clusterd.Client("local")
view = client.load_balanced_view()
futures = [view.apply_async(give, size) for number in range(results)]
print("asked", flush=True)
time.sleep(3600)
"""


def nothing(value: int) -> int:
    """Runs on the engine."""
    return value


def measure(*, is_short: bool) -> dict[str, float]:
    """Return MB, milliseconds, and counts."""
    tasks, results, size = (20_000, 10, 5_000_000) if is_short else (1_000_000, 100, 50_000_000)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with Cluster(4) as cluster, cluster.client() as client:
        [controller] = cluster.pids("controller")
        client.wait_for_engines(4, timeout=30)
        view = client.load_balanced_view()
        quiet = [timed(lambda: view.apply_sync(nothing, 1)) for _ in range(500)]
        with contextlib.ExitStack() as stack:
            silent = program(stack, NEVER_READS, results, size)
            assert silent.stdout is not None
            assert silent.stdout.readline() == "asked\n"
            silent.send_signal(signal.SIGSTOP)
            said = stack.enter_context(tempfile.TemporaryFile("w+"))
            submitter = program(stack, SUBMITTER, tasks, 10_000, stdout=said)
            started = time.perf_counter()
            beside: list[float] = []
            while submitter.poll() is None and time.perf_counter() - started < LIMIT:
                beside.append(timed(lambda: view.apply_sync(nothing, 1)))
                # 200 lone tasks a second at most: the third client is to meet the flood, not to be one.
                time.sleep(0.005)
            taken = time.perf_counter() - started
            if submitter.poll() not in {0, None}:
                raise RuntimeError(f"the client that submits ended with {submitter.returncode}")
            said.seek(0)
            done = int((said.read().split() or ["0"])[-1])
            peak = processes.peak_rss(controller)
    return {
        "flood_done": float(done),
        "flood_per_s": done / taken,
        "controller_peak_mb": peak,
        "third_quiet_p50_ms": statistics.median(quiet),
        "third_p50_ms": statistics.median(beside),
        "third_p95_ms": statistics.quantiles(beside, n=100)[94],
        "third_slowest_ms": max(beside),
    }


def program(
    stack: contextlib.ExitStack, text: str, *arguments: int, stdout: Any = subprocess.PIPE
) -> subprocess.Popen[str]:
    """Start a client as a process of its own, which ends with the stack."""
    process = subprocess.Popen([sys.executable, "-c", text, *map(str, arguments)], stdout=stdout, text=True)
    stack.enter_context(process)
    # Runs before the wait of the line above; SIGKILL also ends what is stopped.
    stack.callback(process.kill)
    return process

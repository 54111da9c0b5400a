"""What a lone round trip costs where each commit is waited for: its median, and the controller's fsyncs in it.

One task after the other, with a pause behind each in which what follows it (the note that the client has its outcome) is written, too. The
fsyncs are counted by strace(1) on the controller, in trips that are not timed; each belongs to the last trip that began before it.
`machine_fsync_p50_ms` is a small append and fdatasync(2), 200 times, on the file system of the state directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from benchmarks.cluster import Cluster
from benchmarks.peers import tasks
from benchmarks.scenarios.neighbours import timed
from benchmarks.scenarios.stores import STORES

if TYPE_CHECKING:
    from collections.abc import Iterator

PAUSE = 0.03
MEASURED = ("memory", "sqlite", "sqlite_process", "sqlite_disk")
FSYNC = re.compile(r"^\d+ +(\d+\.\d+) f(?:data)?sync\(", re.MULTILINE)


class NotTraced(Exception):
    """strace cannot be used here, for this reason."""


def measure(*, is_short: bool) -> dict[str, float | str]:
    """Return milliseconds, and fsyncs a trip."""
    cloudpickle.register_pickle_by_value(tasks)
    trips, traced = (50, 10) if is_short else (500, 50)
    figures: dict[str, float | str] = {}
    for name in MEASURED:
        with Cluster(2, profile=name.replace("_", "-"), controller=STORES[name]) as cluster, cluster.client() as client:
            client.wait_for_engines(2, timeout=30)
            view = client.load_balanced_view()
            for _ in range(20):
                trip(view)
            taken = [trip(view) for _ in range(trips)]
            figures[f"{name}_round_trip_p50_ms"] = statistics.median(taken)
            figures[f"{name}_round_trip_p95_ms"] = statistics.quantiles(taken, n=20)[18]
            if name.startswith("sqlite_"):
                figures |= fsyncs(name, cluster, view, traced)
            if name == MEASURED[-1]:
                figures["machine_fsync_p50_ms"] = machine_fsync(cluster.state)
    return figures


def trip(view: Any) -> float:
    """Return the milliseconds of one, and leave the controller in peace."""
    taken = timed(lambda: view.apply_sync(tasks.nothing, 1))
    time.sleep(PAUSE)
    return taken


def fsyncs(name: str, cluster: Cluster, view: Any, trips: int) -> dict[str, float | str]:
    """Count them in as many trips."""
    [controller] = cluster.pids("controller")
    began: list[float] = []
    try:
        with traced(controller) as file:
            for _ in range(trips):
                began.append(time.time())
                trip(view)
            time.sleep(PAUSE)
    except NotTraced as why:
        return {f"{name}_fsyncs": str(why), f"{name}_most_fsyncs": str(why)}
    found = [float(match[1]) for match in FSYNC.finditer(file.text)]
    each = [
        sum(begin <= at < end for at in found) for begin, end in zip(began, [*began[1:], float("inf")], strict=True)
    ]
    return {f"{name}_fsyncs": sum(each) / trips, f"{name}_most_fsyncs": float(max(each))}


class Trace:
    """What strace wrote, when it has ended."""

    text = ""


@contextlib.contextmanager
def traced(pid: int) -> Iterator[Trace]:
    """Record the process's fsyncs meanwhile.

    Raises:
        NotTraced: there is no strace, or it must not.
    """
    program = shutil.which("strace")
    if program is None:
        raise NotTraced("no strace")
    trace = Trace()
    with tempfile.TemporaryDirectory(prefix="cb-") as directory:
        output = Path(directory, "trace")
        command = [program, "-f", "-ttt", "-e", "trace=fsync,fdatasync", "-o", str(output), "-p", str(pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            if "attached" not in said:
                tracer.kill()
                raise NotTraced(f"strace said: {said.strip()}")
            try:
                yield trace
            finally:
                tracer.send_signal(signal.SIGINT)
                tracer.wait(10)
        trace.text = output.read_text()


def machine_fsync(directory: Path) -> float:
    """Return the median milliseconds of a small append and fdatasync there."""
    file = directory / "fsync-probe"
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def once() -> None:
        os.write(descriptor, bytes(512))
        os.fdatasync(descriptor)

    try:
        return statistics.median(timed(once) for _ in range(200))
    finally:
        os.close(descriptor)
        file.unlink()

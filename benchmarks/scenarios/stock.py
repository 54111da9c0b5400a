"""Unchanged ipyparallel Clients: our controller and engines, and ipcontroller with ipengine, one after the other in one run.

Both are started as `ipyparallel.Cluster` and a site's scripts do: a controller and engines in processes of their own, each engine
with the connection file. No-op tasks go through the load-balanced view of a Client in this process; round trips are direct applies to
one engine. CPU is that of controller and engines (with ipyparallel's schedulers and nannies) from /proc. `all` figures are those of a
DirectView and a BroadcastView of all engines: 64 of ours, of theirs as many as come up within a minute (`*_engines`). `client_alone` is the
round trip with a server that answers at once (`peers/instant.py`): what no controller and no engine can change.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipyparallel

from benchmarks import processes
from benchmarks.peers import tasks

if TYPE_CHECKING:
    from benchmarks.processes import Process

ENGINES = 4
MANY = 64
COMING_UP = 60.0
ARRAY_BYTES = 2_000_000
PROGRAMS = {
    "ours": ("clusterd controller --profile-dir {profile} --stock on", "clusterd engine --file {file}"),
    "theirs": (
        "ipyparallel.controller --profile-dir={profile}",
        "ipyparallel.engine --file={file} --profile-dir={profile}",
    ),
}


class Cluster:
    """A controller and engines of one side, in a directory of their own below /tmp.

    Args:
        side: ours or theirs.
        options: further words of the controller's command line.
    """

    def __init__(self, side: str, stack: contextlib.ExitStack, *options: str) -> None:
        self.side = side
        self.place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp")))
        self.log = stack.enter_context((self.place / "log").open("wb"))
        self.started: list[subprocess.Popen[bytes]] = []
        stack.callback(self.stop)
        os.environ["IPYTHONDIR"] = str(self.place / "ipython")
        os.environ["CLUSTERD_RUNTIME_DIR"] = str(self.place / "r")
        security = self.place / "profile" / "security"
        self.client_file = security / "ipcontroller-client.json"
        self.engine_file = security / "ipcontroller-engine.json"
        self._run(PROGRAMS[side][0], *options)
        deadline = time.monotonic() + COMING_UP
        while not self._is_announced():
            if time.monotonic() > deadline or self.started[0].poll() is not None:
                raise RuntimeError(f"{side}: no controller:\n{(self.place / 'log').read_text()}")
            time.sleep(0.01)

    def _is_announced(self) -> bool:
        # ipcontroller's file is there before it is written.
        try:
            return bool(json.loads(self.client_file.read_text()))
        except (FileNotFoundError, ValueError):
            return False

    def _run(self, command: str, *options: str) -> None:
        words = [*command.format(profile=self.place / "profile", file=self.engine_file).split(), *options]
        self.started.append(
            subprocess.Popen(
                [sys.executable, "-m", *words], stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT
            )
        )

    def grow(self, client: Any, engines: int) -> int:
        """Start engines until there are so many, or COMING_UP seconds have passed; return how many came up.

        Eight at a time: what is under way when time is up would disturb what is measured then.
        """
        deadline = time.monotonic() + COMING_UP
        while len(client.ids) < engines and time.monotonic() < deadline:
            wanted = min(engines, len(client.ids) + 8)
            for _ in range(wanted - (len(self.started) - 1)):
                self._run(PROGRAMS[self.side][1])
            while len(client.ids) < wanted:
                if time.monotonic() > deadline + COMING_UP:
                    raise RuntimeError(f"{self.side}: {len(client.ids)} of {wanted} engines came up")
                time.sleep(0.02)
        return len(client.ids)

    def stop(self) -> None:
        """End engines, then the controller."""
        for group in (self.started[1:], self.started[:1]):
            for process in group:
                process.terminate()
            for process in group:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def measure(*, is_short: bool) -> dict[str, float]:
    """Return the figures of both sides, `ours_*` and `theirs_*`, and how many times better ours are."""
    figures: dict[str, float] = {}
    for side in PROGRAMS:
        with contextlib.ExitStack() as stack:
            cluster = Cluster(side, stack)
            client = stack.enter_context(ipyparallel.Client(str(cluster.client_file), timeout=30))
            found = {**few(cluster, client, is_short), **many(cluster, client, is_short)}
            figures |= {f"{side}_{name}": value for name, value in found.items()}
    figures["client_alone_round_trip_p50_ms"] = client_alone(is_short=is_short)
    figures["balanced_rate_factor"] = figures["ours_balanced_per_s"] / figures["theirs_balanced_per_s"]
    for name in ("balanced_cpu", "round_trip_p50", "apply_all", "broadcast_2mb"):
        figures[f"{name}_factor"] = figures[f"theirs_{name}_ms"] / figures[f"ours_{name}_ms"]
    return figures


def few(cluster: Cluster, client: Any, is_short: bool) -> dict[str, float]:  # noqa: FBT001 - measure's own
    """Balanced tasks and lone round trips on four engines."""
    cluster.grow(client, ENGINES)
    view = client.load_balanced_view()
    count = 100 if is_short else 3_000
    balanced(view, count // 10)
    meter = processes.CpuMeter(os.getpid(), role)
    taken = balanced(view, count)
    spent = meter.stop()
    one = client[client.ids[0]]
    trips = [timed(lambda: one.apply_sync(tasks.nothing, 1)) for _ in range(20 if is_short else 1_000)]
    return {
        "balanced_cpu_ms": (spent["total"] - spent["client"]) / count * 1e3,
        "client_cpu_ms": spent["client"] / count * 1e3,
        "balanced_per_s": count / taken,
        "round_trip_p50_ms": statistics.median(trips[len(trips) // 10 :]),
    }


def client_alone(*, is_short: bool) -> float:
    """Return the median of a direct round trip, in milliseconds, with a server that answers at once."""
    with contextlib.ExitStack() as stack:
        file = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp"))) / "client.json"
        server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.instant", str(file)], stdin=subprocess.DEVNULL
        )
        stack.callback(server.wait)
        stack.callback(server.kill)
        deadline = time.monotonic() + COMING_UP
        while not file.exists():
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError("the server that answers at once did not come up")
            time.sleep(0.01)
        client = stack.enter_context(ipyparallel.Client(str(file), timeout=30))
        one = client[0]
        trips = [timed(lambda: one.apply_sync(tasks.nothing, 1)) for _ in range(20 if is_short else 1_000)]
        return statistics.median(trips[len(trips) // 10 :])


def balanced(view: Any, count: int) -> float:
    """Submit tasks one by one, wait for all; return the seconds taken."""
    started = time.perf_counter()
    results = [view.apply_async(tasks.nothing, number) for number in range(count)]
    assert [result.get(120) for result in results] == list(range(count))
    return time.perf_counter() - started


def many(cluster: Cluster, client: Any, is_short: bool) -> dict[str, float]:  # noqa: FBT001 - measure's own
    """One call on all engines, and one array to all."""
    import numpy as np  # noqa: PLC0415 - not a part of what clients need

    engines = cluster.grow(client, 8 if is_short else MANY)
    everybody = client[:]
    rounds = 3 if is_short else 11
    array = np.arange(ARRAY_BYTES // 8, dtype=float)
    broadcast = client.broadcast_view()
    assert len(set(everybody.apply_sync(os.getpid))) == engines
    apply_all = [timed(lambda: everybody.apply_sync(tasks.nothing, 1)) for _ in range(rounds)]
    sizes = broadcast.apply_sync(np.size, array)
    assert list(sizes) == [ARRAY_BYTES // 8] * engines
    push = [timed(lambda: broadcast.apply_sync(np.size, array)) for _ in range(rounds)]
    return {
        "engines": float(engines),
        "apply_all_ms": statistics.median(apply_all),
        "broadcast_2mb_ms": statistics.median(push),
    }


def timed(action: Any) -> float:
    """Return the milliseconds that the action took."""
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1e3


def role(process: Process) -> str:
    """The measuring process is the client; all else is controller and engines, with whatever belongs to them."""
    return "client" if process.pid == os.getpid() else "cluster"

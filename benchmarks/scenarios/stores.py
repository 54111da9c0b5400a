"""What each store costs: tasks a second and controller CPU a task, one by one, and ipcontroller with the same database.

A cluster of four engines for each store, all up at once; they take turns, each for a part of a second, the first of a round being another
one each time, so that what else the machine does meets them alike. Figures are medians over the rounds. A turn's CPU counts until the
controller is at rest: a store that writes later pays, too. First our client (`sqlite_per_s`), then an unchanged ipyparallel Client
(`sqlite_stock_per_s`) beside ipcontroller and four ipengines (`theirs_sqlitedb_per_s`). MongoDB is SecantusDB on loopback, which is
written in Python; what `durable` asks of it (`j: true`) it does for each document of a batch by itself, as no mongod does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipyparallel

from benchmarks import processes
from benchmarks.cluster import Cluster
from benchmarks.peers import measure as peer
from benchmarks.scenarios import stock
from tests.rigs import secantus

if TYPE_CHECKING:
    from benchmarks.peers import Future

ENGINES = 4
STORES: dict[str, dict[str, Any]] = {
    "memory": {"database": "memory"},
    "none": {"database": "none"},
    "sqlite": {"database": "sqlite"},
    "sqlite_process": {"database": "sqlite", "durable": "process"},
    "sqlite_disk": {"database": "sqlite", "durable": "disk"},
    "mongodb": {"database": "mongodb"},
    "mongodb_process": {"database": "mongodb", "durable": "process"},
}
THEIRS = {"nodb": "none", "dictdb": "memory", "sqlitedb": "sqlite", "mongodb": "mongodb"}
"""Their words for databases, and ours."""


class Contestant:
    """One cluster that takes turns with others.

    Args:
        view: of a client, ours or ipyparallel's.
        controller: pid of its controller.
    """

    def __init__(self, view: Any, controller: int) -> None:
        self._view = view
        self._controller = controller
        self._count = 0
        self.rates: list[float] = []
        self.cpu_us: list[float] = []

    def submit(self, function: Any, argument: Any) -> Future:
        """For `peers.measure`."""
        return self._view.apply_async(function, argument)

    def warm_up(self, seconds: float) -> None:
        """Find how many tasks fill a turn. One contestant is a thousand times as slow as another."""
        tried, taken = 10, 0.0
        while taken < seconds / 2:
            tried *= 2
            taken = peer.one_by_one(self, tried)
        self._count = max(10, int(tried * seconds / taken))
        at_rest(self._controller)

    def turn(self) -> None:
        """Run as many, and note rate and CPU."""
        before = cpu(self._controller)
        taken = peer.one_by_one(self, self._count)
        self.rates.append(self._count / taken)
        self.cpu_us.append((at_rest(self._controller) - before) / self._count * 1e6)


def measure(*, is_short: bool) -> dict[str, float | str]:
    """Return rates and microseconds of CPU by store."""
    figures: dict[str, float | str] = {}
    with contextlib.ExitStack() as stack:
        uri, why = mongodb(stack)
        clusters: dict[str, Cluster] = {}
        for name, settings in STORES.items():
            if settings["database"] == "mongodb" and not uri:
                figures[f"{name}_per_s"] = figures[f"{name}_stock_per_s"] = why
                continue
            chosen = settings | ({"mongodb": {"uri": uri}} if settings["database"] == "mongodb" else {})
            clusters[name] = stack.enter_context(Cluster(ENGINES, profile=name.replace("_", "-"), controller=chosen))
        native(clusters, figures, is_short=is_short)
        if not uri:
            figures["theirs_mongodb_per_s"] = why
        beside_theirs(clusters, uri, figures, is_short=is_short)
    return figures


def mongodb(stack: contextlib.ExitStack) -> tuple[str, str]:
    """Start a server and return (its URI, nothing), or (nothing, why there is none)."""
    if importlib.util.find_spec("pymongo") is None:
        return "", "no pymongo: pip install 'clusterd[mongodb]'"
    try:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cb-mongodb-", dir="/tmp")))
        return stack.enter_context(secantus.Server(secantus.program(), place)).uri, ""
    except secantus.Unavailable as error:
        return "", f"no MongoDB server: {error}".splitlines()[0]


def native(clusters: dict[str, Cluster], figures: dict[str, float | str], *, is_short: bool) -> None:
    """Our client on each cluster."""
    with contextlib.ExitStack() as stack:
        contestants = {}
        for name, cluster in clusters.items():
            client = stack.enter_context(cluster.client())
            client.wait_for_engines(ENGINES, timeout=30)
            [controller] = cluster.pids("controller")
            contestants[name] = Contestant(client.load_balanced_view(), controller)
        take_turns(contestants, 0.1 if is_short else 0.5, 1 if is_short else 9)
    for name, contestant in contestants.items():
        figures[f"{name}_per_s"] = statistics.median(contestant.rates)
        figures[f"{name}_controller_us"] = statistics.median(contestant.cpu_us)
    for name in ("none", "sqlite", "sqlite_process", "sqlite_disk"):
        figures[f"{name}_of_memory"] = ratio(contestants[name].rates, contestants["memory"].rates)


def beside_theirs(clusters: dict[str, Cluster], uri: str, figures: dict[str, float | str], *, is_short: bool) -> None:
    """An unchanged ipyparallel Client on each cluster, and on one of ipcontroller with each database."""
    with contextlib.ExitStack() as stack:
        contestants = {}
        for name, cluster in clusters.items():
            [controller] = cluster.pids("controller")
            file = cluster.state / "security" / "ipcontroller-client.json"
            contestants[f"{name}_stock"] = stock_contestant(stack, file, controller)
        for name in THEIRS:
            if name == "mongodb" and not uri:
                continue
            options = [f"--{name}", *([f"--MongoDB.connection_args={uri}"] if name == "mongodb" else [])]
            theirs = stock.Cluster("theirs", stack, *options)
            with ipyparallel.Client(str(theirs.client_file), timeout=30) as client:
                theirs.grow(client, ENGINES)
            contestants[f"theirs_{name}"] = stock_contestant(stack, theirs.client_file, theirs.started[0].pid)
        take_turns(contestants, 0.2 if is_short else 1.0, 1 if is_short else 3)
    for name, contestant in contestants.items():
        figures[f"{name}_per_s"] = statistics.median(contestant.rates)
        figures[f"{name}_controller_us"] = statistics.median(contestant.cpu_us)
    for name, ours in THEIRS.items():
        if f"theirs_{name}" in contestants:
            theirs_rate = statistics.median(contestants[f"theirs_{name}"].rates)
            for kind in (ours, f"{ours}_stock"):
                figures[f"{kind}_of_theirs"] = float(figures[f"{kind}_per_s"]) / theirs_rate


def stock_contestant(stack: contextlib.ExitStack, file: Path, controller: int) -> Contestant:
    """Connect an ipyparallel Client."""
    client = stack.enter_context(ipyparallel.Client(str(file), timeout=30))
    client.wait_for_engines(ENGINES, timeout=30)
    return Contestant(client.load_balanced_view(), controller)


def take_turns(contestants: dict[str, Contestant], seconds: float, rounds: int) -> None:
    """Let each run for so long, so many times."""
    for contestant in contestants.values():
        contestant.warm_up(seconds)
    order = list(contestants.values())
    for number in range(rounds):
        first = number % len(order)
        for contestant in order[first:] + order[:first]:
            contestant.turn()


def ratio(values: list[float], others: list[float]) -> float:
    """Return the ratio of the medians."""
    return statistics.median(values) / statistics.median(others)


def cpu(pid: int) -> float:
    """Return the CPU time of a process and its descendants: ipcontroller has its schedulers in processes of their own."""
    return sum(process.cpu for process in processes.tree(pid).values())


def at_rest(pid: int) -> float:
    """Return that when it has not grown for a moment, or does not come to an end."""
    deadline = time.monotonic() + 5.0
    before, now = -1.0, cpu(pid)
    while before != now and time.monotonic() < deadline:
        time.sleep(0.05)
        before, now = now, cpu(pid)
    return now

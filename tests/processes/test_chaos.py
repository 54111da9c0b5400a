"""Many tasks while controller, engines and daemon are killed again and again: none is lost, told twice, or run twice for nothing.

A few hundred tasks in the suite; `make chaos` sets CLUSTERD_CHAOS_TASKS to 10,000.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter

import clusterd
from clusterd.errors import ControlError
from tests.processes.cluster import Cluster
from tests.processes.kill_table.scene import kill

TASKS = int(os.environ.get("CLUSTERD_CHAOS_TASKS", "600"))
DURABLE = os.environ.get("CLUSTERD_CHAOS_DURABLE", "process")
SECONDS = float(os.environ.get("CLUSTERD_CHAOS_SECONDS", "0.5"))
"""Between two deaths."""
ENGINES = 8
PROFILE = f"""\
version: 1
controller:
  launcher: local
  database: sqlite
  durable: {DURABLE}
  start_timeout: 20
  stop_timeout: 3
  restart: {{max_backoff: 0.5, crash_loop: {{failures: 1000, within: 1}}}}
engine_sets:
  engines:
    launcher: local
    n: {ENGINES}
    work_dir: /tmp
    stop_timeout: 2
    restart: {{max_backoff: 0.5, crash_loop: {{failures: 1000, within: 1}}}}
"""


def _make_work():
    # Nested, so that it travels by value: engines cannot import the tests.
    def work(ledger, number, seconds):
        import os  # noqa: PLC0415 - on the engine
        import time  # noqa: PLC0415

        descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, b"%d %d\n" % (number, os.getpid()))
        os.close(descriptor)
        time.sleep(seconds)
        return number

    return work


class Killer(threading.Thread):
    """Kills somebody every few seconds, until told to stop.

    Attributes:
        dead: pids of the engines that it has killed.
        deaths: how many died, by kind.
    """

    def __init__(self, cluster, lot):
        super().__init__(name="killer", daemon=True)
        self._cluster = cluster
        self._lot = lot
        self._is_over = threading.Event()
        self.dead = set()
        self.deaths = Counter()
        self.problem = None

    def run(self):
        try:
            while not self._is_over.wait(self._lot.uniform(0.5, 1.5) * SECONDS):
                self._kill_one()
        except BaseException as error:
            self.problem = error
            raise

    def _kill_one(self):
        # The controller most of all: it is what this is about.
        kind = self._lot.choices(["controller", "engine", "daemon"], [6, 2, 1])[0]
        cluster = self._cluster
        with contextlib.suppress(ControlError, ProcessLookupError, FileNotFoundError):
            if kind == "controller":
                pid = cluster.client.get(cluster.path)["controller"]["pid"]
                if pid is None:
                    return
            elif kind == "engine":
                pid = self._lot.choice([pid for _, pid in cluster.engines().values() if pid])
                self.dead.add(pid)
            else:
                pid = cluster.client.get(cluster.path)["daemon"]["pid"]
            kill(pid)
            self.deaths[kind] += 1
        if kind == "daemon":
            cluster.succeed()

    def stop(self):
        self._is_over.set()
        self.join()
        assert self.problem is None, self.problem


class Chaos(Cluster):
    """A cluster whose daemon may be killed."""

    def succeed(self):
        assert self._daemons[-1].wait(30) == -signal.SIGKILL
        self.serve()


def test_nothing_is_lost_and_nothing_is_done_twice(isolated):
    lot = random.Random(20261122)
    ledger = isolated.root / "ledger"
    told = Counter()
    lock = threading.Lock()

    def tell(number):
        with lock:
            told[number] += 1

    work = _make_work()
    with Chaos(isolated, PROFILE) as cluster:
        cluster.serve()
        cluster.converged()
        with clusterd.Client("test", label="chaos", timeout=20.0) as client:
            client.wait_for_engines(ENGINES, timeout=20)
            view = client.load_balanced_view(retries=100)
            killer = Killer(cluster, lot)
            killer.start()
            futures = {}
            begun = time.monotonic()
            for number in range(TASKS):
                future = view.apply_async(work, str(ledger), number, lot.uniform(0.001, 0.05))
                future.add_done_callback(lambda _, number=number: tell(number))
                futures[number] = future
            # Somebody dies as long as there is work, up to a time; then what is left is done in peace.
            limit = 10 + TASKS * 0.02
            while time.monotonic() - begun < limit and not client.wait(futures.values(), 1.0):
                pass
            killer.stop()
            is_over = client.wait(futures.values(), 60.0)
            waiting = [number for number, future in futures.items() if not future.done()]
            assert is_over, f"{len(waiting)} lost: {waiting[:10]}; {killer.deaths}\n{cluster.log()}"
            failed = {number: future.exception() for number, future in futures.items() if future.exception()}
            assert not failed, failed
            assert all(future.result() == number for number, future in futures.items())
            executions = {}
            for line in ledger.read_text().splitlines():
                number, pid = map(int, line.split())
                executions.setdefault(number, []).append(pid)
            twice = {number: pids for number, pids in executions.items() if len(pids) > 1}
            unexplained = {number: pids for number, pids in twice.items() if not set(pids[:-1]) <= killer.dead}
            print(  # noqa: T201 - the protocol of a long run
                f"\n{TASKS} tasks in {time.monotonic() - begun:.1f} s, killed: {dict(killer.deaths)}, run again: {len(twice)}"
            )
            assert executions.keys() == futures.keys()
            assert not unexplained, f"{unexplained}; {killer.deaths}"
            assert all(count == 1 for count in told.values())
            assert len(told) == TASKS
            assert killer.deaths["controller"]

"""One cell of the table at work: a real cluster, a client with tasks that are counted in a file, a fault, and what is left after it.

Everything is waited for as a state (`tests.waiting.until`, the daemon's long poll), never for a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import clusterd
from clusterd.errors import ControlError, ControllerLost
from tests.processes.cluster import Cluster
from tests.waiting import until

ENGINES = 2
TASKS = 50
PROFILE = f"""\
version: 1
controller:
  {{{{launcher: local, transport: {{transport}}, {{records}}, start_timeout: 20, stop_timeout: 3}}}}
engine_sets:
  engines: {{{{launcher: local, n: {ENGINES}, max: 8, work_dir: /tmp, stop_timeout: 2, drain_timeout: 5}}}}
"""
LIMIT = 30.0


def _make_work():
    # Nested, so that it travels by value: engines cannot import the tests.
    def work(ledger, number, gate=None):
        import os  # noqa: PLC0415 - on the engine
        import time  # noqa: PLC0415

        descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # One write: it is whole or not there, whatever is killed.
        os.write(descriptor, b"%d %d\n" % (number, os.getpid()))
        os.close(descriptor)
        print("task", number, "works", flush=True)  # noqa: T201 - the last output of an engine that dies
        while gate is not None and not os.path.exists(gate):  # noqa: PTH110
            time.sleep(0.002)
        return number, os.getpid()

    return work


work = _make_work()


class Pids(NamedTuple):
    """Who runs: pids by kind, engines by slot."""

    daemon: int
    controller: int
    agent: int
    zygote: int
    engines: dict[int, int]


class Witness(threading.Thread):
    """Reads every status that there is, in a thread of its own, until told to stop.

    Attributes:
        speechless: those in which the cluster was not as wished and no reason was given.
        count: how many were read.
    """

    def __init__(self, scene):
        super().__init__(name="witness", daemon=True)
        self._scene = scene
        self._is_over = threading.Event()
        self.speechless = []
        self.count = 0

    def run(self):
        number = 0
        while not self._is_over.is_set():
            try:
                status = self._scene.client.get(f"{self._scene.path}?wait=change&since={number}&timeout=1", timeout=5)
            except ControlError:
                # There is no daemon just now, or it is stopped.
                self._is_over.wait(0.02)
                continue
            number = status["seq"]
            self.count += 1
            units = [status["controller"], *status["engine_sets"].values()]
            if not status["is_converged"] and not any(unit["reason"] for unit in units):
                self.speechless.append(status)

    def stop(self):
        self._is_over.set()
        self.join()


class Scene(Cluster):
    """The cluster of one cell."""

    def __init__(self, places, transport="auto", records="database: memory"):
        super().__init__(places, PROFILE.format(transport=transport, records=records))
        self.places = places
        self.markers = places.root / "armed"
        self.ledger = places.root / "ledger"
        self.gate = places.root / "gate"
        self.client_ = None
        # By number of the task: its future, and how often it was told that it had ended.
        self.futures = {}
        self.told = Counter()
        self._lock = threading.Lock()
        self.witness = Witness(self)
        # Who ran before anybody was hit.
        self.before = None
        # What was wished for and acknowledged.
        self.acknowledged = None

    def __exit__(self, *exception):
        try:
            if self.witness.is_alive():
                self.witness.stop()
            self.gate.touch()
            if self.client_ is not None:
                self.client_.close()
        finally:
            for daemon in self._daemons:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(daemon.pid, signal.SIGCONT)
            self._stop()
            super().__exit__(*exception)

    def _stop(self):
        """Without clusterctl, whose start would cost as much as the rest; what fails here is done by the base class."""
        running = [daemon for daemon in self._daemons if daemon.poll() is None]
        with contextlib.suppress(ControlError):
            self.client.post(f"{self.path}/stop", {"timeout": 2.0, "daemon": True})
            for daemon in running:
                daemon.wait(LIMIT)

    # --- the fault ---

    def begin(self, fault="", **environment):
        """Start the cluster with a fault that is not armed yet; wait until it is converged."""
        self.serve(**self.faulty(fault), **environment)
        self.converged()

    def faulty(self, fault):
        """The environment in which processes pass a fault point."""
        return {"CLUSTERD_FAULT": f"{fault}=kill", "CLUSTERD_FAULT_ONCE": str(self.markers)} if fault else {}

    def arm(self):
        self.markers.mkdir()

    def await_fault(self, name):
        until(
            (self.markers / name).exists,
            f"the fault point {name} was not passed",
            limit=LIMIT,
            about=lambda: f"{self.state_of_tasks()}\n{self.log()}",
        )

    def scale(self, count):
        """Ask for engines; whether that was acknowledged. A daemon that is killed by it gives no answer."""
        try:
            self.client.put(f"{self.path}/sets/engines", {"n": count})
        except ControlError:
            return False
        self.acknowledged = count
        return True

    def change_keys(self):
        """Have the keys changed; whoever is killed by it gives no answer."""
        with contextlib.suppress(ControlError, ControllerLost):
            self.client.post(f"{self.path}/rotate-key", {"grace": LIMIT})

    def keys(self):
        """(client key, engine key) of the secrets file, and of the connection files."""
        security = self.state / "security"
        kept = json.loads((security / "controller-secrets.json").read_bytes())
        files = [json.loads((security / f"ipcontroller-{side}.json").read_bytes()) for side in ("client", "engine")]
        return (kept["client_key"], kept["engine_key"]), tuple(each["clusterd"]["key"] for each in files)

    def succeed(self):
        """Start the next daemon; the last one must have been killed."""
        assert self._daemons[-1].wait(LIMIT) == -signal.SIGKILL
        self.serve()

    # --- tasks ---

    def connect(self):
        self.witness.start()
        self.client_ = clusterd.Client(self.name, label="table", timeout=20.0)
        return self.client_

    def submit(self, numbers, *, is_held=False, retries=0, **flags):
        """Submit tasks that write to the ledger; those that are held end when the gate is opened."""
        view = self.client_.load_balanced_view(retries=retries)
        with view.temp_flags(**flags):
            for number in numbers:
                gate = str(self.gate) if is_held else None
                future = view.apply_async(work, str(self.ledger), number, gate)
                future.add_done_callback(lambda _, number=number: self._tell(number))
                self.futures[number] = future

    def _tell(self, number):
        with self._lock:
            self.told[number] += 1

    def has_offered(self):
        """Whether the present controller has read what the client offered it again."""
        if self.client.get(self.path)["controller"]["pid"] in (None, self.before.controller):
            return False
        tasks = self.client_._connection.tasks
        if not tasks.pending or len(tasks.in_flight) != len(tasks.pending):
            return False
        # Requests are read before tasks: the answer to the second comes after what was sent before the first is read.
        return all(self.client_.queue_status() for _ in range(2))

    def open_gate(self):
        self.gate.touch()

    def executions(self):
        """Number of the task -> pids that began it, in order."""
        found = {}
        if self.ledger.exists():
            for line in self.ledger.read_text().splitlines():
                number, pid = line.split()
                found.setdefault(int(number), []).append(int(pid))
        return found

    def begun(self, *numbers):
        """Wait until these tasks run."""
        until(lambda: set(numbers) <= set(self.executions()), f"tasks {numbers} begin", about=self.log)

    def finish(self):
        """Wait for all tasks; (values by number, errors by number)."""
        is_over = self.client_.wait(self.futures.values(), LIMIT)
        assert is_over, f"{self.state_of_tasks()}\n{self.log()}"
        values, errors = {}, {}
        for number, future in self.futures.items():
            error = future.exception()
            if error is None:
                values[number] = future.result()
            else:
                errors[number] = error
        return values, errors

    def state_of_tasks(self):
        waiting = sorted(number for number, future in self.futures.items() if not future.done())
        begun = self.executions()
        return f"tasks without an end: {waiting}; begun of these: {sorted(set(waiting) & set(begun))}"

    # --- who runs ---

    def pids(self):
        status = self.client.get(self.path)
        [launch] = status["engine_sets"]["engines"]["launches"]
        return Pids(
            status["daemon"]["pid"],
            status["controller"]["pid"],
            launch["pid"],
            zygote_of(launch["pid"]),
            {slot: pid for slot, (_, pid) in self.engines().items()},
        )

    def engine_list(self):
        return self.client.get(f"{self.path}/engines")["engines"]

    def settled(self, desired):
        """Wait until the cluster is what is wished, by its own word and by looking; return the pids.

        Converged may be said a moment before a death is known: so the pids that are told have to be alive, too.
        """

        def look():
            status = self.client.get(f"{self.path}?wait=converged&timeout=5", timeout=15)
            if not status["is_converged"]:
                return None
            found = self.engines()
            told = status["engine_sets"]["engines"]
            is_true = (
                told["desired"] == told["observed"] == len(found)
                and len(found) in desired
                and all(pid is not None and is_alive(pid, "engine") for _, pid in found.values())
                and is_alive(status["controller"]["pid"], "controller")
                and all(is_alive(each["pid"], "agent") for each in status["engine_sets"]["engines"]["launches"])
            )
            return self.pids() if is_true else None

        return until(look, "the status tells the truth and is as wished", about=self._told)

    def _told(self):
        return f"{self.client.get(self.path)}\n{self.engines()}\n{self.log()}"


def zygote_of(agent):
    for entry in Path(f"/proc/{agent}/task").iterdir():
        for child in (entry / "children").read_text().split():
            if is_alive(int(child), "zygote"):
                return int(child)
    return 0


def is_alive(pid, kind):
    """Whether the process lives and is of ours."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return f"clusterd {kind}" in title or (kind == "daemon" and "clusterd serve" in title)


def kill(pid, number=signal.SIGKILL):
    """Send a signal; of a SIGKILL the end is waited for."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, number)
        if number == signal.SIGKILL:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            assert poll.poll(10_000), f"process {pid} does not end"
    finally:
        os.close(descriptor)

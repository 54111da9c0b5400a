"""Provocations with an unchanged ipyparallel.Client, and an ipengine: what its tasks come to when the controller is killed.

A stock client acknowledges nothing and cannot be addressed before it speaks. So here it is seen, too, how it is told: any other client gets
its results from the store at once, and it gets its replies when it sends work.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter

import ipyparallel
import zmq

from tests.processes.kill_table.provocations import another, prepared, provocation
from tests.processes.kill_table.scene import LIMIT, TASKS, kill, work
from tests.waiting import until

# Sent by value: engines cannot import the tests.
work.__module__ = "__main__"


class StockClient:
    """An ipyparallel.Client with a context of its own, and what it has asked for."""

    def __init__(self, scene):
        self._scene = scene
        self._context = zmq.Context()
        file = scene.state / "security" / "ipcontroller-client.json"
        self.client = ipyparallel.Client(str(file), timeout=20, context=self._context)
        # By number.
        self.results = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self._context.destroy(linger=0)

    def submit(self, view, numbers, *, is_held=False):
        gate = str(self._scene.gate) if is_held else None
        for number in numbers:
            self.results[number] = view.apply_async(work, str(self._scene.ledger), number, gate)

    def has_waiting(self, count):
        """Whether so many tasks are in the store: answers wait for commits."""
        status = self.client.queue_status()
        return status.pop("unassigned") + sum(load["queue"] + load["tasks"] for load in status.values()) == count

    def is_told_of(self, number):
        """Whether the store has a result, and the right one, for whoever asks."""
        (msg_id,) = self._ids[number]
        return self.client.get_result(msg_id, owner=False).get(LIMIT)[0] == number

    def asks_for(self, other):
        self._ids = {number: result.msg_ids for number, result in other.results.items()}
        return self

    def speak(self):
        """Send work."""
        assert self.client[0].apply_async(os.getpid).get(LIMIT)


@contextlib.contextmanager
def ipengine(scene):
    """A stock engine, joined."""
    file = scene.state / "security" / "ipcontroller-engine.json"
    profile = scene.places.root / "ipengine"
    profile.mkdir(mode=0o700)
    argv = [sys.executable, "-m", "ipyparallel.engine", f"--file={file}", f"--profile-dir={profile}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": scene.places.root}
    with subprocess.Popen(argv, **quiet) as process:
        try:
            until(lambda: len(scene.client_.ids) == 3, "the ipengine joins", about=scene.log)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(LIMIT)
    until(lambda: len(scene.client_.ids) == 2, "it has left", about=scene.log)


def executed_once(scene, numbers):
    begun = scene.executions()
    assert {number: len(begun[number]) for number in numbers} == Counter(numbers), f"{begun}\n{scene.log()}"


@provocation("kill the controller with a stock client's work")
def _kill_the_controller_with_stock_work(scene, row):
    prepared(scene, row)
    with StockClient(scene) as stock, ipengine(scene):
        until(lambda: len(stock.client.ids) == 3, "it knows the ipengine", about=scene.log)
        views = [stock.client[each] for each in stock.client.ids]
        for number, view in enumerate(views):
            stock.submit(view, [number], is_held=True)
        scene.begun(0, 1, 2)
        stock.submit(stock.client.load_balanced_view(), range(3, 10))
        for number, view in enumerate(views, 10):
            stock.submit(view, [number])
        everybody = stock.client.broadcast_view(is_coalescing=True).apply_async(work, str(scene.ledger), 13)
        until(lambda: stock.has_waiting(16), "all are in the store", about=scene.log)
        kill(scene.before.controller)
        scene.open_gate()
        another(scene, "controller")
        scene.begun(*range(14))
        with StockClient(scene) as fresh:
            assert all(map(fresh.asks_for(stock).is_told_of, stock.results))
        # It has sent nothing, so nobody knows where it is.
        assert not any(result.ready() for result in stock.results.values())
        stock.speak()
        assert all(result.get(LIMIT)[0] == number for number, result in stock.results.items())
        assert [number for number, _ in everybody.get(LIMIT)] == [13, 13, 13]
        executed_once(scene, range(13))
        assert len(set(scene.executions().pop(13))) == 3
    scene.ledger.unlink()
    scene.submit(range(10))


@provocation("stock load")
def _stock_load(scene, row):
    prepared(scene, row)
    with StockClient(scene) as stock:
        view = stock.client.load_balanced_view()
        stock.submit(view, [0, 1], is_held=True)
        scene.begun(0, 1)
        stock.submit(view, range(2, TASKS))
        until(lambda: stock.has_waiting(TASKS), "all are in the store", about=scene.log)
        scene.arm()
        scene.open_gate()
        scene.await_fault(row.moment)
        another(scene, "controller")
        with StockClient(scene) as fresh:
            # All are there before it speaks: it is told of them in one go, and then of what it has asked for.
            assert all(map(fresh.asks_for(stock).is_told_of, stock.results))
        stock.speak()
        stock.speak()
        told = {number: result.get(0)[0] for number, result in stock.results.items() if result.ready()}
        assert all(number == value for number, value in told.items())
        # Those of one commit were about to be said, and are not said again: with short tasks they may be many.
        assert told, scene.log()
        executed_once(scene, range(TASKS))
        stock.client.outstanding.clear()
    scene.ledger.unlink()
    scene.submit(range(10))

"""`become_dask`, with a program in the place of dask's scheduler."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from clusterd.controller.compat import dask, dask_scheduler
from tests.unit.controller.stock import StockClient, StockWorld

LISTENS = """
import os, sys, time
words = sys.argv[1:]
open(words[words.index("--scheduler-file") + 1], "w").write('{"address": "tcp://127.0.0.1:7"}')
time.sleep(60)
"""


@pytest.fixture
def world(tmp_path):
    world = StockWorld(tmp_path)
    yield world
    scheduler = world.loop.front.clients._dask
    process = scheduler._process
    scheduler.close()
    for ended in (process, *(process for process, _ in scheduler._ending)):
        if ended is not None:
            ended.wait(20)


@pytest.fixture
def client(world):
    return StockClient(world)


@pytest.fixture
def runs(monkeypatch):
    """Have a program run instead."""

    def use(text):
        def begin(words, **options):
            return popen([sys.executable, "-c", text, *words[3:]], **options)

        monkeypatch.setattr(dask.subprocess, "Popen", begin)

    popen = subprocess.Popen
    return use


def heard(world, client):
    """The next answer: the program takes its own time, the controller's is what a test says."""
    end = time.monotonic() + 20
    while not (answers := client.heard("registration")):
        assert time.monotonic() < end
        scheduler = world.loop.front.clients._dask
        if scheduler._process is not None and scheduler._process.poll() is None:
            time.sleep(0.01)
        world.turn(dask.LOOK_SECONDS)
    return answers


def test_who_asks_is_answered_when_it_listens_and_all_share_one(world, client, runs):
    runs(LISTENS)
    first = client.send("registration", "become_dask_request", {"scheduler_args": {}})
    second = client.send("registration", "become_dask_request", {"scheduler_args": None})
    answers = heard(world, client)
    assert [answer.parent for answer in answers] == [first, second]
    expected = {"status": "ok", "ip": "127.0.0.1", "address": "tcp://127.0.0.1:7", "port": 7}
    assert [answer.content for answer in answers] == [expected] * 2
    assert client.ask("become_dask_request").content == expected
    process = world.loop.front.clients._dask._process
    assert client.ask("stop_distributed_request").content == {"status": "ok"}
    process.wait(20)
    assert client.ask("stop_distributed_request").content == {"status": "ok"}


@pytest.mark.parametrize(("status", "text"), [(3, "status 3"), (dask_scheduler.MISSING, "pip install distributed")])
def test_one_that_ends_is_an_error(world, client, runs, status, text):
    runs(f"import sys; sys.exit({status})")
    client.send("registration", "become_dask_request")
    (answer,) = heard(world, client)
    assert (answer.kind, answer.content["ename"]) == ("hub_error", "RuntimeError")
    assert text in answer.content["evalue"]


def test_one_that_never_listens_is_ended(world, client, runs, monkeypatch):
    monkeypatch.setattr(dask, "START_SECONDS", 0.0)
    runs("import time; time.sleep(60)")
    client.send("registration", "become_dask_request")
    (answer,) = heard(world, client)
    assert "did not listen" in answer.content["evalue"]


def test_there_is_none_beside_curve_and_none_with_arguments(world, client):
    world.loop.front.clients._dask._is_curve = True
    assert client.ask("become_dask_request").content["ename"] == "PermissionError"
    world.loop.front.clients._dask._is_curve = False
    assert client.ask("become_dask_request", {"scheduler_args": {"port": 1}}).content["ename"] == "ValueError"


def test_the_program_does_nothing_for_a_controller_that_has_died():
    done = subprocess.run([sys.executable, "-m", dask_scheduler.__name__, "1"], timeout=60, check=False)
    assert done.returncode == 0

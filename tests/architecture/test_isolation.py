"""The guard of the tests is itself tested: each kind of leftover is found, and a clean test is not blamed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import cells, leftovers


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(leftovers, "PATIENCE", 0.2)


def test_nothing_left_is_nothing_found():
    before = leftovers.look()
    with open(os.devnull, "rb"), subprocess.Popen(["true"]) as process:  # noqa: PTH123
        process.wait()
    assert leftovers.find(before, strict=True) == []


def test_a_thread_is_found(impatient):
    before = leftovers.look()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten")
    thread.start()
    found = leftovers.find(before, strict=False)
    end.set()
    thread.join()
    assert found == ["thread forgotten"]


def test_a_thread_that_is_ending_is_waited_for():
    before = leftovers.look()
    thread = threading.Thread(target=threading.Event().wait, args=(0.05,))
    thread.start()
    assert leftovers.find(before, strict=False) == []


def test_a_running_child_is_found_and_killed(impatient):
    before = leftovers.look()
    process = subprocess.Popen(["sleep", "60"])
    [line] = leftovers.find(before, strict=False)
    assert line == f"process {process.pid} still runs: sleep 60"
    assert process.wait() is not None


def test_a_child_that_nobody_waited_for_is_found():
    before = leftovers.look()
    process = subprocess.Popen(["true"])
    [line] = leftovers.find(before, strict=False)
    assert line.startswith(f"process {process.pid} ended but was not waited for")
    process.wait()


def test_a_process_that_left_the_tree_and_hid_its_environment_is_found(impatient):
    before = leftovers.look()
    program = "import os, time\nif os.fork() == 0:\n os.setsid()\n print(os.getpid(), flush=True)\n os.close(1)\n time.sleep(60)"
    # run() ends when the first process has ended; its child lives on with init as its parent.
    pid = int(subprocess.run([sys.executable, "-c", program], env={}, stdout=subprocess.PIPE, check=True).stdout)
    [line] = leftovers.find(before, strict=True)
    assert line.startswith(f"process {pid} still runs")
    assert leftovers._gone(pid, 0.0)


def test_a_descriptor_is_found():
    before = leftovers.look()
    descriptor = os.open(os.devnull, os.O_RDONLY)
    found = leftovers.find(before, strict=True)
    os.close(descriptor)
    assert found == [f"descriptor {descriptor} -> /dev/null"]


def test_each_test_has_directories_of_its_own(isolated):
    for name in (
        "HOME",
        "CLUSTERD_RUNTIME_DIR",
        "CLUSTERD_STATE_DIR",
        "CLUSTERD_CONFIG_DIR",
        "XDG_RUNTIME_DIR",
        "TMPDIR",
    ):
        assert Path(os.environ[name]).parent == isolated.root
    # The longest name that the product puts into a runtime directory, with a profile's name of 64 letters.
    assert len(str(isolated.runtime / ("p" * 64) / "controller.sock")) < 107


def test_the_cells_of_a_table_are_counted(monkeypatch):
    monkeypatch.setattr(cells, "_declared", {})
    monkeypatch.setattr(cells, "_covered", {})
    assert cells.summary() == []
    assert cells.declare("kill -9", [("engine", "running"), ("daemon", "idle")]) == [
        ("engine", "running"),
        ("daemon", "idle"),
    ]
    cells.declare("kill -9", [("daemon", "idle")])
    cells.record_cell("kill -9", ("daemon", "idle"))
    cells.record_cell("kill -9", ("daemon", "idle"))
    assert cells.summary() == ["fault points: 1 of 2 cells covered"]
    with pytest.raises(KeyError, match="no cell"):
        cells.record_cell("kill -9", ("daemon", "iddle"))
    cells.declare("torn journal", ["half a record"])
    assert cells.summary() == ["fault points: 1 of 3 cells covered", "  kill -9: 1 of 2", "  torn journal: 0 of 1"]

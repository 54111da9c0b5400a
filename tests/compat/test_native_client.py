"""Our own client on ipengine: all kinds of tasks, as errands of a stock engine in which nothing of clusterd is needed."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import time

import numpy as np
import pytest

import clusterd
from clusterd.errors import EngineLost, TaskError, TaskNotSendable, TaskTimeout
from tests.compat.conftest import Program
from tests.compat.test_client8 import PYTHON as PYTHON8
from tests.waiting import until

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def native(controller):
    with clusterd.Client(controller.profile) as client:
        yield client


@pytest.fixture
def stock(native, real_engine):
    """Two stock engines, and what they run as."""
    programs = [real_engine("stock") for _ in range(2)]
    native.wait_for_engines(2, timeout=30)
    return programs


def outer(x):
    return inner(x)


def inner(x):
    return 1 / x


def test_calls_maps_names_and_cells(native, stock):
    pids = native[:].apply_sync(os.getpid)
    assert sorted(pids) == sorted(program.process.pid for program in stock)
    balanced = native.load_balanced_view()
    offset = 5
    assert balanced.apply_sync(lambda x, *, y: x + y + offset, 1, y=2) == 8
    assert balanced.map_sync(math.sqrt, range(300)) == [math.sqrt(x) for x in range(300)]
    view = native[:]
    view["x"] = 3
    view.scatter("part", range(10), block=True)
    assert view.gather("part", block=True) == list(range(10))
    # Names that a function does not bring along are those of the engine; what it declares global stays there.
    assert view.apply_sync(lambda: x * len(part)) == [15, 15]  # noqa: F821

    def count():
        global counted  # noqa: PLW0603
        counted = globals().get("counted", 0) + 1
        return counted

    assert [view.apply_sync(count) for _ in range(2)] == [[1, 1], [2, 2]]
    assert view.pull("counted", block=True) == [2, 2]
    # A function that was pushed sees the names of its engine, too.
    view["times_x"] = lambda value: value * x  # noqa: F821
    assert view.apply_sync(lambda: times_x(7)) == [21, 21]  # noqa: F821
    cell = native[0].execute("print('to stdout'); import sys; print('to stderr', file=sys.stderr); x ** 2", block=True)
    assert (cell.stdout, cell.stderr, cell.text) == ("to stdout\n", "to stderr\n", "9")
    assert native[0].execute("x;", block=True).text is None
    shown = native[0].execute("from IPython.display import display, HTML; display(HTML('<b>bold</b>'))", block=True)
    assert shown.display[0]["data"]["text/html"] == "<b>bold</b>"
    assert "script" not in str(native[0].execute("%cd -q /tmp\n%pwd", block=True).text)
    view.clear(block=True)
    with pytest.raises(NameError, match="'x'"):
        native[0]["x"]
    assert view.apply_sync(os.getpid) == pids


def test_arrays_travel_raw_and_can_be_written_to(native, stock):
    array = np.arange(1_000_000, dtype=np.float64).reshape(1000, 1000)

    def double(values, small):
        values *= 2
        return values, small, bytes(200_000)

    values, small, blob = native[1].apply_sync(double, array, np.arange(3))
    assert (values == array * 2).all()
    assert (small.tolist(), blob) == ([0, 1, 2], bytes(200_000))
    many = [np.full(5000, index) for index in range(120)]
    assert native[0].apply_sync(lambda arrays: [int(item[0]) for item in arrays], many) == list(range(120))
    native[:]["table"] = array
    assert (native[1]["table"] == array).all()
    held = np.arange(200_000)
    assert native[0].apply_sync(lambda: int(held.sum())) == int(held.sum())


def test_failures_are_those_of_the_engine(native, stock):
    balanced = native.load_balanced_view()
    with pytest.raises(ZeroDivisionError) as caught:
        balanced.apply_sync(outer, 0)
    text = str(caught.value.__cause__)
    assert "return inner(x)" in text
    assert "return 1 / x" in text
    assert "<clusterd>" not in text
    with pytest.raises(ZeroDivisionError, match="division") as caught:
        native[0].map_sync(lambda x: 1 / x, [1, 2, 0, 4])
    assert re.search(r"stock/\d, item \d of the chunk", str(caught.value.__cause__))
    with pytest.raises(ZeroDivisionError):
        native[0].execute("1 / 0", block=True)
    with pytest.raises(SyntaxError):
        native[0].execute("a b c", block=True)
    with pytest.raises(TaskError, match=r"sys\.exit"):
        balanced.apply_sync(exit, 3)
    with pytest.raises(TaskNotSendable, match="result cannot be pickled"):
        balanced.apply_sync(lambda: (value for value in [1]))
    with pytest.raises(ModuleNotFoundError):
        native[0].execute("import module_that_is_not_there", block=True)
    assert balanced.apply_sync(abs, -1) == 1


def test_interrupts_timeouts_and_deaths(native, stock, isolated):
    started = isolated.root / "started"

    def linger():
        started.touch()
        time.sleep(60)

    running = native[0].apply_async(linger)
    until(started.exists, "the task runs")
    native[0].interrupt()
    with pytest.raises(KeyboardInterrupt):
        running.result(20)
    with pytest.raises(TaskTimeout):
        native.load_balanced_view(timeout=0.3).apply_sync(time.sleep, 60)
    assert native[0].apply_sync(abs, -2) == 2
    begun = time.monotonic()
    with pytest.raises(EngineLost, match="its process ended"):
        native[1].apply_sync(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert time.monotonic() - begun < 5
    until(lambda: native.ids == [0], "one engine is left")
    # With a retry it is done by the other one.
    replacement = native[0].apply_sync(os.getpid)
    assert replacement == native.load_balanced_view(retries=1).apply_sync(os.getpid)
    assert native.stop(0) == [0]
    until(lambda: native.ids == [], "none is left")


def test_a_frozen_engine_is_suspect_and_goes_on(native, stock):
    frozen = native[0].apply_sync(os.getpid)
    running = native[0].apply_async(time.sleep, 0.5)
    os.kill(frozen, signal.SIGSTOP)
    try:
        until(lambda: states(native)[0] == "suspect", "it is suspect")
        assert native.load_balanced_view().map_sync(abs, range(-5, 0)) == [5, 4, 3, 2, 1]
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert running.result(20) is None
    until(lambda: states(native)[0] in {"idle", "busy"}, "it is well again")
    assert native[0].apply_sync(os.getpid) == frozen


def states(native):
    return {info.id: info.state for info in native._connection.engines.infos()}


def test_sets_of_ours_and_stock_engines(native, real_engine):
    kinds = ["stock", "ours", "stock", "ours"]
    programs = []
    for count, kind in enumerate(kinds, 1):
        programs.append(real_engine(kind))
        native.wait_for_engines(count, timeout=30)
    assert native.ids == [0, 1, 2, 3]
    assert native[:].apply_sync(os.getpid) == [program.process.pid for program in programs]
    native[:]["n"] = 4
    assert native[:].apply_sync(lambda: n + 1) == [5] * 4  # noqa: F821
    squares = native.load_balanced_view().map_sync(lambda x: x * x, range(1000))
    assert squares == [x * x for x in range(1000)]
    native.abort()
    native[:].clear(block=True)


def test_an_engine_of_version_8_without_cloudpickle(native, real_engine):
    assert PYTHON8.exists(), "`make test` makes .venv-compat8"
    real_engine("stock", python=PYTHON8)
    native.wait_for_engines(1, timeout=30)
    assert native[0].apply_sync(math.sqrt, 4.0) == 2.0
    native[0]["x"] = [1, 2]
    assert native[0].execute("len(x)", block=True).text == "2"
    with pytest.raises(TaskNotSendable, match="has no cloudpickle"):
        native[0].apply_sync(lambda: 1)


def test_engines_go_on_with_the_next_controller(start, isolated):
    """ipengine does not register again: it beats, and that is enough."""
    first = start("--reuse")
    log = isolated.root / "engine.log"
    words = ["-m", "ipyparallel.engine", f"--file={first.engine_file}", f"--profile-dir={first.profile}"]
    engine = Program(log, sys.executable, *words)
    try:
        with clusterd.Client(first.profile) as native:
            native.wait_for_engines(1, timeout=30)
            view = native[0]
            view["x"] = 7
            secrets = first.profile / "security" / "controller-secrets.json"
            until(lambda: '"stock_engines":{"' in secrets.read_text(), "it is written down")
            first.process.kill()
            first.process.wait()
            start("--reuse")
            # What comes before the engine's first beat waits for it.
            assert view.pull("x", block=True) == 7
            assert native.ids == [0]
    finally:
        engine.end()

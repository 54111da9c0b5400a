"""kill -9 of each process at each moment, with tasks under way: what `rows` promises, held against a real cluster."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from clusterd.errors import EngineLost
from clusterd.system import fault
from tests import cells
from tests.processes.kill_table import stock
from tests.processes.kill_table.provocations import HOW
from tests.processes.kill_table.rows import ROWS, WITHOUT_ROW
from tests.processes.kill_table.scene import Scene
from tests.rigs import mongodb
from tests.waiting import until

TABLE = "kill -9"
assert stock.__doc__  # it adds provocations
cells.declare(TABLE, [row.cell for row in ROWS])

# engine 3 (engines/1) was lost: <cause>; its last output: <lines>
LOST = re.compile(
    r"engine \d+ \(engines/\d\) was lost: .*(SIGKILL|ended).*; its last output: .*task \d+ works", re.DOTALL
)


def names(row):
    return " / ".join(row.cell)


@pytest.fixture(scope="module")
def mongodb_server():
    with mongodb.server() as uri:
        yield uri


@pytest.mark.parametrize("row", [row for row in ROWS if row.database == "sqlite"], ids=names)
def test_the_promise_holds(row, isolated):
    records = "database: memory" if row.durable == "off" else f"database: sqlite, durable: {row.durable}"
    hold(row, isolated, records)


@pytest.mark.parametrize("row", [row for row in ROWS if row.database == "mongodb"], ids=names)
def test_the_promise_holds_on_mongodb(row, isolated, mongodb_server):
    with mongodb.database(mongodb_server) as name:
        where = f"mongodb: {{uri: {mongodb_server!r}, database: {name}}}"
        hold(row, isolated, f"database: mongodb, {where}, durable: {row.durable}")


def hold(row, isolated, records):
    with Scene(isolated, row.transport, records) as scene:
        HOW[row.how](scene, row)
        if row.is_point:
            assert (scene.markers / row.moment).exists()
        values, errors = scene.finish()
        after = scene.settled(row.engines)
        if scene.acknowledged is not None:
            assert len(after.engines) == scene.acknowledged
        tasks_are_as_promised(row, scene, values, errors)
        processes_are_as_promised(row, scene, after)
        nothing_is_left_to_do(scene)
        scene.witness.stop()
        assert scene.witness.count
        assert scene.witness.speechless == []
        every_engine_works(scene, after)
        no_file_of_the_dead_is_left(scene, after)
    assert not scene.runtime.exists()
    cells.record_cell(TABLE, row.cell)


def test_every_fault_point_has_a_row():
    moments = {row.moment for row in ROWS}
    without = set(fault.POINTS) - moments
    assert without == set(WITHOUT_ROW), "a point needs a row, or a reason why it has none"


def test_every_row_is_a_cell_of_its_own():
    assert len({row.cell for row in ROWS}) == len(ROWS)
    assert {row.how for row in ROWS} == set(HOW)
    for row in ROWS:
        assert row.is_point is ("." in row.moment)
        if row.is_point:
            assert fault.POINTS[row.moment].process in (row.process, "any")


def tasks_are_as_promised(row, scene, values, errors):
    executions = scene.executions()
    assert all(number == value[0] for number, value in values.items())
    assert all(count == 1 for count in scene.told.values())
    assert row.lost[0] <= len(errors) <= row.lost[1], errors
    for error in errors.values():
        assert isinstance(error, EngineLost)
        assert LOST.search(str(error)), str(error)
    # Whatever has a result has run, and the result is of a run that there was.
    assert all(value[1] in executions[number] for number, value in values.items())
    assert len(errors.keys() - executions.keys()) <= row.unrun
    dead = set(scene.before.engines.values()) - set(scene.pids().engines.values())
    twice = {number: pids for number, pids in executions.items() if len(pids) > 1}
    assert len(twice) <= row.again, twice
    for number, pids in twice.items():
        assert len(pids) == 2
        assert pids[0] in dead
        assert scene.futures[number].attempt >= 1


def processes_are_as_promised(row, scene, after):
    before = scene.before
    replaced = {
        kind for kind in ("daemon", "controller", "agent", "zygote") if getattr(before, kind) != getattr(after, kind)
    }
    others = [slot for slot, pid in before.engines.items() if after.engines[slot] != pid]
    replaced |= {0: set(), 1: {"engine"}, 2: {"both engines"}}[len(others)]
    assert replaced == row.replaced


def nothing_is_left_to_do(scene):
    def is_idle():
        status = scene.client_.queue_status()
        held = [each[word] for each in status["engines"].values() for word in ("queued", "running", "prefetched")]
        return status["unassigned"] == status["waiting"] == sum(held) == 0

    until(is_idle, "no task is left", about=scene.client_.queue_status)


def no_file_of_the_dead_is_left(scene, after):
    units = scene.runtime / "units"
    # What a daemon calls off must stay called off: that mark is nobody's.
    found = [path.name for path in units.iterdir() if b'"called off"' not in path.read_bytes()[:64]]
    kinds = Counter(f"{name.partition('-')[0]}{Path(name).suffix}" for name in found)
    engines = len(after.engines)
    assert kinds == {"controller.json": 1, "agent.json": 1, "engine.json": engines, "engine.page": engines}, found


def every_engine_works(scene, after):
    scene.client_.wait_for_engines(len(after.engines), timeout=20)
    assert sorted(scene.client_[:].apply_sync(os.getpid)) == sorted(after.engines.values())

"""kill -9 of an engine, a zygote or an agent at each of their fault points: the task has its result, the set has its engines.

Each cell arms one point (once over all processes), gives a task that may be retried, and asks afterwards: did it end well, are
there exactly the wanted engines, none lost, none twice, and is what the killed process left cleaned up?
"""

from __future__ import annotations

import pytest

from tests import cells
from tests.processes.agent_bench import Bench

TABLE = "kill -9 engine, zygote, agent"
# Point -> how often the task may have run.
ENGINE = {
    "engine.task.before_run": {1},
    "engine.task.after_run": {2},
    "engine.result.before_send": {2},
    # Sent is not received: the kernel may drop what a dying process wrote, or deliver it.
    "engine.result.after_send": {1, 2},
}
ZYGOTE = ("zygote.fork.before_report",)
AGENT = ("agent.engine_exited.before_report",)
CELLS = cells.declare(TABLE, [*ENGINE, *ZYGOTE, *AGENT])


@pytest.fixture
def bench(isolated):
    made = Bench(isolated)
    (isolated.root / "once").mkdir()
    yield made
    made.close()


def armed(bench, point):
    return {"CLUSTERD_FAULT": f"{point}=kill", "CLUSTERD_FAULT_ONCE": str(bench.places.root / "once")}


def has_fired(bench, point):
    return (bench.places.root / "once" / point).exists()


@pytest.mark.parametrize("point", ENGINE)
def test_a_task_whose_engine_is_killed_has_its_result(bench, point):
    bench.controller()
    bench.agent(environment=armed(bench, point))
    bench.connect()
    bench.has(2)
    task = bench.submit("with open('runs', 'a') as file: file.write('x')\n'done'", retries=2)
    assert bench.result(task) == "'done'"
    bench.until(lambda: has_fired(bench, point))
    bench.until(lambda: bench.gone)
    assert len((bench.places.home / "runs").read_text()) in ENGINE[point]
    everything_is_as_wanted(bench)
    cells.record_cell(TABLE, point)


@pytest.mark.parametrize("point", ENGINE)
def test_without_retries_it_ends_in_an_error_or_its_result_and_never_in_silence(bench, point):
    bench.controller()
    bench.agent(environment=armed(bench, point))
    bench.connect()
    bench.has(2)
    result = bench.result(bench.submit("'done'"))
    assert result == "'done'" if isinstance(result, str) else "SIGKILL" in result.message
    bench.until(lambda: bench.gone)
    everything_is_as_wanted(bench)


@pytest.mark.parametrize("point", ZYGOTE)
def test_an_engine_that_a_killed_zygote_did_not_report_is_found(bench, point):
    bench.controller()
    bench.agent(environment=armed(bench, point))
    bench.connect()
    bench.has(2)
    assert has_fired(bench, point)
    assert bench.run("1 + 1") == "2"
    everything_is_as_wanted(bench)
    cells.record_cell(TABLE, point)


@pytest.mark.parametrize("point", AGENT)
def test_an_engine_whose_end_a_killed_agent_did_not_report_is_replaced_by_the_next(bench, point):
    bench.controller()
    agent = bench.agent(environment=armed(bench, point))
    bench.connect()
    victim = bench.has(2)[0]
    task = bench.submit("import os; os._exit(1)", victim.id)
    assert agent.wait(30) == -9
    bench.agent()
    # The task fails when the new agent says that the engine is not there.
    assert bench.result(task).code == "engine_lost"
    bench.until(lambda: victim.id not in bench.engines)
    everything_is_as_wanted(bench)
    cells.record_cell(TABLE, point)


def everything_is_as_wanted(bench):
    engines = bench.has(2)
    assert set(engines) == {0, 1}
    alive = {uuid: who.pid for uuid, who in bench.identities().items()}
    assert alive == {info.uuid.hex(): info.pid for info in engines.values()}
    files = {file.name for file in (bench.places.runtime / "units").glob("engine-*")}
    assert files == {f"engine-{uuid}.{suffix}" for uuid in alive for suffix in ("json", "page")}

"""What operators are told of tasks by a controller: page by page, one in full, and what they have it forget."""

from __future__ import annotations

import pytest

from clusterd.core.wire import messages as m
from tests.unit.controller.test_records import Stock
from tests.unit.controller.world import World, result_of, submit, task_id


@pytest.fixture
def operator(world):
    return world.operator()


@pytest.fixture
def ran(world):
    """(client, engine, ids of three tasks that have ended, the last with an error)."""
    client, engine = world.client(), world.engine(engine_set="gpu", slot=3, pid=4711)
    tasks = [task_id() for _ in range(3)]
    for task in tasks[:2]:
        world.run(client, engine, task=task, options=m.TaskOptions(label="mine"))
    client.say(submit(tasks[2], options=m.TaskOptions(timeout=1.0)))
    world.turn()
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch, b"", status=1, stdout="oh\n"))
    world.turn()
    return client, engine, [task.hex() for task in tasks]


def page(world, operator, query=None, **fields):
    answer = world.ask(operator, m.PageTasks(1, query or {}, **fields))
    assert isinstance(answer, m.Reply), answer
    return [task["id"] for task in answer.value["tasks"]], answer.value["rest"]


def described(world, operator, task):
    answer = world.ask(operator, m.DescribeTask(1, task))
    assert isinstance(answer, m.Reply), answer
    return answer.value["task"]


def test_pages_from_the_newest_on(world, operator, ran):
    *_, ids = ran
    found, rest = page(world, operator, limit=2)
    assert found == [ids[2], ids[1]]
    assert page(world, operator, limit=2, after=rest[0], before=rest[1]) == ([ids[0]], None)
    assert page(world, operator, {"status": "error"}) == ([ids[2]], None)


def test_pages_from_the_oldest_on(world, operator, ran):
    *_, ids = ran
    found, rest = page(world, operator, limit=2, is_newest_first=False)
    assert found == ids[:2]
    found, rest = page(world, operator, limit=2, after=rest[0], before=rest[1], is_newest_first=False)
    assert (found, rest) == ([ids[2]], None)


def test_a_page_tells_where_and_how(world, operator, ran):
    answer = world.ask(operator, m.PageTasks(1, {}, 1, is_full=True))
    (task,) = answer.value["tasks"]
    assert (task["engine"], task["pid"], task["state"], task["stdout"]) == ("gpu/3", 4711, "error", "oh\n")
    assert "stdout" not in world.ask(operator, m.PageTasks(2, {}, 1)).value["tasks"][0]


def test_what_has_not_ended_is_told_by_the_scheduler(world, operator):
    client, engine = world.client(), world.engine()
    running, behind, dependent = task_id(), task_id(), task_id()
    client.say(submit(running))
    world.turn()
    client.say(submit(behind, target=engine.wire_id))
    client.say(submit(dependent, options=m.TaskOptions(after=m.Dependency([running]))))
    world.turn()
    world.turn(2.0)
    first = described(world, operator, running.hex())
    assert (first["state"], first["engine"], first["why"]) == ("running", "engines/0", "")
    assert first["for"] == pytest.approx(2.0, abs=0.1)
    second = described(world, operator, behind.hex())
    assert second["state"] == "waiting"
    assert second["why"]
    third = described(world, operator, dependent.hex())
    assert (third["why"], third["depends_on"]) == ("it depends on one other task", [first["short"]])


def test_a_task_in_full(world, operator, ran):
    *_, ids = ran
    task = described(world, operator, ids[0])
    assert (task["argument_bytes"], task["result_bytes"], task["label"]) == ([4], [5], "mine")
    assert described(world, operator, task["short"])["id"] == ids[0]


def test_a_stock_task(world, operator):
    stock = Stock(world)
    assert described(world, operator, "m-1")["state"] == "running"
    stock.reply()
    task = described(world, operator, "m-1")
    assert (task["state"], task["name"], task["kind"], task["code"]) == ("ok", "1/0", "cell", "1/0")


def test_questions_without_an_answer(world, operator, ran):
    assert world.ask(operator, m.DescribeTask(1, "nobody")).code == "unknown_task"
    assert world.ask(operator, m.DescribeTask(2, "000")).code == "bad_query"
    assert world.ask(operator, m.PageTasks(3, {"colour": 1})).code == "bad_query"
    assert world.ask(operator, m.PurgePage(4, {"colour": 1})).code == "bad_query"


def test_a_page_is_purged(world, operator, ran):
    client, *_ = ran
    client.say(submit())
    world.turn()
    assert world.ask(operator, m.PurgePage(1, {"label": "mine"})).value == {"purged": 2, "rest": None}
    assert world.ask(operator, m.PurgePage(2, {}, 0, 1)).value == {"purged": 0, "rest": None}
    assert world.ask(operator, m.PurgePage(3, {})).value == {"purged": 1, "rest": None}
    assert world.store.size().records == 1


def test_what_an_earlier_controller_left(make_world):
    before = make_world(database="sqlite")
    before.client().say(submit(task := task_id()))
    before.turn()
    before.store.close()
    world = make_world(database="sqlite", has_predecessor=True)
    operator = world.operator()
    early = described(world, operator, task.hex())
    assert (early["state"], early["for"]) == ("waiting", None)
    assert "waits to hear what its engine holds" in early["why"]
    world.pass_time(60.0)
    assert described(world, operator, task.hex())["state"] == "unfinished"
    world.store.close()


def test_where_nothing_is_kept_that_is_the_answer(tmp_path):
    world = World(tmp_path, database="none")
    operator = world.operator()
    for message in (m.PageTasks(1, {}), m.DescribeTask(1, "a"), m.PurgePage(1, {})):
        answer = world.ask(operator, message)
        assert (answer.code, "controller.database" in answer.hint) == ("no_records", True)

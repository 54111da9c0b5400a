from __future__ import annotations

import pytest

from clusterd.core.model.task import Dependency, Place, Reason, Status, Unmet
from clusterd.core.scheduler import Settings, actions, events
from tests.unit.scheduler.world import World, kinds


@pytest.fixture
def world():
    world = World()
    world.client(0)
    for _ in range(3):
        world.engine()
    return world


def place(world, task):
    return world.scheduler.record(task).place


def run(world, task, status=Status.OK):
    engine = next(engine for engine in world.engines.values() if engine.inside and engine.inside[0].task == task)
    return world.finish(engine, status=status)


def parents(world, *tasks, **fields):
    for task in tasks:
        world.submit(task, **fields)


ALL, ANY = True, False


@pytest.mark.parametrize(
    ("dependency", "ends", "expected"),
    [
        (Dependency((b"a", b"b")), [(b"a", Status.OK)], None),
        (Dependency((b"a", b"b")), [(b"a", Status.OK), (b"b", Status.OK)], True),
        (Dependency((b"a", b"b")), [(b"a", Status.ERROR)], False),
        (Dependency((b"a", b"b"), ANY), [(b"b", Status.OK)], True),
        (Dependency((b"a", b"b"), ANY), [(b"b", Status.ERROR)], None),
        (Dependency((b"a", b"b"), ANY), [(b"b", Status.ERROR), (b"a", Status.ERROR)], False),
        (Dependency((b"a",), ALL, False, True), [(b"a", Status.ERROR)], True),
        (Dependency((b"a",), ALL, False, True), [(b"a", Status.OK)], False),
        (Dependency((b"a", b"b"), ALL, True, True), [(b"a", Status.OK), (b"b", Status.ERROR)], True),
        (Dependency((b"a", b"a")), [(b"a", Status.OK)], True),
    ],
)
@pytest.mark.parametrize("kind", ["after", "follow"])
def test_verdicts(world, dependency, ends, expected, kind):
    order = [*(task for task, _ in ends), *(task for task in (b"a", b"b") if task not in dict(ends))]
    fields = {"target": 0} if kind == "follow" else {}  # all on one engine, which runs them in order
    parents(world, *order, **fields)
    assert world.submit(b"child", **{kind: dependency}) == []
    assert place(world, b"child") is Place.WAITING
    for task, status in ends:
        run(world, task, status)
    if expected is None:
        assert place(world, b"child") is Place.WAITING
    elif expected:
        assert place(world, b"child") is not Place.WAITING
        assert world.promises[b"child"].end is None
    else:
        assert world.promises[b"child"].end == Reason.UNSCHEDULABLE


def test_a_dependency_on_nothing_is_met(world):
    assert kinds(world.submit(b"child", after=Dependency(()), follow=Dependency((), ANY)), actions.Dispatch)


def test_a_dependency_on_what_has_ended_is_decided_at_once(world):
    parents(world, b"a", b"b")
    run(world, b"a")
    run(world, b"b", Status.ERROR)
    assert kinds(world.submit(b"child", after=Dependency((b"a",))), actions.Dispatch)
    assert kinds(world.submit(b"any", after=Dependency((b"a", b"b"), ANY)), actions.Dispatch)
    (failure,) = kinds(world.submit(b"orphan", after=Dependency((b"b",))), actions.Fail)
    assert failure.text == "its `after` dependency can not be met: task 62 failed"


@pytest.mark.parametrize("is_all", [ALL, ANY])
@pytest.mark.parametrize("kind", ["after", "follow"])
@pytest.mark.parametrize(
    ("task", "text"),
    [
        (b"child", "dependency names the task itself"),
        (
            b"never",
            "dependency names task 6e65766572, which is not known: it was never accepted here, or ended so long ago",
        ),
    ],
)
def test_a_dependency_on_itself_or_on_the_unknown_is_invalid_at_once(world, kind, is_all, task, text):
    parents(world, b"a", b"ok")
    run(world, b"ok")
    (failure,) = kinds(world.submit(b"child", **{kind: Dependency((b"ok", b"a", task), is_all)}), actions.Fail)
    assert (failure.reason, failure.unmet, failure.engine) == (Reason.UNSCHEDULABLE, Unmet.INVALID, -1)
    assert failure.text.startswith(f"its `{kind}` {text}")
    assert world.scheduler.state.waiting == {}
    assert kinds(run(world, b"a"), actions.Fail) == []


def test_what_depends_on_an_invalid_one_is_impossible_not_invalid(world):
    world.submit(b"child", after=Dependency((b"never",)))
    (failure,) = kinds(world.submit(b"grandchild", after=Dependency((b"child",))), actions.Fail)
    assert failure.unmet is Unmet.IMPOSSIBLE


def test_a_task_that_was_culled_is_not_known_and_the_text_says_why():
    world = World(Settings(max_records=16))
    world.client(0)
    engine = world.engine()
    for number in range(17):
        world.submit(b"%d" % number)
        world.finish(engine)
    (failure,) = kinds(world.submit(b"child", after=Dependency((b"0", b"16"), ANY)), actions.Fail)
    assert failure.unmet is Unmet.INVALID
    assert failure.text.endswith("so long ago that it was forgotten (up to 16 ended tasks are remembered)")
    assert kinds(world.submit(b"other", after=Dependency((b"15", b"16"))), actions.Dispatch)


def test_any_of_none_says_so(world):
    parents(world, b"x", b"y")
    world.submit(b"child", after=Dependency((b"x", b"y"), ANY))
    run(world, b"x", Status.ERROR)
    (failure,) = kinds(run(world, b"y", Status.ERROR), actions.Fail)
    assert failure.unmet is Unmet.IMPOSSIBLE
    assert failure.text == (
        "its `after` dependency can not be met: none of its 2 tasks is as asked for; task 79 failed"
    )


@pytest.mark.parametrize("how", ["error", "unmet", "aborted", "lost", "waited too long"])
@pytest.mark.parametrize(("on_success", "on_failure"), [(True, False), (False, True), (True, True)])
def test_however_a_task_ends_without_a_value_it_has_failed(world, how, on_success, on_failure):
    for engine in world.engines.values():
        world.submit(b"busy%d" % engine.id, target=engine.id)
    world.submit(b"a", target=0, max_wait=5.0 if how == "waited too long" else None)
    world.submit(b"child", after=Dependency((b"a",), ALL, on_success, on_failure))
    if how == "aborted":
        world.do(events.AbortRequested(0, tasks=(b"a",)))
    elif how == "lost":
        world.lose(world.engines[0])
    elif how == "waited too long":
        world.pass_time(5.0)
    else:
        world.finish(world.engines[0])
        world.finish(world.engines[0], status=Status.ERROR if how == "error" else Status.UNMET)
    assert place(world, b"a") is Place.ENDED
    assert (world.promises[b"child"].end is None) is on_failure


def test_what_follows_runs_where_the_other_ran_also_with_a_queue(world):
    parents(world, b"a", target=1)
    world.submit(b"next", target=1)
    world.submit(b"child", follow=Dependency((b"a",)))
    run(world, b"a")
    run(world, b"next")
    assert world.engines[1].inside[0].task == b"child"


def test_what_follows_all_of_different_engines_can_not_be(world):
    parents(world, b"a", target=0)
    parents(world, b"b", target=1)
    world.submit(b"child", follow=Dependency((b"a", b"b")))
    run(world, b"a")
    (failure,) = kinds(run(world, b"b"), actions.Fail)
    assert failure.unmet is Unmet.IMPOSSIBLE
    assert failure.text == "its `follow` dependency can not be met: task 62 ran on another engine than those before it"


def test_what_follows_any_runs_where_the_first_ran(world):
    parents(world, b"a", target=0)
    parents(world, b"b", target=1)
    world.submit(b"child", follow=Dependency((b"a", b"b"), ANY))
    run(world, b"b")
    assert world.engines[1].inside[0].task == b"child"
    run(world, b"a")


def test_what_follows_any_of_those_that_have_ended_runs_where_one_of_them_did(world):
    parents(world, b"a", target=0)
    parents(world, b"b", target=1)
    run(world, b"a")
    run(world, b"b")
    for busy in (0, 2):
        world.submit(b"busy%d" % busy, target=busy)
    world.submit(b"child", follow=Dependency((b"a", b"b"), ANY))
    assert world.engines[1].inside[0].task == b"child"


def test_what_follows_any_goes_to_a_place_that_came_while_it_waited_for_something_else(world):
    parents(world, b"a", target=0)
    parents(world, b"b", target=1)
    parents(world, b"c", target=2)
    world.submit(b"child", after=Dependency((b"c",)), follow=Dependency((b"a", b"b"), ANY))
    run(world, b"a")
    world.lose(world.engines[0])
    assert kinds(run(world, b"c"), actions.Fail) == []
    assert place(world, b"child") is Place.WAITING
    run(world, b"b")
    assert world.engines[1].inside[0].task == b"child"


def test_what_follows_any_is_met_though_the_last_one_fails(world):
    parents(world, b"a", target=0)
    parents(world, b"b", target=1)
    parents(world, b"c", target=2)
    world.submit(b"child", after=Dependency((b"c",)), follow=Dependency((b"a", b"b"), ANY))
    run(world, b"a")
    run(world, b"b", Status.ERROR)
    run(world, b"c")
    assert world.engines[0].inside[0].task == b"child"


def test_what_follows_any_of_those_whose_engines_are_gone_can_not_be(world):
    parents(world, b"a", target=0)
    parents(world, b"b", target=1)
    parents(world, b"c", target=2)
    world.submit(b"child", after=Dependency((b"c",)), follow=Dependency((b"a", b"b"), ANY))
    run(world, b"a")
    world.lose(world.engines[0])
    run(world, b"c")
    (failure,) = kinds(run(world, b"b", Status.ERROR), actions.Fail)
    assert (failure.task, failure.unmet) == (b"child", Unmet.IMPOSSIBLE)


def test_what_follows_a_task_whose_engine_is_gone_can_not_be(world):
    parents(world, b"a", target=0)
    run(world, b"a")
    world.lose(world.engines[0])
    (failure,) = kinds(world.submit(b"child", follow=Dependency((b"a",))), actions.Fail)
    assert failure.text.endswith("the engine of task 61 is gone")


def test_what_follows_a_task_that_never_ran_can_not_be(world):
    for engine in world.engines.values():
        world.submit(b"busy%d" % engine.id, target=engine.id)
    parents(world, b"a")
    world.submit(b"child", follow=Dependency((b"a",), ALL, True, True))
    out = world.do(events.AbortRequested(0, tasks=(b"a",)))
    assert [failure.task for failure in kinds(out, actions.Fail)] == [b"a", b"child"]
    assert kinds(out, actions.Fail)[1].text.endswith("task 61 ran nowhere")


@pytest.mark.parametrize(("target", "is_possible"), [(1, True), ((1, 2), True), (2, False), ((0, 2), False)])
def test_a_place_to_follow_to_is_within_the_target(world, target, is_possible):
    parents(world, b"a", target=1)
    world.submit(b"child", follow=Dependency((b"a",)), target=target)
    out = run(world, b"a")
    if is_possible:
        assert world.engines[1].inside[0].task == b"child"
    else:
        (failure,) = kinds(out, actions.Fail)
        assert failure.text == "its dependencies are met; no engine that it may run on is left"
        assert failure.unmet is Unmet.IMPOSSIBLE


def test_a_target_that_is_lost_while_a_task_waits_fails_it(world):
    parents(world, b"a", target=1)
    world.submit(b"child", after=Dependency((b"a",)), target=2)
    world.lose(world.engines[2])
    (failure,) = kinds(run(world, b"a"), actions.Fail)
    assert (failure.task, failure.text) == (b"child", "its dependencies are met; no engine that it may run on is left")


def test_a_failure_runs_down_a_long_chain(world):
    world = World(Settings(max_records=100_000))
    world.client(0)
    engine = world.engine()
    scheduler, out = world.scheduler, []
    scheduler.handle_into(events.TaskSubmitted(b"0", 0, b"f", 1), 0.0, out)
    for number in range(1, 5000):
        after = Dependency((b"%d" % (number - 1),))
        scheduler.handle_into(events.TaskSubmitted(b"%d" % number, 0, b"f", 1, after=after), 0.0, out)
    scheduler.settle(0.0, out)
    out = scheduler.handle(events.TaskFinished(b"0", engine.id, 0, Status.ERROR, 0.1), 0.0)
    assert len(kinds(out, actions.Fail)) == 4999
    assert scheduler.state.waiting == {}


def test_a_task_that_waits_may_be_aborted_and_is_told_nothing_more(world):
    parents(world, b"a", b"b")
    world.submit(b"child", after=Dependency((b"a", b"b")))
    world.submit(b"grandchild", after=Dependency((b"child",)))
    run(world, b"a")
    out = world.do(events.AbortRequested(0, tasks=(b"child",)))
    assert {failure.task: failure.reason for failure in kinds(out, actions.Fail)} == {
        b"child": Reason.ABORTED,
        b"grandchild": Reason.UNSCHEDULABLE,
    }
    assert kinds(run(world, b"b"), actions.Fail) == []


def test_two_conditions_must_both_be_met(world):
    parents(world, b"a", target=0)
    parents(world, b"b", target=1)
    world.submit(b"child", after=Dependency((b"a",)), follow=Dependency((b"b",)))
    run(world, b"b")
    assert place(world, b"child") is Place.WAITING
    run(world, b"a")
    assert world.engines[1].inside[0].task == b"child"


def test_both_conditions_on_one_task(world):
    parents(world, b"a", target=2)
    world.submit(b"child", after=Dependency((b"a",)), follow=Dependency((b"a",)))
    run(world, b"a")
    assert world.engines[2].inside[0].task == b"child"


def test_a_dependent_is_aborted_in_the_batch_in_which_the_other_ends_and_is_culled():
    world = World(Settings(max_records=1))
    world.client(0)
    for _ in range(2):
        world.engine()
    parents(world, b"a", b"b")
    world.submit(b"child", after=Dependency((b"a",)))
    batch: list[events.AnyEvent] = []
    for engine in sorted(world.engines.values(), key=lambda engine: engine.inside[0].task):
        held = engine.inside.popleft()
        batch.append(events.TaskFinished(held.task, engine.id, held.attempt, Status.OK, 0.1))
    out = world.do(*batch, events.AbortRequested(0))
    assert {failure.task: failure.reason for failure in kinds(out, actions.Fail)} == {b"child": Reason.ABORTED}
    assert world.scheduler.state.waiting == {}


def test_dependents_are_told_though_the_record_is_culled_in_the_same_batch():
    world = World(Settings(max_records=1))
    world.client(0)
    engine = world.engine()
    world.submit(b"a")
    world.submit(b"child", after=Dependency((b"a",)))
    world.submit(b"b", target=0)
    engine_inside = list(engine.inside)
    assert engine_inside[0].task == b"a"
    world.finish(engine)
    assert world.promises[b"child"].end is None
    world.finish(engine)
    world.finish(engine)
    assert world.promises[b"child"].end == "delivered"

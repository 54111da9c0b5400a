"""What follows a failure: another attempt, elsewhere if possible, or an error that says what happened."""

from __future__ import annotations

import pytest

from clusterd.core.model.task import Reason, Status
from clusterd.core.scheduler import Settings, actions, events
from tests.unit.scheduler.world import World, kinds


@pytest.fixture
def world():
    world = World()
    world.client(0)
    return world


def one(out, kind):
    found = kinds(out, kind)
    assert len(found) == 1
    return found[0]


def test_without_retries_an_exception_is_the_result(world):
    engine = world.engine()
    world.submit(b"a")
    assert world.finish(engine, status=Status.ERROR) == [actions.Deliver(b"a", 0, 0, 0)]


def test_a_retry_goes_to_another_engine_with_the_next_attempt(world):
    first, second = world.engine(), world.engine()
    world.submit(b"a", retries=1)
    failed = first if first.inside else second
    out = world.finish(failed, status=Status.ERROR)
    other = second if failed is first else first
    assert out == [
        actions.Discard(b"a", failed.id, 0, actions.WhyDiscarded.RETRIED),
        actions.Dispatch(b"a", other.id, 1, 1),
    ]
    assert one(world.finish(other, status=Status.ERROR), actions.Deliver).attempt == 1


@pytest.mark.parametrize("fields", [{}, {"target": (0,)}, {"target": (0, 1)}, {"target": 0}])
def test_with_no_other_engine_a_retry_goes_to_the_same_one(world, fields):
    engine = world.engine()
    world.submit(b"a", retries=5, **fields)
    for attempt in range(6):
        assert engine.inside[0].attempt == attempt
        out = world.finish(engine, status=Status.ERROR)
    assert kinds(out, actions.Deliver)


@pytest.mark.parametrize("fields", [{}, {"target": (0, 1)}])
def test_a_retry_waits_for_another_engine_only_so_long(world, fields):
    world.engine()
    busy = world.engine()
    world.submit(b"busy", target=1)
    world.submit(b"a", retries=1, **fields)
    world.submit(b"plain", **fields)
    world.finish(world.engines[0], status=Status.ERROR)
    assert [held.task for held in world.engines[0].inside] == [b"plain"]
    world.finish(world.engines[0])
    assert not world.engines[0].inside
    assert len(busy.inside) == 1
    out = world.pass_time(1.1)
    assert one(out, actions.Dispatch).engine == 0


def test_a_retry_does_not_take_others_of_its_pool_along(world):
    for _ in range(3):
        world.engine()
    for engine in list(world.engines.values())[1:]:
        world.submit(b"busy%d" % engine.id, target=engine.id)
    world.submit(b"a", retries=1, target=(0, 1, 2))
    world.client(1)
    for client in range(2):
        world.submit(b"plain%d" % client, client, target=(1, 2))
    world.finish(world.engines[0], status=Status.ERROR)
    world.pass_time(1.1)
    assert [held.task for held in world.engines[0].inside] == [b"a"]
    assert all(world.promises[b"plain%d" % client].engine is None for client in range(2))


def test_a_retry_prefers_engines_that_can_take_it(world):
    first, second = world.engine(), world.engine()
    second.is_draining = True
    world.do(events.EngineDraining(1))
    world.submit(b"a", retries=1)
    assert one(world.finish(first, status=Status.ERROR), actions.Dispatch).engine == 0


def test_an_engine_that_comes_is_another_engine(world):
    first, second = world.engine(), world.engine()
    world.submit(b"busy", target=1)
    world.submit(b"a", retries=1)
    world.finish(first, status=Status.ERROR)
    third = world.engine()
    assert [held.task for held in third.inside] == [b"a"]
    assert [held.task for held in second.inside] == [b"busy"]


def test_when_all_have_failed_it_a_retry_waits_for_none_of_them(world):
    first, second = world.engine(), world.engine()
    world.submit(b"a", retries=5)
    world.finish(next(engine for engine in (first, second) if engine.inside), status=Status.ERROR)
    last = next(engine for engine in (first, second) if engine.inside)
    other = first if last is second else second
    world.submit(b"busy", target=other.id)
    for attempt in range(2, 6):  # the other one is busy, and has failed it as well: nothing is to be hoped for from it
        out = world.finish(last, status=Status.ERROR)
        assert one(out, actions.Dispatch) == actions.Dispatch(b"a", last.id, attempt, attempt)
    assert kinds(world.finish(last, status=Status.ERROR), actions.Deliver)
    assert world.now == 100.0
    assert [held.task for held in other.inside] == [b"busy"]


def test_but_an_engine_that_came_since_is_preferred_again(world):
    world.engine()
    world.engine()
    world.submit(b"a", retries=3)
    for _ in range(2):
        world.finish(next(engine for engine in world.engines.values() if engine.inside), status=Status.ERROR)
    third = world.engine()
    world.submit(b"busy", target=2)
    world.finish(
        next(engine for engine in world.engines.values() if engine is not third and engine.inside), status=Status.ERROR
    )
    assert [held.task for held in third.inside] == [b"busy"]
    assert world.scheduler.unassigned() == 1  # for retry_patience
    world.finish(third)
    assert [held.task for held in third.inside] == [b"a"]


def test_when_the_others_are_lost_a_retry_takes_the_one_that_failed_it(world):
    first, second = world.engine(), world.engine()
    world.submit(b"busy", target=1)
    world.submit(b"a", retries=1)
    world.finish(first, status=Status.ERROR)
    world.lose(second)
    assert [held.task for held in first.inside] == [b"a"]


def test_an_engine_that_failed_a_task_and_is_lost_is_not_avoided_any_more(world):
    first, second = world.engine(), world.engine()
    world.submit(b"busy", target=1)
    world.submit(b"a", retries=2)
    world.finish(first, status=Status.ERROR)
    world.lose(first)
    out = world.finish(second)
    assert one(out, actions.Dispatch).engine == 1


def test_a_lost_engine_without_retries_fails_its_task_with_engine_cause_and_last_output(world):
    engine = world.engine()
    world.submit(b"a")
    failure = one(world.lose(engine), actions.Fail)
    assert (failure.reason, failure.engine, failure.attempt) == (Reason.ENGINE_LOST, 0, 0)
    assert failure.text == "engine 0 (engines/0) was lost: killed by signal 9; its last output: last words"


def test_a_lost_engine_with_retries_runs_its_task_again(world):
    first = world.engine()
    world.submit(b"a", retries=1)
    world.lose(first)
    second = world.engine()
    assert second.inside[0].attempt == 1
    assert kinds(world.lose(second), actions.Fail)


def test_what_a_lost_engine_had_not_begun_costs_no_retry_and_keeps_its_order(world):
    engine = world.engine()
    world.teach(0.0005)
    for number in range(4):
        world.submit(b"%d" % number)
    out = world.lose(engine, running=b"1")
    assert [failure.task for failure in kinds(out, actions.Fail)] == [b"0", b"1"]
    other = world.engine()
    assert [held.task for held in other.inside] == [b"2", b"3"]


def test_where_nobody_saw_what_ran_all_may_have_begun(world):
    engine = world.engine()
    world.teach(0.0005)
    for number in range(4):
        world.submit(b"%d" % number)
    assert len(kinds(world.lose(engine), actions.Fail)) == 4


def test_direct_work_of_a_lost_engine_fails_by_what_became_of_it(world):
    engine = world.engine()
    world.submit(b"ran", target=0, retries=3)
    world.submit(b"queued", target=0)
    world.submit(b"aborted", target=0)
    world.do(events.AbortRequested(0, tasks=(b"aborted",)))
    ran, queued = kinds(world.lose(engine), actions.Fail)
    assert (ran.reason, queued.reason) == (Reason.ENGINE_LOST, Reason.UNSCHEDULABLE)
    assert ran.text.endswith("; no engine that it may run on is left")
    assert queued.text.endswith("; it had not begun")


def test_a_pool_that_loses_its_last_engine_fails_its_tasks(world):
    first, second = world.engine(), world.engine()
    world.engine()
    for number in range(3):
        world.submit(b"%d" % number, target=(0, 1))
    world.lose(first)
    failures = kinds(world.lose(second), actions.Fail)
    assert {failure.task: failure.reason for failure in failures} == {
        b"1": Reason.ENGINE_LOST,
        b"2": Reason.UNSCHEDULABLE,
    } or {failure.task for failure in failures} == {b"0", b"2"}


def test_a_poison_task_is_not_run_again(world):
    world.submit(b"poison", retries=100)
    out = []
    for _ in range(3):
        out = world.lose(world.engine())
    failure = one(out, actions.Fail)
    assert failure.reason is Reason.ENGINE_LOST
    assert failure.text.endswith("; 3 engines died while they ran this task, so it is not run again")
    assert world.engine().inside == type(world.engines[3].inside)()


def test_engines_that_were_stopped_on_purpose_make_no_poison(world):
    world.submit(b"a", retries=100)
    for _ in range(5):
        world.lose(world.engine(), is_wanted=True)
    assert world.engine().inside


def test_only_what_ran_is_blamed(world):
    world = World(Settings(poison_kills=1))
    world.client(0)
    engine = world.engine()
    world.teach(0.0005)
    for number in range(3):
        world.submit(b"%d" % number, retries=1)
    failure = one(world.lose(engine, running=b"1"), actions.Fail)
    assert failure.task == b"1"


# --- timeouts ---


def test_a_task_over_its_timeout_is_interrupted_and_fails_with_the_time(world):
    engine = world.engine()
    world.submit(b"a", timeout=2.0)
    assert kinds(world.pass_time(1.9), actions.Interrupt) == []
    assert kinds(world.pass_time(0.2), actions.Interrupt) == [actions.Interrupt(0, b"a", 0)]
    out = world.finish(engine, 2.1, Status.ERROR)
    assert actions.Discard(b"a", 0, 0, actions.WhyDiscarded.TIMED_OUT) in out
    failure = one(out, actions.Fail)
    assert (failure.reason, failure.text) == (
        Reason.TIMEOUT,
        "it ran for 2.1 s on engine 0 (engines/0), over its timeout of 2 s",
    )
    assert world.pass_time(60.0) == []


def test_a_result_that_comes_in_spite_of_the_interrupt_is_the_result(world):
    engine = world.engine()
    world.submit(b"a", timeout=2.0)
    world.pass_time(2.1)
    assert kinds(world.finish(engine, 2.1), actions.Deliver)


def test_the_timeout_of_a_task_counts_from_its_start_not_from_its_dispatch(world):
    engine = world.engine()
    world.teach(0.0005)
    world.submit(b"first")
    world.submit(b"second", timeout=0.015)
    world.pass_time(0.010)
    world.finish(engine)
    assert kinds(world.pass_time(0.014), actions.Interrupt) == []
    assert kinds(world.pass_time(0.002), actions.Interrupt) == [actions.Interrupt(0, b"second", 0)]


def test_a_head_without_a_timeout_is_not_limited_by_one_behind_it(world):
    engine = world.engine()
    world.teach(0.0005)
    for task in (b"first", b"second"):
        world.submit(task)
    world.submit(b"third", timeout=0.001)
    world.finish(engine)
    assert kinds(world.pass_time(0.01), actions.Interrupt) == []


def test_a_reported_start_moves_the_timeout(world):
    engine = world.engine()
    world.submit(b"a", timeout=2.0)
    world.pass_time(1.0)
    world.do(events.TaskStarted(b"a", 0, 0))
    assert kinds(world.pass_time(1.5), actions.Interrupt) == []
    assert kinds(world.pass_time(0.6), actions.Interrupt)
    assert engine.inside


def test_a_task_that_ignores_its_interrupt_has_its_engine_killed_again_and_again(world):
    engine = world.engine()
    world.teach(0.0005)
    world.submit(b"a", timeout=2.0)
    world.submit(b"innocent")
    out = world.pass_time(20.0)
    kills = kinds(out, actions.KillEngine)
    assert len(kills) == 3
    assert kills[0] == actions.KillEngine(0, "task 61 ran over its timeout of 2 s and ignored an interrupt")
    world.submit(b"b")
    assert len(engine.inside) == 2
    failure = one(world.lose(engine, running=b"a"), actions.Fail)
    assert failure.reason is Reason.TIMEOUT
    assert failure.text.startswith(
        "it ran over its timeout of 2 s and ignored an interrupt: engine 0 (engines/0) was lost"
    )
    assert [held.task for held in world.engine().inside] == [b"innocent", b"b"]


def test_a_timeout_uses_a_retry(world):
    engine = world.engine()
    world.submit(b"a", timeout=2.0, retries=1)
    world.pass_time(2.1)
    out = world.finish(engine, 2.1, Status.ERROR)
    assert one(out, actions.Dispatch).attempt == 1
    assert kinds(world.pass_time(2.1), actions.Interrupt) == [actions.Interrupt(0, b"a", 1)]


# --- fences ---


def result(task, engine, attempt, status=Status.OK):
    return events.TaskFinished(task, engine, attempt, status, 0.001)


def test_a_repeated_result_is_acknowledged_and_delivered_once(world):
    engine = world.engine()
    world.submit(b"a")
    world.finish(engine)
    assert world.do(result(b"a", 0, 0)) == [actions.Discard(b"a", 0, 0, actions.WhyDiscarded.REPEATED)]


@pytest.mark.parametrize(("engine", "attempt"), [(0, 0), (1, 0), (0, 1), (7, 1)])
def test_a_stale_result_is_fenced(world, engine, attempt):
    first, _second = world.engine(), world.engine()
    world.do(events.EngineSuspected(1))
    world.engines[1].is_suspect = True
    world.submit(b"a", retries=1)
    assert first.inside
    world.engines[1].is_suspect = False
    world.do(events.EngineReturned(1))
    world.finish(first, status=Status.ERROR)  # attempt 1 runs on engine 1
    assert world.do(result(b"a", engine, attempt)) == [
        actions.Discard(b"a", engine, attempt, actions.WhyDiscarded.STALE)
    ]
    assert kinds(world.finish(world.engines[1]), actions.Deliver)


def test_a_result_that_nobody_asked_for_is_unknown(world):
    world.engine()
    assert world.do(result(b"x", 0, 0)) == [actions.Discard(b"x", 0, 0, actions.WhyDiscarded.UNKNOWN)]


def test_what_was_aborted_and_then_reported_is_stale(world):
    world.submit(b"a")
    world.do(events.AbortRequested(0, tasks=(b"a",)))
    assert world.do(result(b"a", 0, 0)) == [actions.Discard(b"a", 0, 0, actions.WhyDiscarded.STALE)]

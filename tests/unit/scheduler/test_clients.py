"""Aborts, and clients that come and go."""

from __future__ import annotations

import pytest

from clusterd.core.model.task import Dependency, Reason, Status
from clusterd.core.scheduler import actions, events
from clusterd.core.scheduler.fairness import REBUILD
from tests.unit.scheduler.world import World, kinds


@pytest.fixture
def world():
    world = World()
    world.client(0)
    world.client(1)
    return world


def failed(out):
    return {failure.task: failure.reason for failure in kinds(out, actions.Fail)}


def test_what_is_queued_is_aborted_and_others_move_up(world):
    engine = world.engine()
    for task in (b"a", b"b", b"c"):
        world.submit(task)
    assert failed(world.do(events.AbortRequested(0, tasks=(b"b", b"b", b"never")))) == {b"b": Reason.ABORTED}
    world.finish(engine)
    assert engine.inside[0].task == b"c"


def test_what_runs_goes_on_and_what_was_given_in_advance_is_recalled(world):
    engine = world.engine()
    world.teach(0.0005)
    for number in range(3):
        world.submit(b"%d" % number)
    out = world.do(events.AbortRequested(0, tasks=(b"0", b"2")))
    assert kinds(out, actions.Recall) == [actions.Recall(0, 4, 6)]
    out = world.recalled(engine)
    assert failed(out) == {b"2": Reason.ABORTED}
    assert kinds(world.finish(engine), actions.Deliver), "what had begun has its result"
    assert world.promises[b"1"].end is None


def test_a_second_recall_covers_the_first_while_that_is_not_answered(world):
    engine = world.engine()
    world.teach(0.0005)
    for number in range(5):
        world.submit(b"%d" % number)
    world.do(events.AbortRequested(0, tasks=(b"4",)))
    (recall,) = kinds(world.do(events.AbortRequested(0, tasks=(b"2",))), actions.Recall)
    assert (recall.first, recall.last) == (6, 8)
    out = world.recalled(engine)
    assert failed(out) == {b"2": Reason.ABORTED, b"4": Reason.ABORTED}
    assert [held.task for held in engine.inside] == [b"0", b"1", b"3"], "the one in between came back and went again"


def test_an_aborted_task_is_not_retried(world):
    engine = world.engine()
    world.submit(b"a", retries=5)
    world.do(events.AbortRequested(0, tasks=(b"a",)))
    assert kinds(world.finish(engine, status=Status.ERROR), actions.Deliver)


def test_a_client_aborts_its_own_tasks_only_and_the_operator_any(world):
    world.submit(b"mine", 0)
    world.submit(b"theirs", 1)
    assert failed(world.do(events.AbortRequested(0, tasks=(b"theirs",)))) == {}
    assert failed(world.do(events.AbortRequested(None, tasks=(b"theirs",)))) == {b"theirs": Reason.ABORTED}
    assert failed(world.do(events.AbortRequested(None))) == {b"mine": Reason.ABORTED}


def test_abort_of_all_takes_what_waits_what_is_queued_and_what_is_held(world):
    engine = world.engine()
    world.submit(b"runs")
    world.submit(b"queued")
    world.submit(b"direct", target=0)
    world.submit(b"waits", after=Dependency((b"runs",)))
    world.submit(b"theirs", 1)
    out = world.do(events.AbortRequested(0))
    assert failed(out) == dict.fromkeys([b"waits", b"queued", b"direct"], Reason.ABORTED)
    assert kinds(out, actions.Recall)
    world.finish(engine)
    assert engine.inside[0].task == b"theirs"


def test_abort_for_engines_takes_their_direct_work(world):
    for _ in range(2):
        world.engine()
    for number in range(2):
        world.submit(b"held%d" % number, target=number)
        world.submit(b"queued%d" % number, target=number)
    world.submit(b"balanced")
    world.submit(b"theirs", 1, target=0)
    out = world.do(events.AbortRequested(0, targets=(0, 9)))
    assert failed(out) == {b"queued0": Reason.ABORTED}
    assert [recall.engine for recall in kinds(out, actions.Recall)] == [0]


def test_the_operator_ends_all_direct_work_of_an_engine_whoever_asked(world):
    engine = world.engine()
    other = world.engine()
    world.teach(0.0005)
    world.submit(b"runs", 0, target=0)
    world.submit(b"prefetched", 1, target=0)
    world.submit(b"balanced0", 1)
    world.submit(b"balanced1", 1)
    world.submit(b"long", 0, function=b"long", target=0)
    world.submit(b"queued0", 0, target=0)
    world.submit(b"queued1", 1, target=(0,))
    world.submit(b"waits", 1, target=0, after=Dependency((b"runs",)))
    world.submit(b"either", 1, target=(0, 1))
    world.submit(b"elsewhere", 1, target=1)
    assert {b"runs", b"prefetched"} <= {held.task for held in engine.inside}
    out = world.do(events.AbortRequested(None, targets=(0,)))
    assert failed(out) == dict.fromkeys((b"queued0", b"queued1", b"waits"), Reason.ABORTED)
    (recall,) = kinds(out, actions.Recall)
    assert recall.engine == 0
    out = world.recalled(engine)
    assert failed(out) == dict.fromkeys((b"prefetched", b"long"), Reason.ABORTED)
    assert kinds(world.finish(engine), actions.Deliver)[0].task == b"runs"  # what had begun goes on
    while engine.inside or other.inside:
        world.finish(engine if engine.inside else other)
    ends = {task: promise.end for task, promise in world.promises.items()}
    assert [ends[task] for task in (b"balanced0", b"balanced1", b"either", b"elsewhere")] == ["delivered"] * 4
    assert world.scheduler.queue_status().engines[0].queued == 0


def test_aborts_are_paid_for_when_most_of_a_queue_is_dead(world):
    count = 4 * REBUILD
    for number in range(count):
        world.submit(b"%d" % number)
    flow = world.scheduler.state.clients[0].flow
    for number in range(count - 1):
        world.do(events.AbortRequested(0, tasks=(b"%d" % number,)))
        assert len(flow.tasks) <= max(REBUILD, 2 * (len(flow.tasks) - flow.dead)) + 1
    engine = world.engine()
    assert [held.task for held in engine.inside] == [b"%d" % (count - 1)]


def test_a_queue_that_is_aborted_whole_while_its_client_does_not_read(world):
    world.blocked.add(0)
    world.do(events.ResultsBlocked(0))
    world.submit(b"a")
    world.do(events.AbortRequested(0))
    world.blocked.clear()
    assert world.do(events.ResultsUnblocked(0)) == []


def test_a_client_that_is_away_has_its_tasks_run_and_its_results_delivered_to_its_outbox(world):
    engine = world.engine()
    world.do(events.ClientDetached(0))
    world.submit(b"a", 1)
    world.finish(engine)
    world.do(events.ClientReturned(0))
    world.submit(b"b")
    world.do(events.ClientDetached(0))
    assert kinds(world.finish(engine), actions.Deliver) == [actions.Deliver(b"b", 0, 0, 0)]


def test_a_client_that_attaches_again_has_its_limits_changed(world):
    world.client(0, max_tasks=1)
    world.submit(b"a")
    world.submit(b"b")
    assert b"b" not in world.promises


def test_a_forgotten_client_ends_for_nobody(world):
    engine = world.engine()
    world.submit(b"runs", retries=3)
    world.submit(b"queued")
    out = world.do(events.ClientForgotten(0))
    assert kinds(out, actions.Forget) == [actions.Forget((b"queued",))]
    assert world.do(events.ClientForgotten(0)) == []
    out = world.finish(engine)
    assert actions.Discard(b"runs", 0, 0, actions.WhyDiscarded.CLIENT_GONE) in out
    assert actions.Forget((b"runs",)) in out
    assert 0 not in world.scheduler.state.clients


def test_a_forgotten_clients_failure_is_told_to_nobody(world):
    engine = world.engine()
    world.submit(b"runs", retries=3)
    world.do(events.ClientForgotten(0))
    out = world.lose(engine)
    assert kinds(out, actions.Fail) == []
    assert actions.Forget((b"runs",)) in out


def test_a_forgotten_client_without_tasks_is_gone_at_once(world):
    world.engine()
    world.submit(b"a", target=0)
    world.finish(world.engines[0])
    world.do(events.ClientForgotten(0))
    assert 0 not in world.scheduler.state.clients
    assert 0 not in world.scheduler.state.engines[0].direct.flows

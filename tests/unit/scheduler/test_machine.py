"""The shape of the core: totality, the story, records, status, timers, and that the invariants bite."""

from __future__ import annotations

import typing

import pytest

from clusterd.core.model.task import ClientLoad, Dependency, EngineLoad, Place, Status
from clusterd.core.scheduler import Scheduler, Settings, actions, events
from clusterd.core.scheduler.invariants import InvariantViolation, check, check_settled
from clusterd.core.scheduler.machine import HANDLERS
from clusterd.core.timers import NEVER, Timers
from tests.unit.scheduler.world import World, kinds


@pytest.fixture
def world():
    world = World()
    world.client(0)
    return world


def test_every_event_has_a_handler_and_nothing_else_does():
    assert set(HANDLERS) == set(typing.get_args(events.AnyEvent))


def test_every_action_is_in_the_union():
    found = {value for value in vars(actions).values() if isinstance(value, type) and issubclass(value, actions.Action)}
    assert found - {actions.Action} == set(typing.get_args(actions.AnyAction))


def test_the_story_has_the_last_events_and_their_times():
    scheduler = Scheduler(Settings(story=4))
    scheduler.handle(events.ClientAttached(0), 1.0)
    scheduler.handle(events.Tick(), 2.0)
    scheduler.handle(events.ClientDetached(0), 2.0)
    assert list(scheduler.story) == [events.ClientAttached(0), 2.0, events.Tick(), events.ClientDetached(0)]


def test_queue_status(world):
    engine = world.engine()
    world.engine().is_suspect = True
    world.do(events.EngineSuspected(1))
    world.teach(0.0005)
    for number in range(12):
        world.submit(b"%d" % number)
    world.submit(b"direct", target=1)
    world.submit(b"pool", target=(0, 1))
    world.submit(b"waits", after=Dependency((b"direct",)))
    status = world.scheduler.queue_status()
    assert status.engines == {0: EngineLoad(0, 1, 9, 3), 1: EngineLoad(1, 0, 0, 0)}
    assert status.clients == {0: ClientLoad(4, 1, 10, 3, 150)}
    assert (status.unassigned, status.waiting, status.running, status.prefetched, status.completed) == (3, 1, 1, 9, 3)
    assert world.scheduler.engine_load(1) == EngineLoad(1, 0, 0, 0)
    assert world.scheduler.engine_load(9) is None
    assert world.scheduler.unassigned() == 3
    world.lose(engine)
    assert world.scheduler.queue_status().completed == 3


def test_a_record_tells_the_life_of_a_task(world):
    engine = world.engine()
    began = world.now
    world.submit(b"a", label="mine", size=7)
    world.pass_time(2.0)
    pending = world.scheduler.record(b"a")
    assert (pending.place, pending.engine, pending.status, pending.ended) == (Place.HELD, 0, None, 0.0)
    world.finish(engine, 1.5, Status.ERROR, 99)
    record = world.scheduler.record(b"a")
    assert (record.place, record.status, record.label, record.reason) == (Place.ENDED, Status.ERROR, "mine", "")
    assert (record.submitted, record.dispatched, record.ended, record.duration) == (began, began, began + 2, 1.5)
    assert (record.size, record.result_size, record.attempt) == (7, 99, 0)
    assert world.scheduler.record(b"never") is None


def test_records_of_one_client_or_of_all(world):
    world.client(1)
    world.submit(b"a")
    world.submit(b"b", 1)
    world.do(events.AbortRequested(1))
    assert [record.task for record in world.scheduler.records()] == [b"a", b"b"]
    (record,) = world.scheduler.records(1)
    assert (record.task, record.reason, record.status) == (b"b", "aborted", None)


@pytest.mark.parametrize("bound", [{"max_records": 32}, {"max_record_bytes": 320}])
def test_records_are_bounded_by_number_and_by_bytes_and_pending_tasks_are_never_culled(bound):
    world = World(Settings(**bound))
    world.client(0)
    engine = world.engine()
    suspect = world.engine()
    suspect.is_suspect = True
    world.do(events.EngineSuspected(suspect.id))
    world.submit(b"pending", target=suspect.id)
    forgotten: list[bytes] = []
    for number in range(100):
        world.submit(b"%d" % number)
        for action in kinds(world.finish(engine, result_size=10), actions.Forget):
            forgotten += action.tasks
    assert forgotten == [b"%d" % number for number in range(len(forgotten))], "the oldest first"
    assert world.scheduler.record(b"pending").place is Place.QUEUED
    assert 60 <= len(forgotten) < 100
    assert len(world.scheduler.state.records.ring) <= 32


def test_a_single_result_over_the_bound_is_told_and_forgotten():
    world = World(Settings(max_record_bytes=100))
    world.client(0)
    engine = world.engine()
    world.submit(b"a")
    out = world.finish(engine, result_size=101)
    assert out == [actions.Deliver(b"a", 0, 0, 0), actions.Forget((b"a",))]


# --- timers ---


class Thing:
    watch_at = NEVER


def test_one_live_entry_for_each_thing_the_earliest():
    timers: Timers[Thing] = Timers()
    first, second = Thing(), Thing()
    timers.arm(first, 5.0)
    timers.arm(first, 7.0)
    timers.arm(second, 4.0)
    timers.arm(second, 3.0)
    assert timers.next() == 3.0
    assert list(timers.due(2.9)) == []
    assert list(timers.due(4.5)) == [second]
    assert timers.next() == 5.0
    assert list(timers.due(9.0)) == [first]
    assert timers.next() is None


def test_stale_entries_are_not_deadlines():
    timers: Timers[Thing] = Timers()
    thing = Thing()
    timers.arm(thing, 5.0)
    timers.arm(thing, 3.0)
    assert list(timers.due(3.0)) == [thing]
    assert timers.next() is None
    assert timers.heap == []


def test_a_million_short_tasks_with_a_long_timeout_leave_no_heap(world):
    engine = world.engine()
    for number in range(300):
        world.submit(b"%d" % number, timeout=3600.0)
        world.finish(engine)
    assert len(world.scheduler.state.timers.heap) == 1


# --- the invariants bite ---


def sabotage_place(state):
    state.tasks[b"queued"].place = Place.HELD


def sabotage_forget(state):
    del state.tasks[b"queued"]


def sabotage_load(state):
    state.engines[0].load += 1.0


def sabotage_bytes(state):
    state.clients[0].live_bytes += 1


def sabotage_ring(state):
    state.balanced.ring.clear()


def sabotage_level(state):
    state.engines[1].level = 3


def sabotage_timers(state):
    state.timers.heap.clear()


def sabotage_dead(state):
    state.clients[0].flow.dead += 1


def sabotage_records(state):
    state.records.bytes += 1


def sabotage_waiting(state):
    state.tasks[b"held"].dependents = None


@pytest.mark.parametrize(
    "sabotage", [value for name, value in sorted(globals().items()) if name.startswith("sabotage")]
)
def test_the_invariants_bite(world, sabotage):
    world.engine()
    world.engine().is_draining = True
    world.do(events.EngineDraining(1))
    world.submit(b"held", timeout=1.0)
    world.submit(b"queued")
    world.submit(b"waits", after=Dependency((b"held",)))
    check_settled(world.scheduler.state, world.now)
    sabotage(world.scheduler.state)
    with pytest.raises(InvariantViolation):
        check(world.scheduler.state)


def test_work_that_could_run_and_waits_is_a_violation(world):
    world.engine()
    out: list[actions.AnyAction] = []
    world.scheduler.handle_into(events.TaskSubmitted(b"a", 0, b"f", 1), world.now, out)
    with pytest.raises(InvariantViolation, match="balanced work waits"):
        check_settled(world.scheduler.state, world.now)

"""Who gets how much of the engines when more is wanted than there is."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterd.core.model.task import Status
from clusterd.core.scheduler import Scheduler, actions, events
from clusterd.core.scheduler.runtimes import LARGEST_SHARE, QUANTUM
from tests.unit.scheduler.world import World


def serve(scheduler, durations, seconds, now=0.0, targets=None):
    """Run one engine's work for some seconds of its time; return the seconds that each client (or target kind) had."""
    had: Counter[object] = Counter()
    out = scheduler.handle(events.Tick(), now)
    running = [action for action in out if type(action) is actions.Dispatch]
    held = running
    while seconds > 0:
        action = held.pop(0)
        task = scheduler.state.tasks[action.task]
        duration = durations[task.spec.function]
        now += duration
        seconds -= duration
        had[task.client.handle if targets is None else targets(task)] += duration
        out = scheduler.handle(
            events.TaskFinished(action.task, action.engine, action.attempt, Status.OK, duration), now
        )
        held += [action for action in out if type(action) is actions.Dispatch]
    return had


def backlog(scheduler, client, function, count, target=None, prefix=b""):
    for number in range(count):
        name = b"%s%d/%s/%d" % (prefix, client, function, number)
        scheduler.handle_into(events.TaskSubmitted(name, client, function, 1, target), 0.0, [])


def learn(scheduler, durations):
    for function, duration in durations.items():
        known = scheduler.state.functions.make(function)
        for _ in range(3):
            known.add(duration)


@settings(derandomize=True, deadline=None, max_examples=15)
@given(st.lists(st.sampled_from([0.0005, 0.004, 0.02, 0.1]), min_size=2, max_size=5))
def test_backlogged_clients_get_equal_time_whatever_the_length_of_their_tasks(lengths):
    scheduler = Scheduler()
    scheduler.handle(events.EngineAttached(0, b"", "engines", 0), 0.0)
    durations = {b"f%d" % client: length for client, length in enumerate(lengths)}
    learn(scheduler, durations)
    seconds = 2.0
    for client, length in enumerate(lengths):
        scheduler.handle_into(events.ClientAttached(client, max_tasks=10**6, max_bytes=10**9), 0.0, [])
        backlog(scheduler, client, b"f%d" % client, int(seconds / length) + 10)
    had = serve(scheduler, durations, seconds)
    # Each may be ahead by a quantum and a largest share; the engine's window and the last task blur it a little.
    assert max(had.values()) - min(had[client] for client in range(len(lengths))) <= 2 * (QUANTUM + LARGEST_SHARE)


def test_one_who_submits_long_tasks_one_by_one_pays_for_them():
    scheduler = Scheduler()
    scheduler.handle(events.EngineAttached(0, b"", "engines", 0), 0.0)
    durations = {b"long": 0.1, b"short": 0.001}
    learn(scheduler, durations)
    for client in range(2):
        scheduler.handle(events.ClientAttached(client, max_tasks=10**6), 0.0)
    backlog(scheduler, 1, b"short", 9000)
    had: Counter[int] = Counter()
    now, number, held = 0.0, 0, []
    for _ in range(3000):
        out: list[actions.AnyAction] = []
        if scheduler.queue_status().clients[0].queued + scheduler.queue_status().clients[0].held == 0:
            number += 1
            scheduler.handle_into(events.TaskSubmitted(b"%d" % number, 0, b"long", 1), now, out)
        scheduler.settle(now, out)
        held += [action for action in out if type(action) is actions.Dispatch]
        action = held.pop(0)
        task = scheduler.state.tasks[action.task]
        duration = durations[task.spec.function]
        had[task.client.handle] += duration
        now += duration
        out = scheduler.handle(events.TaskFinished(action.task, 0, action.attempt, Status.OK, duration), now)
        held += [action for action in out if type(action) is actions.Dispatch]
    assert had[0] < 1.3 * had[1]


@pytest.mark.parametrize("target", [0, (0, 1)])
@pytest.mark.parametrize(("targeted", "balanced"), [(0.001, 0.001), (0.02, 0.001), (0.001, 0.02)])
def test_targeted_and_balanced_floods_share_an_engine(target, targeted, balanced):
    scheduler = Scheduler()
    scheduler.handle(events.EngineAttached(0, b"", "engines", 0), 0.0)
    scheduler.handle(events.ClientAttached(0, max_tasks=10**6), 0.0)
    durations = {b"targeted": targeted, b"balanced": balanced}
    learn(scheduler, durations)
    backlog(scheduler, 0, b"balanced", 8000)
    backlog(scheduler, 0, b"targeted", 8000, target)
    had = serve(scheduler, durations, 4.0, targets=lambda task: task.spec.function)
    assert had[b"targeted"] == pytest.approx(had[b"balanced"], rel=0.1)


def test_a_direct_task_is_next_in_a_flood_of_balanced_ones_and_a_balanced_one_in_a_flood_of_direct():
    world = World()
    world.client(0)
    engine = world.engine()
    world.teach(0.01)
    for number in range(100):
        world.submit(b"balanced%d" % number)
    world.submit(b"direct", target=0)
    world.finish(engine)
    assert engine.inside[0].task == b"direct"
    for number in range(100):
        world.submit(b"direct%d" % number, target=0)
    order = []
    for _ in range(20):
        order.append(engine.inside[0].task.rstrip(b"0123456789"))
        world.finish(engine, 0.01)
    assert 8 <= Counter(order)[b"direct"] <= 12


def test_direct_work_does_not_catch_up_with_what_ran_while_it_wanted_nothing():
    world = World()
    world.client(0)
    engine = world.engine()
    world.teach(0.01)
    for number in range(60):
        world.submit(b"balanced%d" % number)
    for _ in range(30):
        world.finish(engine, 0.01)
    for number in range(60):
        world.submit(b"direct%d" % number, target=0)
    order = []
    for _ in range(10):
        world.finish(engine, 0.01)
        order.append(engine.inside[0].task.rstrip(b"0123456789"))
    assert Counter(order)[b"balanced"] >= 3


def test_pools_and_direct_work_take_turns():
    world = World()
    world.client(0)
    engine = world.engine()
    world.engine()
    world.teach(0.01)
    world.do(events.EngineSuspected(1))
    world.engines[1].is_suspect = True
    for number in range(50):
        world.submit(b"direct%d" % number, target=0)
        world.submit(b"pooled%d" % number, target=(0, 1))
    order = []
    for _ in range(20):
        order.append(engine.inside[0].task.rstrip(b"0123456789"))
        world.finish(engine, 0.01)
    assert 8 <= Counter(order)[b"direct"] <= 12


def test_direct_work_of_two_clients_takes_turns():
    world = World()
    world.client(0)
    world.client(1)
    engine = world.engine()
    world.teach(0.01)
    for number in range(50):
        world.submit(b"a%d" % number, 0, target=0)
    world.submit(b"b", 1, target=0)
    for _ in range(3):
        world.finish(engine, 0.01)
        if engine.inside[0].task == b"b":
            break
    assert engine.inside[0].task == b"b"


def test_one_who_does_not_read_gets_nothing_and_slows_nobody():
    world = World()
    world.client(0)
    world.client(1)
    engine = world.engine()
    world.teach(0.01)
    for number in range(20):
        world.submit(b"a%d" % number, 0)
        world.submit(b"d%d" % number, 0, target=0)
        world.submit(b"b%d" % number, 1)
    world.blocked.add(0)
    world.do(events.ResultsBlocked(0))
    world.do(events.ResultsBlocked(7), events.ResultsUnblocked(7))
    while engine.inside:
        world.finish(engine, 0.01)
    assert all(world.promises[b"b%d" % number].end for number in range(20))
    world.submit(b"more", 0)
    assert not engine.inside
    world.blocked.clear()
    world.do(events.ResultsUnblocked(0), events.ResultsUnblocked(0))
    assert engine.inside

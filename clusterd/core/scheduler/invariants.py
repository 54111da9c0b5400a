"""CHECKS what must hold between the parts of a Scheduler's state, after every event. Slow: for tests and debugging.

`check` raises InvariantViolation with the first thing that is wrong. `check_settled` adds what holds only when `settle` has run.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from clusterd.core.model.task import Place
from clusterd.core.scheduler.engine import CLOSED_TO_ALL, DRAINING, OCCUPIED, STALLED, TOP
from clusterd.core.scheduler.schemes import LeastRecent, Seats
from clusterd.core.scheduler.waits import is_live
from clusterd.core.timers import NEVER

if TYPE_CHECKING:
    from clusterd.core.model.task import TaskId
    from clusterd.core.scheduler.engine import Engine
    from clusterd.core.scheduler.state import State
    from clusterd.core.scheduler.tasks import FairQueue, Flow, Task


class InvariantViolation(AssertionError):
    """The scheduler's state contradicts itself: a bug in it."""


def _hold(condition: object, text: str) -> None:
    if not condition:
        raise InvariantViolation(text)


def check(state: State) -> None:
    """Check all that holds after each event."""
    _check_places(state)
    for fair in _fair_queues(state):
        _check_fair(fair)
    for engine in state.engines.values():
        _check_engine(state, engine)
    _check_levels(state)
    _check_pools(state)
    _check_clients(state)
    _check_records(state)
    _check_orphans(state)
    _check_waiting(state)
    _check_timers(state)


def check_settled(state: State, now: float) -> None:
    """Check all that holds after `settle`: nothing that could run waits."""
    check(state)
    _hold(not state.resolving, "dependents have not been told")
    _hold(not state.ready_engines and not state.ready_pools, "targeted work has not been served")
    _hold(not state.balanced.ring or not any(state.levels.buckets), "balanced work waits while an engine takes some")
    for engine in state.engines.values():
        takes = engine.has_window() and not (engine.held and engine.head_since + state.overrun <= now)
        if takes and not engine.flags & CLOSED_TO_ALL:
            _hold(not engine.direct.ring, f"direct work for {engine.name} waits while it takes some")
            if not engine.flags & DRAINING:
                for pool in state.pools.values():
                    _hold(
                        engine not in pool.members or not pool.fair.ring,
                        f"pooled work waits while {engine.name} takes some",
                    )
    for engine in state.draining.values():
        _hold(engine.held or engine.direct.queued(), f"{engine.name} is drained and was not reported")


def _fair_queues(state: State) -> list[FairQueue]:
    engines = (engine.direct for engine in state.engines.values())
    pools = (pool.fair for pool in state.pools.values())
    return [state.balanced, *engines, *pools]


def _check_places(state: State) -> None:
    """Each task is in exactly one place, and that is the one it says."""
    found: dict[Place, Counter[TaskId]] = {place: Counter() for place in Place}
    found[Place.WAITING].update(list(state.waiting))
    for fair in _fair_queues(state):
        for flow in fair.flows.values():
            queued = [task for task in flow.tasks if task.place is Place.QUEUED]
            _hold(all(task.flow is flow for task in queued), "a queued task names another flow than the one it is in")
            _hold(all(state.tasks.get(task.id) is task for task in queued), "a queued task is not known")
            found[Place.QUEUED].update(task.id for task in queued)
    for engine in state.engines.values():
        found[Place.HELD].update(list(engine.held))
    found[Place.ENDED].update(task.id for task in state.records.ring)
    _hold(sum(map(Counter.total, found.values())) == len(state.tasks), "tasks were lost, or are in two places")
    for task_id, task in state.tasks.items():
        _hold(task.id == task_id, f"{task_id!r} leads to another task")
        _hold(found[task.place][task_id] == 1, f"{task_id!r} is not where it says, {task.place.name}")


def _check_fair(fair: FairQueue) -> None:
    ring: list[Flow] = list(fair.ring)
    _hold(len(set(map(id, ring))) == len(ring), "a flow is twice in a ring")
    for handle, flow in fair.flows.items():
        alive = sum(task.place is Place.QUEUED for task in flow.tasks)
        _hold(flow.fair is fair and flow.client.handle == handle, "a flow is in the wrong queue")
        _hold(flow in flow.client.flows, "a flow is not known to its client")
        _hold(flow.dead == len(flow.tasks) - alive, "the dead of a flow are miscounted")
        _hold(alive or not flow.tasks, "a flow keeps the dead alone")
        _hold(flow.is_active == (flow in ring), "a flow is wrong about being in the ring")
        _hold(
            flow.is_active == (alive > 0 and not flow.client.is_blocked),
            "a flow is (not) in the ring and should (not) be",
        )


def _check_engine(state: State, engine: Engine) -> None:
    held = list(engine.held.values())
    _hold(all(task.engine is engine for task in held), f"{engine.name} holds a task that names another engine")
    _hold(engine.bytes == sum(task.size for task in held), f"the bytes of {engine.name} are miscounted")
    _hold(abs(engine.load - sum(task.weight for task in held)) < 1e-6, f"the load of {engine.name} is miscounted")
    _hold(
        engine.timed == sum(task.timeout is not None for task in held), f"the timeouts of {engine.name} are miscounted"
    )
    given = [task for task in held if task.order]
    _hold(len(given) <= engine.max_held, f"{engine.name} holds more than its cap")
    _hold(
        sum(task.size for task in given[:-1]) < max(1, engine.max_bytes), f"{engine.name} holds more bytes than its cap"
    )
    _hold(
        [task.order for task in given] == sorted({task.order for task in given}),
        f"orders of {engine.name} are not rising",
    )
    _hold(all(task.order <= engine.order for task in given), f"{engine.name} holds an order that was not given")
    refusing = [task for task in given if engine.id in task.refused]
    _hold(not refusing, f"{engine.name} was given again what it refuses")
    _hold(held or not engine.flags & STALLED, f"{engine.name} is stalled by nothing")
    _hold(bool(engine.flags & OCCUPIED) == bool(engine.orphans), f"{engine.name} is wrong about its orphans")
    _hold(engine.is_ready == (engine in state.ready_engines), f"{engine.name} is wrong about being ready")


def _check_levels(state: State) -> None:
    levels = state.levels
    _hold(len(levels.buckets) == TOP, "the number of levels has changed")
    for level, bucket in enumerate(levels.buckets):
        _hold(not bucket or level >= levels.lowest, "an engine stands below the lowest level")
        for position, engine in enumerate(bucket):
            _hold((engine.level, engine.position) == (level, position), f"{engine.name} stands elsewhere than it says")
            _hold(state.engines.get(engine.id) is engine, f"{engine.name} is lost and still stands in the levels")
    placed = sum(map(len, levels.buckets))
    _hold(placed == sum(engine.level >= 0 for engine in state.engines.values()), "engines are missing from the levels")
    if isinstance(levels, Seats):
        _check_seats(state, levels)
    for engine in state.engines.values():
        takes = not engine.flags and engine.has_window()
        _hold((engine.level >= 0) == takes, f"{engine.name} is (not) in the levels and should (not) be")
        _hold((engine.level == 0) == (takes and not engine.held), f"{engine.name} is wrong about being idle")


def _check_seats(state: State, seats: Seats) -> None:
    for position, engine in enumerate(seats.open):
        _hold(engine.seat == position, f"{engine.name} sits elsewhere than it says")
    for engine in state.engines.values():
        _hold((engine.seat >= 0) == (engine.level >= 0), f"{engine.name} takes work (not) and is (not) in the draw")
    if isinstance(seats, LeastRecent):
        entries = {(used, engine_id) for used, engine_id, _ in seats.heap}
        missing = [engine for engine in seats.open if (engine.used, engine.id) not in entries]
        _hold(not missing, "an engine takes work and never has its turn")


def _check_pools(state: State) -> None:
    for (ids, is_avoiding), pool in state.pools.items():
        _hold((pool.ids, pool.is_avoiding) == (ids, is_avoiding), "a pool has another name")
        living = {engine_id for engine_id in state.engines if (engine_id in ids) is not is_avoiding}
        _hold(living == {engine.id for engine in pool.members}, "a pool has the wrong members")
        _hold(pool.members or is_avoiding, "a pool has no members, and never will have")
        for task in [task for flow in pool.fair.flows.values() for task in flow.tasks if task.place is Place.QUEUED]:
            _hold(
                not any(engine.id in task.refused for engine in pool.members), f"{task.id!r} may go where it is refused"
            )
            is_barred = any(engine.id in task.avoid for engine in pool.members)
            _hold(not (task.is_choosy and is_barred), f"{task.id!r} prefers other engines and may not get one")
            _hold(pool.members or not task.is_choosy, f"{task.id!r} prefers engines that do not exist")
        _hold(pool.is_ready == (pool in state.ready_pools), "a pool is wrong about being ready")
        _hold(not pool.fair.ring or pool.is_waiting or pool.is_ready, "a pool with work is not looked at")
        for engine in state.engines.values():
            count = engine.pools.count(pool)
            _hold(count == (pool.is_waiting and engine in pool.members), f"{engine.name} is wrong about a pool")
    for engine in state.engines.values():
        _hold(all(pool in state.pools.values() for pool in engine.pools), f"{engine.name} has a pool that is gone")


def _check_clients(state: State) -> None:
    live = [task for task in state.tasks.values() if task.place is not Place.ENDED]
    count: Counter[int] = Counter(task.client.handle for task in live)
    size: Counter[int] = Counter()
    for task in live:
        size[task.client.handle] += task.size
        _hold(state.clients.get(task.client.handle) is task.client, "a live task has a client that is gone")
    for handle, client in state.clients.items():
        _hold((client.live_tasks, client.live_bytes) == (count[handle], size[handle]), f"client {handle} is miscounted")
        _hold(client.live_tasks <= max(1, client.max_tasks), f"client {handle} has more tasks than it may")
        _hold(
            client.live_bytes <= client.max_bytes or client.live_tasks == 1,
            f"client {handle} has more bytes than it may",
        )
        _hold(client.live_tasks or not client.is_forgotten, f"client {handle} is forgotten and has nothing left")


def _check_records(state: State) -> None:
    records = state.records
    _hold(len(records.ring) <= records.max_records, "too many records")
    _hold(records.bytes == sum(task.result_size for task in records.ring), "the bytes of the records are miscounted")
    _hold(records.bytes <= records.max_bytes, "the records have too many bytes")


def _check_orphans(state: State) -> None:
    count: Counter[int] = Counter(orphan.engine.id for orphan in state.orphanage.running.values())
    _hold(all(engine.orphans == count[engine.id] for engine in state.engines.values()), "orphans are miscounted")
    _hold(all(engine_id in state.engines for engine_id in count), "an orphan runs on an engine that is gone")
    orphanage = state.orphanage
    kinds: Counter[bytes] = Counter([*orphanage.running, *orphanage.finished, *orphanage.lost])
    _hold(all(times == 1 for times in kinds.values()), "an orphan runs and has finished, or was lost")
    _hold(not state.tasks.keys() & kinds.keys(), "an orphan is a known task")
    most = max(len(orphanage.finished), len(orphanage.lost))
    _hold(most <= state.settings.max_orphans, "too many orphans")


def _check_waiting(state: State) -> None:
    """What waits is told by each task that it waits for, and nothing else is."""
    expected: set[tuple[TaskId, TaskId]] = set()
    for task in state.waiting.values():
        _hold(task.conditions, f"{task.id!r} waits for nothing")
        _hold(
            all(condition.is_met is not False for condition in task.conditions), f"{task.id!r} waits for the impossible"
        )
        expected |= {(other, task.id) for condition in task.conditions for other in condition.left}
    told = [*state.tasks.values(), *(task for task in state.resolving if task.id not in state.tasks)]
    found = {(task.id, dependent) for task in told for dependent in _dependents(task)}
    _hold(found >= expected, "a task that waits would not be told")
    resolving = {task.id for task in state.resolving}  # the next `resolve` skips those that do not wait any more
    idle = {dependent for task_id, dependent in found if task_id not in resolving} - state.waiting.keys()
    _hold(not idle, "a task that does not wait would be told")


def _dependents(task: Task) -> dict[TaskId, Task]:
    return task.dependents or {}


def _check_timers(state: State) -> None:
    live = {id(whose) for when, _, whose in state.timers.heap if whose.watch_at == when}
    for engine in state.engines.values():
        if len(engine.held) > 1 and not engine.flags & STALLED and state.overrun < NEVER:
            _hold(id(engine) in live, f"nobody watches {engine.name}, in which tasks wait")
        head = next(iter(engine.held.values()), None)
        if head is not None and head.timeout is not None:
            _hold(id(engine) in live, f"nobody watches the timeout on {engine.name}")
    for pool in state.pools.values():
        choosy = any(
            task.is_choosy for flow in pool.fair.flows.values() for task in flow.tasks if task.place is Place.QUEUED
        )
        _hold(not choosy or id(pool) in live, "nobody watches a pool of retries")
    waits = {id(entry[2]): entry[0] for entry in state.waits.heap if is_live(entry)}
    for task in state.tasks.values():
        if task.spec.max_wait is not None and task.place in (Place.QUEUED, Place.WAITING):
            _hold(waits.get(id(task)) == task.wait_until, f"nobody watches how long {task.id!r} waits")
    _hold(not waits or state.waits.watch_at <= min(waits.values()), "nobody watches how long tasks wait")
    _hold(not waits or id(state.waits) in live, "the timer of the waits is not armed")
    has_ended = state.orphanage.finished or state.orphanage.lost
    _hold(not has_ended or id(state.orphanage) in live, "nobody watches the results of orphans")

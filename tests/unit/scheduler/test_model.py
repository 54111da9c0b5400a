"""Random lives of a cluster: whatever happens in whatever order, no task is lost, doubled or misplaced."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clusterd.core.model.task import Dependency, Place, Scheme, Status
from clusterd.core.scheduler import Settings, actions, events
from tests.unit.scheduler.world import FakeEngine, World

CLIENTS = 3
FUNCTIONS = {b"short": 0.0005, b"quick": 0.003, b"long": 2.0}
clients = st.integers(0, CLIENTS - 1)
dependencies = st.tuples(st.booleans(), st.sampled_from([(True, False), (False, True), (True, True)]))


class Cluster(RuleBasedStateMachine):
    """The rules are what the world does; `World` judges each answer."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.number = 0
        self.forgotten: set[int] = set()
        self.late: list[events.AnyEvent] = []  # results on their way, and repeats of old ones
        self.old: list[events.TaskFinished] = []

    # --- who is there ---

    @initialize(engines=st.integers(0, 4), scheme=st.sampled_from([Scheme.LEASTLOAD, *Scheme]), seed=st.integers(0, 9))
    def begin(self, engines: int, scheme: Scheme, seed: int) -> None:
        self.world = World(
            Settings(max_records=60, max_functions=2, poison_kills=2, max_record_bytes=4000, scheme=scheme, seed=seed)
        )
        for handle in range(CLIENTS):
            self.world.client(handle, max_tasks=40, max_bytes=2000)
        for _ in range(engines):
            self.attach(8, 300)

    @rule(max_held=st.integers(1, 8), max_bytes=st.sampled_from([1, 60, 10_000]))
    def attach(self, max_held: int, max_bytes: int) -> None:
        if len(self.world.engines) < 6:
            self.world.engine(max_held=max_held, max_bytes=max_bytes)

    @rule(handle=clients)
    def forget(self, handle: int) -> None:
        self.world.do(events.ClientDetached(handle), events.ClientForgotten(handle))
        self.forgotten.add(handle)

    @rule(handle=clients)
    def detach_and_return(self, handle: int) -> None:
        self.world.do(events.ClientDetached(handle), events.ClientReturned(handle))

    @rule(handle=clients)
    def come_again(self, handle: int) -> None:
        state = self.world.scheduler.state
        if handle in self.forgotten and handle not in state.clients:
            self.forgotten.discard(handle)
            self.world.blocked.discard(handle)
            self.world.client(handle, max_tasks=40, max_bytes=2000)

    @rule(handle=clients, is_blocked=st.booleans())
    def read_or_not(self, handle: int, is_blocked: bool) -> None:
        if handle not in self.world.scheduler.state.clients:
            return
        if is_blocked:
            self.world.blocked.add(handle)
            self.world.do(events.ResultsBlocked(handle))
        else:
            self.world.blocked.discard(handle)
            self.world.do(events.ResultsUnblocked(handle))

    # --- work ---

    @rule(data=st.data(), count=st.integers(1, 12), handle=clients)
    def submit(self, data: st.DataObject, count: int, handle: int) -> None:
        draw = data.draw
        function = draw(st.sampled_from(list(FUNCTIONS)))
        kind = draw(st.sampled_from(["any", "any", "one", "some", "after", "follow"]))
        ids = list(range(self.world.known_engines + 1))
        recent = list(self.world.promises)[-8:]
        fields: dict[str, object] = {
            "retries": draw(st.integers(0, 2)),
            "timeout": draw(st.sampled_from([None, None, 0.004, 1.0])),
            "size": draw(st.sampled_from([0, 10, 50, 3000])),
            "max_wait": draw(st.sampled_from([None, None, 0.0, 0.02, 2.0])),
        }
        if kind == "one":
            fields["target"] = draw(st.sampled_from(ids))
        elif kind == "some":
            fields["target"] = tuple(draw(st.lists(st.sampled_from(ids), max_size=3)))
        elif kind in {"after", "follow"} and recent:
            tasks = tuple(draw(st.lists(st.sampled_from([*recent, b"never"]), min_size=0, max_size=3)))
            is_all, (on_success, on_failure) = draw(dependencies)
            fields[kind] = Dependency(tasks, is_all, on_success, on_failure)
        batch = []
        for _ in range(count):
            self.number += 1
            batch.append(events.TaskSubmitted(b"t%d" % self.number, handle, function, **fields))
        self.world.do(*batch)

    @precondition(lambda self: self.world.promises)
    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(sorted(self.world.promises)))
        if task in self.world.scheduler.state.tasks:
            self.world.do(self.world.promises[task].event)

    def pick(self, data: st.DataObject) -> FakeEngine:
        return data.draw(st.sampled_from(list(self.world.engines.values())))

    @precondition(lambda self: self.world.engines)
    @rule(
        data=st.data(),
        count=st.integers(1, 10),
        status=st.sampled_from(Status),
        is_late=st.booleans(),
        is_started=st.booleans(),
    )
    def run(self, data: st.DataObject, count: int, status: Status, is_late: bool, is_started: bool) -> None:
        engine = self.pick(data)
        batch: list[events.AnyEvent] = []
        while engine.inside and len(batch) < count:
            held = engine.inside.popleft()
            if engine.is_revoked(held):
                batch.append(events.TaskNotRun(held.task, engine.id, held.attempt))
                self.world.promises[held.task].engine = None
                continue
            if is_started:
                self.world.do(events.TaskStarted(held.task, engine.id, held.attempt))
            duration = FUNCTIONS[self.world.promises[held.task].event.function]
            result = events.TaskFinished(held.task, engine.id, held.attempt, status, duration, len(batch) * 30)
            batch.append(result)
            self.old.append(result)
        if is_late:
            self.late += batch
            return
        for event in batch:  # one batch would hide that what was given back may come again at once
            self.world.do(event)

    @rule(is_aborting=st.booleans())
    def arrive(self, is_aborting: bool) -> None:
        late, self.late = self.late, []
        self.world.do(*late, *([events.AbortRequested(None)] if is_aborting else []))

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.old))
        before = len(self.late)
        self.late = [late for late in self.late if late != event]
        self.world.do(event)
        assert before - len(self.late) <= 1

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.01, 0.03, 0.5, 3.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    # --- engines ---

    @precondition(lambda self: self.world.engines)
    @rule(data=st.data(), has_page=st.booleans(), is_wanted=st.booleans())
    def die(self, data: st.DataObject, has_page: bool, is_wanted: bool) -> None:
        engine = self.pick(data)
        running = engine.running()
        self.world.lose(engine, running.task if has_page and running is not None else None, is_wanted=is_wanted)

    @precondition(lambda self: self.world.killed)
    @rule()
    def be_killed(self) -> None:
        engine = self.world.engines.get(self.world.killed.pop())
        if engine is not None:
            self.world.lose(engine)

    @precondition(lambda self: self.world.engines)
    @rule(data=st.data(), is_suspect=st.booleans())
    def suspect(self, data: st.DataObject, is_suspect: bool) -> None:
        engine = self.pick(data)
        engine.is_suspect = is_suspect
        self.world.do(events.EngineSuspected(engine.id) if is_suspect else events.EngineReturned(engine.id))

    @precondition(lambda self: self.world.engines)
    @rule(data=st.data(), is_draining=st.booleans())
    def drain(self, data: st.DataObject, is_draining: bool) -> None:
        engine = self.pick(data)
        engine.is_draining = is_draining
        self.world.do(events.EngineDraining(engine.id) if is_draining else events.EngineUndrained(engine.id))

    @precondition(lambda self: self.world.engines)
    @rule(data=st.data())
    def agent_answers(self, data: st.DataObject) -> None:
        engine = self.pick(data)
        if engine.revoked[1]:
            self.world.recalled(engine)

    @precondition(lambda self: self.world.engines)
    @rule(data=st.data(), lost=st.integers(0, 3), has_stranger=st.booleans())
    def reconnect(self, data: st.DataObject, lost: int, has_stranger: bool) -> None:
        engine = self.pick(data)
        for _ in range(min(lost, len(engine.inside))):  # the last dispatches never arrived
            self.world.promises[engine.inside.pop().task].engine = None
        outbox = [event for event in self.late if getattr(event, "engine", None) == engine.id]
        has = {(held.task, held.attempt) for held in engine.inside}
        has |= {(event.task, event.attempt) for event in outbox if isinstance(event, events.TaskFinished)}
        for event in outbox:
            if not isinstance(event, events.TaskFinished):
                self.late.remove(event)
        if has_stranger:
            self.number += 1
            self.stranger(engine, b"t%d" % self.number, has)
            return
        self.world.do(events.EngineInventory(engine.id, tuple(sorted(has))))

    def stranger(self, engine: FakeEngine, task: bytes, has: set[tuple[bytes, int]]) -> None:
        """The engine runs a task from before a restart, and its client offers it again, now or after its end."""
        out = self.world.do(events.EngineInventory(engine.id, (*sorted(has), (task, 7))))
        assert actions.AdoptUnknown(task, engine.id, 7) in out
        result = events.TaskFinished(task, engine.id, 7, Status.OK, 0.1)
        offer = events.TaskSubmitted(task, 0, b"short", 0)
        if self.number % 3 == 0:
            assert actions.Keep(task, engine.id, 7) in self.world.do(result)
        self.offer(offer, engine.id, result)

    def offer(self, offer: events.TaskSubmitted, engine: int, result: events.TaskFinished) -> None:
        world = self.world
        out: list[actions.AnyAction] = []
        before = set(world.scheduler.state.tasks)
        world.scheduler.handle_into(offer, world.now, out)
        if offer.task not in world.scheduler.state.tasks:  # refused: no client, or too much
            assert [type(action) for action in out] == [actions.Fail]
            world.do(events.TaskNotRun(offer.task, engine, 7))
            return
        world.submitted(offer, before, [])
        world.promises[offer.task].attempt = 7
        world.promises[offer.task].engine = engine
        world._perform(out)
        if world.promises[offer.task].end is None:
            world.do(result)
        assert world.promises[offer.task].end is not None

    # --- aborts ---

    @rule(data=st.data(), handle=st.one_of(st.none(), clients))
    def abort(self, data: st.DataObject, handle: int | None) -> None:
        draw = data.draw
        match draw(st.sampled_from(["tasks", "tasks", "targets", "all"])):
            case "tasks":
                some = st.lists(st.sampled_from([*sorted(self.world.promises), b"never"]), max_size=5)
                self.world.do(events.AbortRequested(handle, tasks=tuple(draw(some))))
            case "targets":
                ids = st.lists(st.integers(0, self.world.known_engines), max_size=2)
                self.world.do(events.AbortRequested(handle, targets=tuple(draw(ids))))
            case "all":
                self.world.do(events.AbortRequested(handle))

    # --- what holds always, and in the end ---

    @invariant()
    def promises_and_states_agree(self) -> None:
        state = self.world.scheduler.state
        live = {task for task, promise in self.world.promises.items() if promise.end is None}
        assert live == {task.id for task in state.tasks.values() if task.place is not Place.ENDED}
        status = self.world.scheduler.queue_status()
        assert len(live) == (
            status.unassigned
            + status.waiting
            + status.running
            + status.prefetched
            + sum(engine.queued for engine in status.engines.values())
        )
        assert len(live) == sum(client.queued + client.waiting + client.held for client in status.clients.values())
        running = {task for task, promise in self.world.promises.items() if promise.engine is not None}
        assert running <= state.tasks.keys(), "the record of a running task was culled"

    @invariant()
    def nothing_waits_longer_than_it_may(self) -> None:
        for task in self.world.scheduler.state.tasks.values():
            if task.place in {Place.QUEUED, Place.WAITING} and task.spec.max_wait is not None:
                assert task.wait_until >= self.world.now

    def teardown(self) -> None:
        """Let everything come to its end: each accepted task must."""
        world = self.world
        self.arrive(is_aborting=False)
        blocked, world.blocked = world.blocked, set()
        for handle in sorted(blocked):
            world.do(events.ResultsUnblocked(handle))
        for engine in [engine for engine in world.engines.values() if engine.is_condemned]:
            world.lose(engine)
        for engine in world.engines.values():
            engine.is_suspect = engine.is_draining = False
            world.do(events.EngineReturned(engine.id), events.EngineUndrained(engine.id))
        world.engine()  # for what all others have refused
        for _ in range(400):
            busy = [engine for engine in world.engines.values() if engine.inside]
            if not busy:
                break
            for engine in busy:
                held = engine.inside[0]
                if engine.is_revoked(held):
                    world.give_back(engine, held)
                else:
                    world.finish(engine)
        world.pass_time(5.0)
        while any(engine.inside for engine in world.engines.values()):
            world.finish(next(engine for engine in world.engines.values() if engine.inside))
        assert {task: promise.end for task, promise in world.promises.items() if promise.end is None} == {}
        assert all(client.live_tasks == 0 for client in world.scheduler.state.clients.values())


THOROUGH = int(os.environ.get("CLUSTERD_TEST_THOROUGH", "1"))
Cluster.TestCase.settings = settings(
    max_examples=60 * THOROUGH,
    stateful_step_count=40,
    deadline=None,
    derandomize=THOROUGH == 1,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
    report_multiple_bugs=False,
)
TestCluster = Cluster.TestCase

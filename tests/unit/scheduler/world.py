"""A world for the scheduler: engines that run what they are given in order, and a book of what every task was promised.

`World.do` tells the scheduler one event, performs its actions on the fake engines, and holds each action to the rules that no
implementation detail may bend: a task is in one engine at a time, ends once, and goes only where it may.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from clusterd.core.model.task import Place, Reason, Status
from clusterd.core.scheduler import Scheduler, actions, events
from clusterd.core.scheduler.invariants import check, check_settled

if TYPE_CHECKING:
    from clusterd.core.scheduler import Settings


class Held(NamedTuple):
    """A task inside an engine."""

    task: bytes
    attempt: int
    order: int


class FakeEngine:
    """One engine: `inside` is what it has not answered, its first is what it runs; `revoked` is the range on its status page."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.inside: deque[Held] = deque()
        self.revoked = (1, 0)
        self.last_order = 0
        self.is_suspect = False
        self.is_draining = False
        self.is_condemned = False

    def running(self) -> Held | None:
        """Return what it runs; what was revoked before it began is skipped by `skip` first."""
        return self.inside[0] if self.inside else None

    def is_revoked(self, held: Held) -> bool:
        return self.revoked[0] <= held.order <= self.revoked[1]


class Promise:
    """What is owed for one accepted task."""

    def __init__(self, event: events.TaskSubmitted) -> None:
        self.event = event
        self.attempt = event.attempt - 1
        self.engine: int | None = None
        self.end: str | None = None
        self.ran_on: int | None = None
        self.refused: set[int] = set()
        self.is_ok = False


class World:
    """Scheduler, engines and promises."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.scheduler = Scheduler(settings)
        self.now = 100.0
        self.engines: dict[int, FakeEngine] = {}
        self.promises: dict[bytes, Promise] = {}
        self.blocked: set[int] = set()
        self.known_engines = 0
        self.killed: list[int] = []
        self.kept: set[bytes] = set()

    # --- driving ---

    def do(self, *batch: events.AnyEvent) -> list[actions.AnyAction]:
        """Tell a batch of events and settle; check everything at each step."""
        everything: list[actions.AnyAction] = []
        for event in batch:
            out: list[actions.AnyAction] = []
            before = set(self.scheduler.state.tasks)
            self.scheduler.handle_into(event, self.now, out)
            check(self.scheduler.state)
            if isinstance(event, events.TaskSubmitted):
                self.submitted(event, before, out)
            self._perform(out)
            if isinstance(event, events.TaskFinished):
                self._answered(event, out)
            everything += out
        out = []
        self.scheduler.settle(self.now, out)
        check_settled(self.scheduler.state, self.now)
        self._perform(out)
        return everything + out

    def pass_time(self, seconds: float) -> list[actions.AnyAction]:
        """Let time pass, with a Tick at each deadline on the way."""
        out: list[actions.AnyAction] = []
        until = self.now + seconds
        while True:
            deadline = self.scheduler.next_deadline()
            if deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            out += self.do(events.Tick())
        self.now = until
        return out

    def client(self, handle: int, **limits: int) -> None:
        self.do(events.ClientAttached(handle, **limits))

    def engine(self, **limits: float) -> FakeEngine:
        number = self.known_engines
        self.known_engines += 1
        engine = self.engines[number] = FakeEngine(number)
        self.do(events.EngineAttached(number, b"uuid", "engines", number % 4, **limits))
        return engine

    def submit(self, task: bytes, client: int = 0, **fields: object) -> list[actions.AnyAction]:
        fields.setdefault("function", b"f")
        fields.setdefault("size", 10)
        return self.do(events.TaskSubmitted(task, client, **fields))

    def finish(
        self, engine: FakeEngine, duration: float = 0.001, status: Status = Status.OK, result_size: int = 5
    ) -> list[actions.AnyAction]:
        """Let an engine end what it runs."""
        held = engine.inside.popleft()
        return self.do(events.TaskFinished(held.task, engine.id, held.attempt, status, duration, result_size))

    def teach(self, duration: float, function: bytes = b"f", client: int = 0) -> None:
        """Run a function until its run time is known."""
        for number in range(3):
            task = b"teach" + function + bytes([number])
            self.submit(task, client, function=function)
            self.finish(next(engine for engine in self.engines.values() if engine.inside), duration)

    def lose(self, engine: FakeEngine, running: bytes | None = None, **fields: object) -> list[actions.AnyAction]:
        del self.engines[engine.id]
        for promise in self.promises.values():
            if promise.engine == engine.id:
                promise.engine = None
        return self.do(events.EngineLost(engine.id, "killed by signal 9", "last words", running, **fields))

    def recalled(self, engine: FakeEngine) -> list[actions.AnyAction]:
        """Let the agent answer a recall: what has not begun and is in the range will not run."""
        running = engine.running()
        at = engine.last_order if running is None else running.order
        first, last = engine.revoked
        for held in [held for held in engine.inside if held.order > at and engine.is_revoked(held)]:
            engine.inside.remove(held)
            self.promises[held.task].engine = None
        return self.do(events.EngineRecalled(engine.id, first, last, at))

    def give_back(self, engine: FakeEngine, held: Held) -> list[actions.AnyAction]:
        engine.inside.remove(held)
        self.promises[held.task].engine = None
        return self.do(events.TaskNotRun(held.task, engine.id, held.attempt))

    # --- judging ---

    def submitted(self, event: events.TaskSubmitted, before: set[bytes], out: list[actions.AnyAction]) -> None:
        """Book what a submission promises; a refused one is answered, and promises nothing."""
        if event.task not in before and event.task in self.scheduler.state.tasks:
            self.promises[event.task] = Promise(event)
            return
        if not isinstance(out[0], actions.AnswerKnown):
            assert isinstance(out[0], actions.Fail)
            assert out.pop(0).text
        assert out == [] or event.task in before

    def _answered(self, event: events.TaskFinished, out: list[actions.AnyAction]) -> None:
        verdicts = [
            action
            for action in out
            if isinstance(action, (actions.Deliver, actions.Discard, actions.Keep)) and action.task == event.task
        ]
        assert len(verdicts) == 1, "each result gets one of Deliver, Discard, Keep"

    def _perform(self, out: list[actions.AnyAction]) -> None:
        for action in out:
            match action:
                case actions.Dispatch():
                    self._dispatched(action)
                case actions.Deliver():
                    promise = self.promises[action.task]
                    assert promise.event.client == action.client
                    assert promise.attempt == action.attempt
                    self._end(action.task, "delivered")
                    promise.ran_on = action.engine
                case actions.Fail():
                    assert action.text
                    assert action.unmet is None or action.reason is Reason.UNSCHEDULABLE
                    self._check_wait(action)
                    self._end(action.task, action.reason)
                    self.promises[action.task].ran_on = action.engine
                case actions.Forget():
                    for task in action.tasks:
                        if self.promises[task].end is None:
                            self._end(task, "forgotten")
                case actions.Discard() if action.why is not actions.WhyDiscarded.UNKNOWN:
                    promise = self.promises.get(action.task)
                    if promise is not None and promise.engine == action.engine and promise.attempt == action.attempt:
                        promise.engine = None
                        promise.ran_on = action.engine
                        if action.why is actions.WhyDiscarded.REFUSED:
                            promise.refused.add(action.engine)
                case actions.Recall():
                    assert action.first <= action.last
                    engine = self.engines[action.engine]
                    assert all(
                        action.first <= held.order <= action.last for held in engine.inside if engine.is_revoked(held)
                    ), "an earlier recall that is not answered is taken back"
                    engine.revoked = (action.first, action.last)
                case actions.KillEngine():
                    self.engines[action.engine].is_condemned = True
                    self.killed.append(action.engine)
                case actions.Drained():
                    engine = self.engines[action.engine]
                    assert engine.is_draining
                    assert not any(promise.engine == engine.id for promise in self.promises.values())

    def _dispatched(self, action: actions.Dispatch) -> None:
        promise = self.promises[action.task]
        engine = self.engines[action.engine]
        event = promise.event
        assert promise.end is None, "an ended task is dispatched"
        assert promise.engine is None, "a task is given to two engines"
        assert action.attempt == promise.attempt + 1
        assert action.order == engine.last_order + 1
        assert event.client not in self.blocked, "a task is dispatched whose client does not read"
        assert not engine.is_suspect
        assert not engine.is_condemned
        targets = (event.target,) if isinstance(event.target, int) else event.target
        assert targets is None or engine.id in targets
        assert engine.id not in promise.refused
        # Direct work that was accepted before the drain still runs; so does what has to follow another task to one engine.
        assert not engine.is_draining or event.follow is not None or (targets is not None and len(set(targets)) == 1)
        self._check_dependencies(event, engine.id)
        engine.last_order = action.order
        promise.attempt = action.attempt
        promise.engine = engine.id
        engine.inside.append(Held(action.task, action.attempt, action.order))

    def _check_dependencies(self, event: events.TaskSubmitted, engine: int) -> None:
        for dependency in (event.after, event.follow):
            if dependency is None or not dependency.tasks:
                continue
            met = [
                end is not None and (dependency.on_success if self._is_ok(task) else dependency.on_failure)
                for task, end in ((task, self._ended(task)) for task in dependency.tasks)
            ]
            assert all(met) if dependency.is_all else any(met), "a task runs before what it depends on"
        if event.follow is not None and event.follow.tasks:
            places = [self.promises[task].ran_on for task in event.follow.tasks if task in self.promises]
            assert engine in places, "a task does not run where it has to"

    def _check_wait(self, action: actions.Fail) -> None:
        """A task that ends because it waited has done so for as long as it may."""
        if action.reason is not Reason.TIMEOUT or not action.text.startswith("it waited"):
            return
        promise = self.promises[action.task]
        record = self.scheduler.record(action.task)
        assert promise.engine is None
        assert promise.event.max_wait is not None
        assert record is None or self.now >= max(record.submitted, record.dispatched) + promise.event.max_wait

    def _ended(self, task: bytes) -> str | None:
        return self.promises[task].end if task in self.promises else None

    def _is_ok(self, task: bytes) -> bool:
        known = self.scheduler.record(task)
        return self.promises[task].is_ok if known is None else known.status is Status.OK

    def _end(self, task: bytes, how: str) -> None:
        promise = self.promises[task]
        assert promise.end is None, f"{task!r} ends twice: {promise.end}, {how}"
        promise.end = how
        promise.engine = None
        record = self.scheduler.record(task)
        promise.is_ok = record is not None and record.place is Place.ENDED and record.status is Status.OK


def kinds(out: list[actions.AnyAction], kind: type) -> list[actions.AnyAction]:
    """Return the actions of one kind."""
    return [action for action in out if type(action) is kind]

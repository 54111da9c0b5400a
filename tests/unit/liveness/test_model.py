"""Random lives: whatever is observed in whatever order, how an engine stands is what the evidence says, and loss takes proof."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from clusterd.core.liveness import Liveness, Settings, Standing, actions, events
from clusterd.core.liveness.invariants import check

engines = st.integers(0, 3)
agents = st.sampled_from(["a", "b"])
ages = st.sampled_from([0.0, 0.5, 4.0, 40.0])


class Lives(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.liveness = Liveness(Settings(flaps=3, expire_after=30.0))
        self.now = 50.0
        self.told: dict[int, Standing] = {}  # what the scheduler believes, by what it was told
        self.lost: set[int] = set()
        self.proven: set[int] = set()
        self.watched: set[int] = set()
        self.number = 0

    def do(self, event: events.AnyEvent) -> None:
        for action in self.liveness.handle(event, self.now):
            match action:
                case actions.Suspect(engine=engine):
                    assert self.told[engine] is Standing.ALIVE
                    self.told[engine] = Standing.SUSPECT
                case actions.Trust(engine=engine):
                    assert self.told[engine] is Standing.SUSPECT
                    self.told[engine] = Standing.ALIVE
                case actions.Quarantine(engine=engine):
                    assert self.told[engine] is Standing.SUSPECT
                case actions.Lose(engine=engine):
                    assert engine in self.told
                    assert engine in self.proven or engine not in self.watched, (
                        "lost by silence, with somebody who could tell"
                    )
                    del self.told[engine]
                    self.lost.add(engine)
                case actions.AskAgent(engine=engine) | actions.AskDaemon(engine=engine):
                    assert self.told[engine] is Standing.SUSPECT

    def wire_id(self, engine: int) -> int:
        """Engines of the strategy are places; a place whose engine was lost has a new one."""
        return engine + 4 * sum(lost % 4 == engine for lost in self.lost)

    @rule(engine=engines, agent=st.one_of(st.none(), agents))
    def attach(self, engine: int, agent: str | None) -> None:
        number = self.wire_id(engine)
        self.told.setdefault(number, Standing.ALIVE)
        if agent is not None:
            self.watched.add(number)
        self.do(events.EngineAttached(number, agent))

    @rule(engine=engines)
    def hear(self, engine: int) -> None:
        self.do(events.EngineHeard(self.wire_id(engine)))

    @rule(engine=engines)
    def unlink(self, engine: int) -> None:
        self.do(events.EngineUnlinked(self.wire_id(engine)))

    @rule(engine=engines, agent=agents, is_frozen=st.booleans(), age=ages)
    def report(self, engine: int, agent: str, is_frozen: bool, age: float) -> None:
        number = self.wire_id(engine)
        known = self.liveness.state.engines.get(number)
        if known is not None and self.now - age >= known.said_at:
            self.watched.add(number)
        self.do(events.EngineReported(number, agent, is_frozen, age))

    @rule(engine=engines)
    def exit(self, engine: int) -> None:
        self.proven.add(self.wire_id(engine))
        self.do(events.EngineExited(self.wire_id(engine), "killed"))

    @rule(engine=engines)
    def leave(self, engine: int) -> None:
        number = self.wire_id(engine)
        self.do(events.EngineLeft(number))
        if self.told.pop(number, None) is not None:
            self.lost.add(number)

    @rule(engine=engines, is_running=st.booleans(), age=ages)
    def see(self, engine: int, is_running: bool, age: float) -> None:
        if not is_running:
            self.proven.add(self.wire_id(engine))
        self.do(events.ProcessSeen(self.wire_id(engine), is_running, "seen", age))

    @rule(
        agent=agents,
        what=st.sampled_from([events.AgentHeard, events.AgentHeard, events.AgentUnlinked, events.AgentGone]),
    )
    def agent(self, agent: str, what: type) -> None:
        self.do(what(agent))

    @rule(
        client=st.integers(0, 2),
        what=st.sampled_from([events.ClientAttached, events.ClientHeard, events.ClientUnlinked]),
    )
    def client(self, client: int, what: type) -> None:
        self.do(what(client))

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.9, 3.0, 10.0, 40.0, 200.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (deadline := self.liveness.next_deadline()) is not None and deadline <= until:
            assert deadline > self.now or not self.number, "a tick that is due again at once would never end"
            self.now = max(self.now, deadline)
            self.number += 1
            self.do(events.Tick())
        self.number = 0
        self.now = until

    @rule(seconds=st.sampled_from([5.0, 500.0]))
    def stall(self, seconds: float) -> None:
        self.now += seconds
        self.do(events.Tick())

    @invariant()
    def standing_is_what_the_evidence_says(self) -> None:
        deadline = self.liveness.next_deadline()
        if deadline is None or deadline > self.now:
            check(self.liveness.state, self.now)
        assert set(self.told) == set(self.liveness.state.engines)
        for engine, told in self.told.items():
            standing = self.liveness.standing(engine)
            assert (told is Standing.ALIVE) == (standing is Standing.ALIVE)


Lives.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
TestLives = Lives.TestCase

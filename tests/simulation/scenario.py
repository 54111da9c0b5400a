"""What happens in a simulated world: an operator's wishes and blows of fate, one run from beginning to rest, and its check."""

from __future__ import annotations

from dataclasses import dataclass

from clusterd.core.model.ids import CONTROLLER
from clusterd.core.model.profile import CrashLoop, RestartPolicy
from clusterd.core.supervisor import actions, events
from clusterd.core.supervisor.settings import LauncherTraits, Settings, UnitSettings
from clusterd.core.supervisor.view import view
from tests.simulation.daemon import ALL_RULES, Crash, Daemon, Disk
from tests.simulation.world import World

# The world is nasty: what in life is a crash loop is bad luck here, so only the pause is bounded.
RESTART = RestartPolicy(initial_backoff=0.5, max_backoff=4.0, crash_loop=CrashLoop(failures=1000, within=60.0))
QUEUE = LauncherTraits(capacity=2, has_queue=True, leaves_engines=False, poll_interval=5.0, settle=10.0)
SETTINGS = Settings(
    UnitSettings(restart=RESTART, start_timeout=10.0, stop_timeout=5.0),
    {
        "engines": UnitSettings(n=3, max=16, restart=RESTART, start_timeout=10.0, stop_timeout=5.0, drain_timeout=15.0),
        "batch": UnitSettings(
            n=5, max=16, restart=RESTART, traits=QUEUE, start_timeout=10.0, stop_timeout=5.0, drain_timeout=15.0
        ),
    },
)
CALM = 150.0
"""From then on nothing goes wrong by itself any more."""
END = 420.0


def start(request):
    return events.StartRequested(request)


def stop(request):
    return events.StopRequested(request)


def scale(engine_set, n):
    return lambda request: events.ScaleRequested(request, engine_set, n)


def restart(unit):
    return lambda request: events.RestartRequested(request, unit)


def drain(engine_set, *slots, replace=False):
    return lambda request: events.DrainRequested(request, {engine_set: slots}, replace)


@dataclass(frozen=True)
class Scenario:
    """Wishes by time, blows by time, and what the operator wants in the end (None: nothing runs)."""

    wishes: tuple
    blows: tuple
    final: dict | None


SCENARIOS = {
    "scaled": Scenario(
        wishes=((0, start), (12, scale("engines", 6)), (20, scale("batch", 8)), (50, scale("engines", 2)),
                (55, scale("batch", 3)), (100, scale("engines", 4)), (104, scale("batch", 6))),
        blows=((30, "agent"), (62, "job"), (75, "outage")),
        final={"engines": 4, "batch": 6},
    ),
    "stopped": Scenario(
        wishes=((0, start), (40, scale("batch", 1)), (60, stop)),
        blows=((25, "controller"), (58, "agent"), (61, "outage")),
        final=None,
    ),
    "restarted": Scenario(
        wishes=((0, start), (20, stop), (24, start), (60, restart(CONTROLLER)), (80, restart("")), (100, scale("engines", 0))),
        blows=((50, "controller"), (90, "job")),
        final={"engines": 0, "batch": 5},
    ),
    "drained": Scenario(
        wishes=((0, start), (15, drain("engines", 1, replace=True)), (30, drain("batch", 2)), (45, drain("engines", 0)),
                (60, drain("engines", 1, 2, replace=True)), (90, drain("batch", 0, replace=True))),
        blows=((16, "agent"), (61, "agent"), (70, "controller")),
        final={"engines": 2, "batch": 4},
    ),
}  # fmt: skip


class Run:
    """One run."""

    def __init__(self, scenario, seed, *, crashes=(), rules=ALL_RULES):
        self.scenario, self.rules = scenario, rules
        self.world = World(seed)
        self.disk = Disk()
        # After how many steps each life of the daemon ends; the last one does not.
        self.crashes = list(crashes)
        self.steps = []
        self.daemon = None
        self.open = {}

    def go(self):
        world = self.world
        for request, (time, wish) in enumerate(self.scenario.wishes):
            world.later(time, self._wish, request, wish)
        for time, blow in self.scenario.blows:
            world.later(time, self._blow, blow)
        world.later(CALM, self._calm)
        self._boot()
        while (time := world.next_time()) is not None and time <= END:
            try:
                world.step()
                world.check()
            except Crash:
                self._died()
        self.steps.append(self.daemon.steps)
        self._check_rest()
        return self

    def _boot(self):
        if self.daemon is not None:
            self.steps.append(self.daemon.steps)
        steps_left = self.crashes.pop(0) if self.crashes else None
        self.daemon = Daemon(self.world, self.disk, SETTINGS, steps_left=steps_left, rules=self.rules)
        try:
            self.daemon.begin()
            # The operator asks again for whatever was not answered.
            for event in list(self.open.values()):
                self.daemon.handle(event)
                self._settle()
        except Crash:
            self._died()

    def _died(self):
        self._settle()
        self.world.daemon = None
        self.world.later(self.world.random.uniform(0.1, 6.0), self._boot)

    def _wish(self, request, wish):
        event = wish(request)
        self.open[request] = event
        if self.world.daemon is not None:
            self.daemon.handle(event)
            self._settle()

    def _settle(self):
        for request, answer in self.daemon.answered.items():
            # A drain whose answer was lost may be over when it is asked for again.
            is_repeated = isinstance(self.open.get(request), events.DrainRequested)
            assert isinstance(answer, actions.Answer) or is_repeated, answer
            self.open.pop(request, None)

    def _blow(self, kind):
        world = self.world
        if kind == "outage":
            world.outage_until = world.now + 30.0
        elif kind == "job":
            if running := [job for job in world.jobs.values() if job.state == "running" and job.agent]:
                world.end_job(world.random.choice(running))
        else:
            is_wanted = (lambda a: a.unit == CONTROLLER) if kind == "controller" else (lambda a: a.unit == "engines")
            if alive := [agent for agent in world.agents if agent.is_alive and is_wanted(agent)]:
                world.end(alive[0], "SIGKILL", False)

    def _calm(self):
        self.world.trouble = 0.0
        self.crashes = []
        self.daemon.steps_left = None
        for agent in self.world.agents:
            agent.is_deaf = False

    def _check_rest(self):
        world, wanted = self.world, self.scenario.final
        alive = [agent for agent in world.agents if agent.is_alive]
        jobs = [job for job in world.jobs.values() if job.state != "ended" and job.id != "stranger"]
        seen = view(self.daemon.supervisor, world.now)
        assert not self.open, f"nobody answered {self.open}"
        assert world.jobs["stranger"].state == "running"
        if wanted is None:
            assert not alive, f"still alive: {alive}"
            assert not jobs, f"still there: {jobs}"
            assert not world.orphans, f"without an agent: {world.orphans}"
            assert seen.state == "stopped", seen
            assert not self.daemon.supervisor.state.launches
            return
        assert sum(agent.unit == CONTROLLER for agent in alive) == 1
        for unit, n in wanted.items():
            slots = sorted(slot for agent in alive if agent.unit == unit for slot in agent.slots)
            desired = self.daemon.supervisor.state.desired[unit]
            assert slots == list(desired.slots), f"{unit}: {slots} instead of {desired}"
            assert len(slots) == n
        assert not world.orphans, f"without an agent: {world.orphans}"
        assert {job.id for job in jobs} == {agent.job for agent in alive if agent.job}, "a job that is nobody's"
        assert len(alive) == len(self.daemon.supervisor.state.launches)
        assert seen.state == "running", seen

"""A supervisor on a bench: send events by hand, look at the actions; invariants are checked after each."""

from clusterd.core.model.cluster import Cluster
from clusterd.core.model.engine import EngineView
from clusterd.core.model.ids import CONTROLLER
from clusterd.core.model.launch import ProcessIdentity
from clusterd.core.supervisor import actions, events, invariants, records
from clusterd.core.supervisor.machine import Supervisor
from clusterd.core.supervisor.settings import LauncherTraits, Settings, UnitSettings
from clusterd.core.supervisor.view import view

CLUSTER = Cluster("local", "1f3c9a20", 1000)
QUEUE = LauncherTraits(capacity=2, has_queue=True, leaves_engines=False, poll_interval=15.0, settle=30.0)
LOCAL = UnitSettings(n=4, max=8, start_timeout=20.0, stop_timeout=10.0, drain_timeout=30.0)
BATCH = UnitSettings(n=4, max=8, traits=QUEUE, start_timeout=20.0, stop_timeout=10.0, drain_timeout=30.0)
ONE_SET = Settings(UnitSettings(start_timeout=20.0), {"engines": LOCAL})
TWO_SETS = Settings(UnitSettings(start_timeout=20.0), {"engines": LOCAL, "batch": BATCH})
ONLY_BATCH = Settings(UnitSettings(start_timeout=20.0), {"batch": BATCH})


def launch(number):
    return f"1f3c9a20-{number}"


def identity(number):
    return ProcessIdentity("host", "boot", 100 + number, number, 1)


class Bench:
    def __init__(self, settings=ONE_SET, journal=()):
        self.now = 0.0
        self.journal = list(journal)
        self.supervisor = Supervisor(CLUSTER, settings)
        for data in self.journal:
            self.supervisor.apply(records.decode(data))

    def send(self, event, now=None):
        """Handle an event; return what is to be done besides the records."""
        self.now = max(self.now, self.now if now is None else now)
        done = self.supervisor.handle(event, self.now)
        self.journal += [records.encode(action.record) for action in done if isinstance(action, actions.Append)]
        self.records = [action.record for action in done if isinstance(action, actions.Append)]
        invariants.check(self.supervisor)
        invariants.check_actions(self.supervisor, done)
        return [action for action in done if not isinstance(action, actions.Append)]

    def wait(self, until):
        """Let time pass, deadline by deadline; return all that was to be done."""
        done = []
        while (deadline := self.supervisor.next_deadline()) is not None and deadline <= until:
            done += self.send(events.TimePassed(), deadline)
            after = self.supervisor.next_deadline()
            assert after is None or after > self.now
        self.now = max(self.now, until)
        return done

    def begin(self):
        return self.send(events.JournalReplayed()) + self.send(events.StartRequested(0))

    def up(self):
        """Everything runs: the controller is launch 0, the agent of `engines` launch 1."""
        self.begin()
        self.send(events.Started(launch(0), identity(0)))
        self.send(events.Started(launch(1), identity(1)))
        self.send(events.ControllerReady(launch(0)))
        self.report(1)
        self.observe("engines", *self.slots(1))
        return self

    def report(self, number, *slots, generation=None):
        known = self.supervisor.state.launches[launch(number)]
        views = tuple(events.SlotView(slot, "running") for slot in (slots or known.slots))
        generation = known.generation if generation is None else generation
        return self.send(events.AgentReported(launch(number), generation, views, self.now))

    def observe(self, unit, *slots, busy=()):
        engines = tuple(EngineView(slot, "x", slot not in busy, float(slot)) for slot in slots)
        return self.send(events.EnginesObserved(unit, engines, self.now))

    def slots(self, number):
        return self.supervisor.state.launches[launch(number)].slots

    def view(self, unit=None):
        seen = view(self.supervisor, self.now)
        if unit is None:
            return seen
        return seen.controller if unit == CONTROLLER else next(s for s in seen.sets if s.unit == unit)

    def crashed(self, settings=None):
        """The daemon died and was started again."""
        other = Bench(settings or self.supervisor.settings, self.journal)
        other.now = self.now + 1.0
        return other


def kinds(done):
    return [type(action).__name__ for action in done]

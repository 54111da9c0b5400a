"""Any events in any order, contradictory ones too: the supervisor never contradicts itself, and a replay gives its state."""

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from clusterd.core.model.cluster import Cluster
from clusterd.core.model.engine import EngineView
from clusterd.core.model.ids import CONTROLLER
from clusterd.core.model.job import JOB_STATES, Job
from clusterd.core.model.launch import ProcessIdentity
from clusterd.core.model.profile import RestartPolicy
from clusterd.core.supervisor import actions, events, invariants, records
from clusterd.core.supervisor.machine import Supervisor
from clusterd.core.supervisor.settings import LauncherTraits, Settings, UnitSettings
from clusterd.core.supervisor.view import view

CLUSTER = Cluster("any", "1f3c9a20", 1000)
BATCH = LauncherTraits(capacity=2, has_queue=True, leaves_engines=False)
PROFILES = [
    Settings(UnitSettings(), {"engines": UnitSettings(n=2, max=6), "batch": UnitSettings(n=3, max=6, traits=BATCH)}),
    Settings(UnitSettings(), {"engines": UnitSettings(n=1, max=1, restart=RestartPolicy(policy="never"))}),
    Settings(
        UnitSettings(restart=RestartPolicy(policy="on-failure")), {"batch": UnitSettings(n=0, max=6, traits=BATCH)}
    ),
]
UNITS = st.sampled_from(["engines", "batch"])
NUMBERS = st.integers(0, 12)
SLOTS = st.lists(st.integers(0, 5), unique=True, max_size=4).map(tuple)
TEXT = st.just("because")


def identities(number):
    return ProcessIdentity("host", "boot", 100 + number, number)


class AnyEvents(RuleBasedStateMachine):
    @initialize(profile=st.sampled_from(PROFILES))
    def begin(self, profile):
        self.now = 0.0
        self.journal = []
        self.supervisor = Supervisor(CLUSTER, profile)
        self.send(events.JournalReplayed())
        self.send(events.StartRequested(0))

    def send(self, event):
        before = vars(self.supervisor.state).copy()
        done = self.supervisor.handle(event, self.now)
        self.journal += [records.encode(action.record) for action in done if isinstance(action, actions.Append)]
        invariants.check(self.supervisor)
        invariants.check_actions(self.supervisor, done)
        view(self.supervisor, self.now)
        if any(isinstance(action, actions.Refuse) for action in done) and isinstance(event, events.ScaleRequested):
            assert before["desired"] == self.supervisor.state.desired
        return done

    def launch(self, number):
        """A launch that lives, if there is one, else any name."""
        living = list(self.supervisor.state.launches)
        return living[number % len(living)] if living and number < 10 else f"1f3c9a20-{number}"

    def fits(self, launch, *, is_job):
        """A performer answers for a job what is for jobs, and likewise for processes."""
        known = self.supervisor.state.launches.get(launch)
        return known is None or known.is_job == is_job

    @rule(seconds=st.sampled_from([0.01, 1.0, 7.0, 40.0, 700.0]))
    def wait(self, seconds):
        end = self.now + seconds
        while (deadline := self.supervisor.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.send(events.TimePassed())
            after = self.supervisor.next_deadline()
            assert after is None or after > self.now, "the daemon would spin"
        self.now = end

    @rule()
    def crash(self):
        state = self.supervisor.state
        self.supervisor = Supervisor(CLUSTER, self.supervisor.settings)
        for data in self.journal:
            self.supervisor.apply(records.decode(data))
        assert vars(self.supervisor.state) == vars(state)
        self.send(events.JournalReplayed())

    @rule()
    def compact(self):
        self.journal = [records.encode(record) for record in self.supervisor.snapshot()]

    @rule(
        command=st.one_of(
            st.builds(events.StartRequested, st.just(1), st.dictionaries(UNITS, st.integers(-1, 7), max_size=1)),
            st.builds(events.StopRequested, st.just(1)),
            st.builds(events.ScaleRequested, st.just(1), UNITS, st.integers(-1, 7)),
            st.builds(events.RestartRequested, st.just(1), st.sampled_from(["", CONTROLLER, "engines", "nonsense"])),
            st.builds(events.ResumeRequested, st.just(1), st.sampled_from(["", CONTROLLER, "batch", "nonsense"])),
        )
    )
    def command(self, command):
        answers = [a for a in self.send(command) if isinstance(a, actions.Answer | actions.Refuse)]
        assert len(answers) == 1

    @rule(profile=st.sampled_from(PROFILES))
    def reload(self, profile):
        # A set changes its launcher only when nothing of it runs: the performer restarts it first.
        self.send(events.ProfileChanged(profile))

    @rule(number=NUMBERS, is_clean=st.booleans())
    def exit(self, number, is_clean):
        launch = self.launch(number)
        if self.fits(launch, is_job=False):
            self.send(events.LaunchExited(launch, "gone", is_clean))

    @rule(number=NUMBERS)
    def started(self, number):
        launch = self.launch(number)
        if self.fits(launch, is_job=False):
            self.send(events.Started(launch, identities(number)))

    @rule(number=NUMBERS, verdict=st.sampled_from(["found", "absent", "unknown"]), is_known=st.booleans())
    def adoption(self, number, verdict, is_known):
        launch = self.launch(number)
        if self.fits(launch, is_job=False):
            self.send(events.AdoptionResult(launch, verdict, identities(number) if is_known else None, "looked"))

    @rule(number=NUMBERS, kind=st.sampled_from([events.LaunchRefused, events.SubmitUnknown]))
    def refused(self, number, kind):
        self.send(kind(self.launch(number), "no"))

    @rule(number=NUMBERS)
    def submitted(self, number):
        launch = self.launch(number)
        if self.fits(launch, is_job=True):
            self.send(events.Submitted(launch, f"job {number}"))

    @rule(found=st.lists(st.tuples(NUMBERS, st.sampled_from(JOB_STATES)), max_size=4), ago=st.floats(0, 60))
    def observed(self, found, ago):
        jobs = tuple(
            Job(f"job {number}", launch, state)
            for number, state in found
            if self.fits(launch := self.launch(number), is_job=True)
        )
        done = self.send(events.JobsObserved("batch", self.now - ago, (*jobs, Job("x", "stranger", "running"))))
        assert not any(isinstance(action, actions.Cancel) and action.job == "x" for action in done)

    @rule(ago=st.floats(0, 60))
    def query_failed(self, ago):
        before = dict(self.supervisor.state.launches)
        self.send(events.QueryFailed("batch", self.now - ago, "exit status 1"))
        # An error is no proof of absence: nothing is forgotten for it.
        assert before.keys() <= self.supervisor.state.launches.keys()

    @rule(number=NUMBERS)
    def ready(self, number):
        launch = self.launch(number)
        known = self.supervisor.state.launches.get(launch)
        if known is None or known.unit == CONTROLLER:
            self.send(events.ControllerReady(launch))

    @rule(number=NUMBERS, kind=st.sampled_from([events.ControllerUnreachable, events.AgentUnreachable]))
    def unreachable(self, number, kind):
        self.send(kind(self.launch(number), "closed"))

    @rule(number=NUMBERS, slots=SLOTS, behind=st.integers(0, 3))
    def reported(self, number, slots, behind):
        launch = self.launch(number)
        known = self.supervisor.state.launches.get(launch)
        if known is None or known.unit != CONTROLLER:
            generation = max(0, (known.generation if known else 3) - behind)
            views = tuple(events.SlotView(slot, "backoff", "it died") for slot in slots)
            self.send(events.AgentReported(launch, generation, views, self.now))

    @rule(unit=UNITS, slots=SLOTS, ago=st.floats(0, 60))
    def engines(self, unit, slots, ago):
        views = tuple(EngineView(slot, "x", slot % 2 == 0, float(slot)) for slot in slots)
        self.send(events.EnginesObserved(unit, views, self.now - ago))

    @rule(unit=UNITS, slots=SLOTS)
    def drained(self, unit, slots):
        self.send(events.EnginesDrained(unit, slots))

    @rule(unit=UNITS, error=st.sampled_from(["", "it does not end"]))
    def reaped(self, unit, error):
        self.send(events.ReapFinished(unit, error))


TestAnyEvents = AnyEvents.TestCase
TestAnyEvents.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)

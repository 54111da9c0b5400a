"""A world for the supervisor to act on: processes, an elastic local launcher, a batch system, chaos. No real time.

The world goes on while the daemon is dead. It checks safety itself, at every change: no slot is held by two agents that
may run, no two controllers, no process or job of a stranger is touched. Answers to a daemon that has died are lost.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field

from clusterd.core.model.engine import EngineView
from clusterd.core.model.ids import CONTROLLER
from clusterd.core.model.job import Job
from clusterd.core.model.launch import ProcessIdentity
from clusterd.core.supervisor import actions, events


class SafetyBroken(AssertionError):
    """Something happened that must never happen."""


@dataclass
class Agent:
    """An agent or the controller: a process here, or one inside a job."""

    launch: str
    unit: str
    slots: tuple[int, ...]
    generation: int
    identity: ProcessIdentity
    job: str = ""
    is_alive: bool = True
    # It has claimed its identity file; before that it does nothing.
    is_claimed: bool = False
    is_ready: bool = False
    is_deaf: bool = False


@dataclass
class BatchJob:
    id: str
    launch: str
    unit: str
    slots: tuple[int, ...]
    generation: int
    state: str = "queued"
    agent: Agent | None = None
    is_listed: bool = True


@dataclass
class World:
    """Everything that outlives the daemon.

    Attributes:
        trouble: how nasty it is, 0 (nothing ever goes wrong by itself) to 1.
    """

    seed: int
    trouble: float = 1.0
    now: float = 0.0
    agents: list[Agent] = field(default_factory=list)
    # launch -> who claimed its identity file; None: a daemon fenced it off.
    claims: dict[str, ProcessIdentity | None] = field(default_factory=dict)
    jobs: dict[str, BatchJob] = field(default_factory=dict)
    # (set, slot) of engines that an agent left behind.
    orphans: set[tuple[str, int]] = field(default_factory=set)
    outage_until: float = -1.0
    violations: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.random = random.Random(self.seed)
        self.daemon = None
        self._queue = []
        self._ticket = itertools.count()
        self._pids = itertools.count(100)
        self._job_ids = itertools.count(1)
        self.jobs["stranger"] = BatchJob("stranger", "somebody else's", "", (), 0, "running")

    # --- time --------------------------------------------------------------------------------------------------------

    def later(self, delay, call, *args):
        heapq.heappush(self._queue, (self.now + delay, next(self._ticket), call, args))

    def next_time(self):
        return self._queue[0][0] if self._queue else None

    def step(self):
        self.now, _, call, args = heapq.heappop(self._queue)
        call(*args)

    def tell(self, delay, event):
        """Answer the daemon that lives now; if it dies before, nobody hears."""
        self.later(delay, self._deliver, self.daemon, event)

    def _deliver(self, daemon, event):
        if daemon is not None and daemon is self.daemon:
            daemon.handle(event(self.now) if callable(event) else event)

    def is_trouble(self, probability):
        return self.random.random() < probability * self.trouble

    # --- safety ------------------------------------------------------------------------------------------------------

    def check(self):
        holders = {}
        for launch, unit, slots in self._may_run():
            for slot in slots if unit != CONTROLLER else (0,):
                other = holders.setdefault((unit, slot), launch)
                if other != launch:
                    raise SafetyBroken(f"{unit}/{slot} is held by {other} and {launch} at {self.now:.2f}")
        if self.violations:
            raise SafetyBroken(self.violations[0])

    def _may_run(self):
        for agent in self.agents:
            # One that has not claimed its place yet does nothing, and ends at once when it finds it claimed.
            if agent.is_alive and agent.is_claimed and not agent.job:
                yield agent.launch, agent.unit, agent.slots
        for job in self.jobs.values():
            if job.state != "ended" and job.id != "stranger":
                yield job.launch + job.id, job.unit, job.agent.slots if job.agent else job.slots

    # --- performing actions --------------------------------------------------------------------------------------------

    def perform(self, action):
        match action:
            case actions.Start():
                self._start(action)
            case actions.Submit():
                self._submit(action)
            case actions.Adopt():
                self._adopt(action)
            case actions.Query():
                self._query(action.unit)
            case actions.Stop():
                self._stop(action)
            case actions.Cancel():
                self._cancel(action.job)
            case actions.Dismiss():
                for agent in self.agents:
                    if agent.launch == action.launch and agent.is_alive:
                        if agent.job:
                            self.later(0.1, self.end_job, self.jobs[agent.job])
                        else:
                            self.later(0.1, self.end, agent, "dismissed", True)
            case actions.SetDesired():
                self.later(self.random.uniform(0.01, 0.3), self._set_desired, action)
            case actions.Drain():
                if action.is_draining:
                    for slot in action.slots:
                        self.tell(self.random.uniform(0.05, 40.0), events.EnginesDrained(action.engine_set, (slot,)))
            case actions.Reap():
                if self.is_trouble(0.2):
                    self.tell(0.2, events.ReapFinished(action.unit, "an engine does not end"))
                else:
                    self.orphans = {orphan for orphan in self.orphans if orphan[0] != action.unit}
                    self.tell(0.2, events.ReapFinished(action.unit))
            case actions.ResumeSlots():
                pass
            case _:
                raise AssertionError(action)
        self.check()

    # --- processes -----------------------------------------------------------------------------------------------------

    def _identity(self):
        return ProcessIdentity("host", "boot", next(self._pids), int(self.now * 100), 1)

    def _start(self, action):
        if self.is_trouble(0.05):
            self.tell(0.01, events.LaunchRefused(action.launch, "fork: out of memory"))
            return
        agent = Agent(action.launch, action.unit, action.slots, action.generation, self._identity())
        self.agents.append(agent)
        self.tell(0.01, events.Started(action.launch, agent.identity))
        # Imports take their time: a daemon that dies now comes back before or after the claim.
        self.later(self.random.uniform(0.02, 2.0), self._claim, agent)

    def _claim(self, agent):
        if not agent.is_alive:
            return
        if agent.launch in self.claims:
            self.end(agent, "its place was claimed", False)
            return
        self.claims[agent.launch] = agent.identity
        agent.is_claimed = True
        agent.is_deaf = self.is_trouble(0.1)
        if self.is_trouble(0.05):
            self.later(0.1, self.end, agent, "import error", False)
        elif self.is_trouble(0.03):
            pass  # hangs before it is ready
        else:
            self.later(0.2, self._ready, agent)

    def _ready(self, agent):
        agent.is_ready = agent.is_alive
        if agent.is_alive and agent.unit != CONTROLLER and not agent.job:
            self.orphans = {orphan for orphan in self.orphans if orphan[0] != agent.unit}
        self.report(agent)

    def report(self, agent):
        """What the daemon hears of it, if it can hear anything."""
        if not (agent.is_alive and agent.is_ready):
            return
        if agent.unit == CONTROLLER:
            self.tell(0.05, events.ControllerReady(agent.launch))
            for other in self.agents:
                if other.unit != CONTROLLER:
                    self.report(other)
        elif self._controller() is not None:
            slots = tuple(events.SlotView(slot, "running") for slot in agent.slots)
            asked_at = self.now
            self.tell(0.05, events.AgentReported(agent.launch, agent.generation, slots, asked_at))
            self._observe_engines(agent.unit)

    def _observe_engines(self, unit):
        engines = tuple(
            EngineView(slot, agent.launch, self.random.random() < 0.5, self.now)
            for agent in self.agents
            if agent.is_alive and agent.is_ready and agent.unit == unit
            for slot in agent.slots
        )
        self.tell(0.05, events.EnginesObserved(unit, engines, self.now))

    def _controller(self):
        return next((a for a in self.agents if a.unit == CONTROLLER and a.is_alive and a.is_ready), None)

    def connected(self):
        """A new daemon has its link to the controller: everybody is reported once."""
        if (controller := self._controller()) is not None:
            self.report(controller)

    def _set_desired(self, action):
        for agent in self.agents:
            if agent.launch == action.launch and agent.is_alive and self._controller() is not None:
                if self.is_trouble(0.25):
                    self.later(7.0, self.report, agent)  # lost; the next report of every few seconds shows it
                    continue
                if action.generation > agent.generation:
                    agent.slots, agent.generation = action.slots, action.generation
                    self.check()
                self.report(agent)

    def end(self, agent, reason, is_clean):
        if not agent.is_alive:
            return
        agent.is_alive = False
        if not is_clean and agent.unit != CONTROLLER and agent.is_ready and not agent.job:
            self.orphans |= {(agent.unit, slot) for slot in agent.slots}
        if not agent.job:
            self.tell(0.01, events.LaunchExited(agent.launch, reason, is_clean))
        if agent.unit == CONTROLLER:
            self.tell(0.01, events.ControllerUnreachable(agent.launch, "connection closed"))
        elif agent.is_ready and self._controller() is not None:
            self._observe_engines(agent.unit)

    def _adopt(self, action):
        if self.is_trouble(0.15):
            self.tell(0.1, events.AdoptionResult(action.launch, "unknown", None, "permission denied"))
            return
        identity = action.identity
        if identity is None:
            identity = self.claims.setdefault(action.launch, None)
        agent = next((a for a in self.agents if a.identity == identity), None)
        verdict = "found" if agent is not None and agent.is_alive else "absent"
        self.tell(0.1, events.AdoptionResult(action.launch, verdict, identity, "looked"))

    def _stop(self, action):
        if action.job:
            self._cancel(action.job)
            return
        agent = next((a for a in self.agents if a.identity == action.identity), None)
        if agent is None or agent.launch != action.launch:
            self.violations.append(f"a stranger was signalled: {action}")
        elif action.how == "kill":
            self.later(0.05, self.end, agent, "SIGKILL", False)
        elif not agent.is_deaf:
            self.later(self.random.uniform(0.1, 3.0), self.end, agent, "status 0", True)

    # --- the batch system ------------------------------------------------------------------------------------------------

    def _submit(self, action):
        """What sbatch can do: say yes, no, or nothing; and be heard or not. It goes on when the daemon dies."""
        if self.now < self.outage_until or self.is_trouble(0.15):
            # A time-out. The request is lost, or it arrives before or after sbatch gave up.
            if self.is_trouble(0.7):
                self.later(self.random.uniform(0.1, 8.0), self._accept, action, None)
            self.tell(5.0, events.SubmitUnknown(action.launch, "sbatch: time-out"))
        elif self.is_trouble(0.1):
            self.tell(0.5, events.LaunchRefused(action.launch, "invalid account"))
        else:
            self.later(self.random.uniform(0.1, 4.0), self._accept, action, self.daemon)

    def _accept(self, action, asker):
        job = BatchJob(f"{next(self._job_ids)}", action.launch, action.unit, action.slots, action.generation)
        self.jobs[job.id] = job
        self.check()
        self.later(self.random.uniform(0.1, 30.0), self._run_job, job)
        if asker is not None:
            answer = events.Submitted(action.launch, job.id)
            self.later(self.random.uniform(0.05, 3.0), self._deliver, asker, answer)

    def _run_job(self, job):
        if job.state != "queued":
            return
        job.state = "running"
        job.agent = Agent(job.launch, job.unit, job.slots, job.generation, self._identity(), job=job.id)
        self.agents.append(job.agent)
        self.later(0.5, self._ready, job.agent)
        if self.is_trouble(0.1):
            self.later(self.random.uniform(0.2, 60.0), self.end_job, job)

    def end_job(self, job):
        if job.state == "ended":
            return
        job.state = "ended"
        # Some systems show ended jobs for a while, others forget them at once.
        job.is_listed = self.random.random() < 0.5
        if job.agent is not None:
            self.end(job.agent, "node failure", False)

    def _cancel(self, job_id):
        job = self.jobs.get(job_id)
        if job is None or job.id == "stranger":
            self.violations.append(f"a stranger's job was cancelled: {job_id}")
        elif not self.is_trouble(0.2) and self.now >= self.outage_until:
            self.later(self.random.uniform(0.1, 2.0), self.end_job, job)

    def _query(self, unit):
        asked_at = self.now
        delay = self.random.uniform(0.05, 8.0)
        if self.now < self.outage_until or self.is_trouble(0.2):
            self.tell(delay, events.QueryFailed(unit, asked_at, "squeue: exit status 1"))
            return
        # The answer is as old as the question: what is submitted meanwhile is not in it.
        listed = tuple(
            Job(job.id, job.launch, job.state, "node failure" if job.state == "ended" else "")
            for job in self.jobs.values()
            if job.is_listed
        )
        self.tell(delay, events.JobsObserved(unit, asked_at, listed, "squeue"))

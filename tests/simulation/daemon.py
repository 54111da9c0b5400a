"""A daemon for the simulation: the real supervisor, a journal of real bytes, and a performer that can die between any two
steps. A step is the append of a batch (dead before it, within it, or after it) or one action.

The rules of the design can be switched off here, to show that the sweep notices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clusterd.core.model.cluster import Cluster
from clusterd.core.supervisor import actions, events, invariants, records
from clusterd.core.supervisor.machine import Supervisor
from clusterd.storage import segment

CLUSTER = Cluster("simulated", "1f3c9a20", 1000)


class Crash(Exception):
    """The daemon is killed."""


@dataclass(frozen=True)
class Rules:
    """What is switched off, to see whether anybody notices."""

    adopts: bool = True
    minds_when_asked: bool = True
    takes_unknown_for_unknown: bool = True
    takes_errors_for_errors: bool = True
    journals_first: bool = True


ALL_RULES = Rules()


class Disk:
    """The journal's bytes; they outlive the daemon."""

    def __init__(self):
        self.data = segment.encode_header(1, 0) + segment.encode_batch(0, 0.0, [])

    def read(self):
        found = segment.scan(self.data)
        self.data = self.data[: found.end]
        return found

    def compact(self, sequence, snapshot):
        self.data = segment.encode_header(2, sequence) + segment.encode_batch(sequence, 0.0, snapshot)


class Daemon:
    """One life of the daemon.

    Attributes:
        steps_left: how many steps it does before it dies; None: it does not.
        steps: how many it did.
        answered: the requests that were answered.
    """

    def __init__(self, world, disk, settings, *, steps_left=None, rules=ALL_RULES):
        self.world, self.disk, self.rules = world, disk, rules
        self.steps_left = steps_left
        self.steps = 0
        self.answered = {}
        self.supervisor = Supervisor(CLUSTER, settings)
        found = disk.read()
        self.sequence = found.next_sequence
        for data in found.records:
            self.supervisor.apply(records.decode(data))
        if not rules.adopts:
            for launch in list(self.supervisor.state.launches):
                self.supervisor.apply(records.LaunchEnded(CLUSTER.name, launch, "forgotten"))
        world.daemon = self

    def begin(self):
        self.handle(events.JournalReplayed())
        self.world.later(0.2, self._connect)

    def _connect(self):
        if self.world.daemon is self:
            self.world.connected()

    def handle(self, event):
        now = self.world.now
        done = self.supervisor.handle(self._without_rules(event), now)
        invariants.check(self.supervisor)
        invariants.check_actions(self.supervisor, done)
        batch = [records.encode(action.record) for action in done if isinstance(action, actions.Append)]
        acts = [action for action in done if not isinstance(action, actions.Append)]
        if self.rules.journals_first:
            self._append(batch)
            self._perform(acts)
        else:
            self._perform(acts)
            self._append(batch)
        deadline = self.supervisor.next_deadline()
        if deadline is not None:
            if isinstance(event, events.TimePassed) and deadline <= now:
                raise AssertionError(f"the deadline {deadline} is not after {now}: the daemon would spin")
            self.world.later(max(0.0, deadline - now), self._wake, deadline)

    def _wake(self, deadline):
        if self.world.daemon is self and self.supervisor.next_deadline() == deadline:
            self.handle(events.TimePassed())

    def _append(self, batch):
        if not batch:
            return
        data = segment.encode_batch(self.sequence, self.world.now, batch)
        self._step()
        if self.steps_left == 0:
            # Torn: some of it came to the disk. The next step would be the crash; it is this one.
            self.disk.data += data[: len(data) // 2]
            self.steps += 1
            raise Crash
        self._step()
        self.disk.data += data
        self.sequence += 1
        if len(self.disk.data) > 20_000:
            self.disk.compact(self.sequence, [records.encode(record) for record in self.supervisor.snapshot()])
            self.sequence += 1
        self._step()

    def _perform(self, acts):
        for action in acts:
            self._step()
            if isinstance(action, actions.Answer | actions.Refuse):
                self.answered[action.request] = action
            else:
                self.world.perform(action)

    def _step(self):
        self.steps += 1
        if self.steps_left is not None:
            if self.steps_left == 0:
                raise Crash
            self.steps_left -= 1

    def _without_rules(self, event):
        rules = self.rules
        if isinstance(event, events.SubmitUnknown) and not rules.takes_unknown_for_unknown:
            return events.LaunchRefused(event.launch, event.evidence)
        if isinstance(event, events.QueryFailed) and not rules.takes_errors_for_errors:
            return events.JobsObserved(event.unit, event.asked_at, ())
        if isinstance(event, events.JobsObserved) and not rules.minds_when_asked:
            return events.JobsObserved(event.unit, event.asked_at + 1e9, event.jobs)
        return event


def without(name):
    """All rules but one."""
    return replace(ALL_RULES, **{name: False})

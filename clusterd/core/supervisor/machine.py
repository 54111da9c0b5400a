"""The supervisor: events in, actions out. `commands` and `facts` say what an event means, `reconcile` what is then to be done.

Invariants (checked by `invariants.check` after every event in tests): the durable state changes only through records,
and each is in the actions before anything that rests on it; nothing is concluded from silence, from an error, or from an
answer to a question that was put too early; a slot is assigned to at most one launch that may still run.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

from clusterd.core.model import ids
from clusterd.core.supervisor import actions, commands, events, facts, records
from clusterd.core.supervisor.phases import Phase
from clusterd.core.supervisor.reconcile import next_deadline, reconcile
from clusterd.core.supervisor.settings import UnitSettings
from clusterd.core.supervisor.state import State
from clusterd.core.supervisor.watches import LaunchWatch, UnitWatch

if TYPE_CHECKING:
    from clusterd.core.model.cluster import Cluster
    from clusterd.core.supervisor.settings import Settings
    from clusterd.core.supervisor.state import Launch

__all__ = ["Supervisor"]

STORY_LENGTH: Final = 256
# Units that the profile no longer has: nothing of them is wanted.
_GONE: Final = UnitSettings(n=0, max=0)


class Supervisor:
    """Reconciles the desired state of one cluster with what is observed.

    Attributes:
        state: durable; changed by `apply` alone.
        settings: of the profile, as last read.
        launches: the watch of each launch of `state.launches`, under the same keys.
        units: the watch of each unit that was ever looked at.
        story: the last events and decisions, (time, what), oldest first; for `status` and bug reports.
        now: time of the event being handled or handled last; never goes back.
        is_replayed: JournalReplayed was handled, so that decisions may be made.
    """

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        """Make one without a past; then `apply` the journal's records, then handle `JournalReplayed`.

        Args:
            cluster: who it is if the journal is new; otherwise the journal's own identity holds.
            settings: of the profile.
        """
        self.state = State()
        self.settings = settings
        self.launches: dict[str, LaunchWatch] = {}
        self.units: dict[str, UnitWatch] = {}
        self.story: deque[tuple[float, str]] = deque(maxlen=STORY_LENGTH)
        self.now = -inf
        self.is_replayed = False
        self._new_cluster = cluster
        # What the present `handle` has decided so far.
        self._appends: list[actions.Action] = []
        self._acts: list[actions.Action] = []

    # --- the entrances -----------------------------------------------------------------------------------------------

    def apply(self, record: records.Record) -> None:
        """Replay one record of the journal. Afterwards it is called by `handle` alone."""
        self.state.apply(record)

    def handle(self, event: events.Event, now: float) -> list[actions.Action]:
        """Take note of an event and return what is to be done: all Appends first, the rest in order.

        Args:
            event: what happened.
            now: monotonic time; an earlier one than last time counts as that.

        Raises:
            ValueError: anything else came before JournalReplayed: nothing may be decided on half a past.
        """
        if not self.is_replayed and not isinstance(event, events.JournalReplayed):
            raise ValueError(f"{type(event).__name__} before JournalReplayed")
        self.now = max(self.now, now)
        self._appends, self._acts = [], []
        self.tell(_summary(event))
        if isinstance(event, events.JournalReplayed):
            if self.state.cluster is None:
                self.record(records.ClusterCreated(self.name, self._new_cluster))
            self.is_replayed = True
        if isinstance(event, events.CommandEvent):
            commands.take(self, event)
        else:
            facts.take(self, event)
        reconcile(self)
        return self._appends + self._acts

    def next_deadline(self) -> float | None:
        """Return when `handle(TimePassed(), ...)` is due; None: not before something happens."""
        return next_deadline(self)

    def snapshot(self) -> list[records.Record]:
        """Return records that stand for all applied so far, to compact the journal with."""
        return self.state.snapshot()

    # --- for commands and reconcile ----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The cluster's name."""
        return (self.state.cluster or self._new_cluster).name

    @property
    def instance(self) -> str:
        """The first part of every launch id."""
        return (self.state.cluster or self._new_cluster).instance

    def record(self, record: records.Record) -> None:
        """Decide a durable fact."""
        self.state.apply(record)
        self._appends.append(actions.Append(record))
        self.tell(repr(record))

    def act(self, action: actions.Action) -> None:
        """Decide that something is to be done, after the records of this event are durable."""
        self._acts.append(action)

    def tell(self, what: str) -> None:
        """Add a line to the story."""
        self.story.append((self.now, what))

    def unit_settings(self, unit: str) -> UnitSettings:
        """Return the settings of a unit; one that the profile no longer has wants nothing."""
        return self.settings.controller if unit == ids.CONTROLLER else self.settings.sets.get(unit, _GONE)

    def unit(self, unit: str) -> UnitWatch:
        """Return the watch of a unit."""
        watch = self.units.get(unit)
        if watch is None:
            watch = self.units[unit] = UnitWatch(self.unit_settings(unit).restart, f"{self.instance}/{unit}")
        return watch

    def sets(self) -> list[str]:
        """Return all engine sets: of the profile, and those of the past that something is left of."""
        units = [*self.settings.sets, *self.state.desired, *(launch.unit for launch in self.state.launches.values())]
        return [unit for unit in dict.fromkeys([*units, *sorted(self.state.orphaned)]) if unit != ids.CONTROLLER]

    def intend(self, unit: str, slots: tuple[int, ...], generation: int) -> None:
        """Record a new launch and ask for it."""
        launch = ids.format_launch(self.instance, self.state.next_number)
        traits = self.unit_settings(unit).traits
        self.record(records.LaunchIntended(self.name, launch, unit, traits.has_queue, slots, generation))
        self.launches[launch] = LaunchWatch(Phase.REQUESTED)
        if traits.has_queue:
            self.act(actions.Submit(launch, unit, slots, generation))
        else:
            self.act(actions.Start(launch, unit, slots, generation))

    def stop(self, launch: Launch, reason: str, *, is_failure: bool = False) -> None:
        """Record that a launch is to end; `reconcile` sends the signals. Without effect when it is stopping already."""
        if not launch.is_stopping:
            self.record(records.StopIntended(self.name, launch.id, reason, is_failure))

    def resume(self, unit: str) -> None:
        """Let a unit be started again at once."""
        if unit in self.state.halted or unit in self.state.failures:
            self.record(records.UnitResumed(self.name, unit))
        watch = self.unit(unit)
        watch.restarts.resume()
        watch.retry_at = None
        watch.last_end = ""


def _summary(event: events.Event) -> str:
    """Return a line for the story; long lists are counted, because thousands of engines would be thousands of lines."""
    match event:
        case events.EnginesObserved():
            return f"EnginesObserved(engine_set={event.engine_set!r}, {len(event.engines)} engines)"
        case events.AgentReported():
            return f"AgentReported(launch={event.launch!r}, generation={event.generation}, {len(event.slots)} slots)"
        case events.JobsObserved():
            return f"JobsObserved(unit={event.unit!r}, asked_at={event.asked_at:.3f}, {len(event.jobs)} jobs)"
        case events.ProfileChanged():
            return "ProfileChanged()"
        case _:
            return repr(event)

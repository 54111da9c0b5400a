"""What the supervisor knows about the present and forgets when the daemon ends: one watch per launch, one per unit.

All times are on the clock of `handle`'s `now`. A time that is None does not exist: nothing is waited for.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from clusterd.core.supervisor.phases import Phase
from clusterd.core.supervisor.restart import Restarts

if TYPE_CHECKING:
    from clusterd.core.model.engine import EngineView
    from clusterd.core.model.observed import Observation
    from clusterd.core.model.profile import RestartPolicy
    from clusterd.core.supervisor.events import SlotView

__all__ = ["LaunchWatch", "UnitWatch"]


class LaunchWatch:
    """One launch; exists exactly as long as the durable `Launch`.

    Attributes:
        phase: what is known of it.
        absent_after: only a question put later than this, whose answer does not show the launch, proves that it is gone.
            Infinite while the request is on its way: it may come to be after any question.
        running_since: when its process was started, adopted or its job first seen running; None while it waits in a queue.
        ready_since: when it was first known to be ready, in this daemon's life.
        reachable_since: since when its link is up; None while it is down.
        kill_at: when asking to end has failed and `kill` (again) is due; None while no stop was sent.
        adopt_at: when to ask for it again; None while an answer is awaited or none is needed.
        unknown_since: since when nobody can say whether it runs; None while somebody can.
        evidence: how that is known, or why it is not.
        reported_generation: of the orders that its agent last said it has carried out; -1 before its first report.
        report: what its agent last said of its slots.
    """

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.absent_after = inf if phase is Phase.REQUESTED else -inf
        self.running_since: float | None = None
        self.ready_since: float | None = None
        self.reachable_since: float | None = None
        self.kill_at: float | None = None
        self.adopt_at: float | None = None
        self.unknown_since: float | None = None
        self.evidence = ""
        self.reported_generation = -1
        self.report: Observation[tuple[SlotView, ...]] | None = None

    def is_uncertain(self, now: float, evidence: str) -> None:
        """Note that nobody can say whether it runs; the first time counts."""
        self.evidence = evidence
        if self.unknown_since is None:
            self.unknown_since = now

    def is_certain(self, evidence: str) -> None:
        """Note that it is known to run."""
        self.evidence = evidence
        self.unknown_since = None


class UnitWatch:
    """One unit: the controller or an engine set.

    Attributes:
        restarts: decides when to replace what ended.
        retry_at: no launch before this; None: at once.
        last_end: why its last launch ended unasked, empty when none did.
        query_at: when to ask the batch system next; None while there is nothing to ask for.
        is_querying: a question is on its way.
        failing_since: since when questions get no answer, None while they do.
        failure: why the last one got none.
        reap_at: when to try again to reap; None while there is no need to wait.
        is_reaping: engines without an agent are being ended.
        engines: the set's registered engines by slot, None before the first observation.
        drained: those of the slots that are drained whose engines hold nothing any more.
        patience: drain_timeout of the command that is being handled; None: the profile's.
    """

    def __init__(self, policy: RestartPolicy, seed: str) -> None:
        self.restarts = Restarts(policy, seed)
        self.retry_at: float | None = None
        self.last_end = ""
        self.query_at: float | None = None
        self.is_querying = False
        self.failing_since: float | None = None
        self.failure = ""
        self.reap_at: float | None = None
        self.is_reaping = False
        self.engines: Observation[dict[int, EngineView]] | None = None
        self.drained: set[int] = set()
        self.patience: float | None = None

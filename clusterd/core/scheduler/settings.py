"""The constants of the scheduler that a profile or a test may set. Times in seconds."""

from __future__ import annotations

from msgspec import Struct

from clusterd.core.model.task import Scheme


class Settings(Struct, frozen=True, kw_only=True):
    """What may be set; the defaults are those of the design.

    Attributes:
        prefetch_below: a function whose median is under this may be given in advance.
        window: expected run time that an engine holds, beside the hop to it: work for as long as a batch travels.
        overrun: a head that runs this much longer than a short task may has what waits behind it recalled.
        recall_again: an unanswered recall is repeated after this.
        interrupt_grace: a task that outlives the interrupt of its timeout by this has its engine killed.
        retry_patience: a retry waits this long for an engine that has not failed it, then takes any (one with a `max_wait`: so long).
        poison_kills: a task under which this many engines died is not run again, whatever retries it has left.
        max_functions: functions whose run times are remembered.
        max_records: ended tasks that are remembered, for repeats, dependencies and questions.
        max_record_bytes: bound on the result bytes of remembered tasks: what a controller may keep of them.
        orphan_patience: a result that nobody has asked for since a restart is kept this long.
        max_orphans: and at most so many of them.
        story: events remembered for people who ask what happened.
        scheme: which engine gets a balanced task, or one for several engines.
        seed: what the schemes that draw by lot begin with.
    """

    prefetch_below: float = 0.005
    window: float = 0.004
    overrun: float = 0.020
    recall_again: float = 1.0
    interrupt_grace: float = 5.0
    retry_patience: float = 1.0
    poison_kills: int = 3
    max_functions: int = 4096
    max_records: int = 10_000
    max_record_bytes: int = 1024**3
    orphan_patience: float = 600.0
    max_orphans: int = 10_000
    story: int = 256
    scheme: Scheme = Scheme.LEASTLOAD
    seed: int = 0

"""HOLDS tasks, the flows they queue in, and the clients they belong to. Nothing here decides.

A task is in exactly one place: WAITING (dependencies), QUEUED (one Flow), HELD (one Engine) or ENDED (the records). Tasks are
gc-free structs, because a million of them must not make the garbage collector walk; so the cycles through Flow and Engine are
broken by hand, when a task is taken out of them. Flows and clients are written often and are few: plain slots are faster there.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from msgspec import Struct

from clusterd.core.model.task import Place, Status, TaskId
from clusterd.core.scheduler.runtimes import QUANTUM
from clusterd.core.timers import NEVER

# The Task is never encoded, so its annotations are never evaluated; at run time these imports would be circles.
if TYPE_CHECKING:
    from clusterd.core.scheduler.dependencies import Condition  # noqa: TC004
    from clusterd.core.scheduler.engine import Engine, Pool  # noqa: TC004
    from clusterd.core.scheduler.events import TaskSubmitted  # noqa: TC004
    from clusterd.core.scheduler.runtimes import Function  # noqa: TC004


class Task(Struct, eq=False, gc=False):
    """One accepted task.

    Attributes:
        spec: the submission as it came; never changed.
        target: None (any engine), an engine, or several: the submission's, narrowed by its `follow` dependency.
        flow: the queue it is in; meaningful while QUEUED.
        attempt: number of its latest dispatch, spec.attempt - 1 before the first.
        order: number of that dispatch on its engine; 0 for one that was adopted.
        engine: who holds it while HELD; once ENDED, who ran it last.
        weight: what it adds to the engine's load while HELD.
        kills: engines that died under it.
        avoid: engines that failed it; a retry prefers others.
        is_choosy: it is queued where only those may take it, until patience ends.
        refused: engines that refuse it: it never goes there.
        wait_until: when its present wait is over; meaningful while it waits and has a max_wait.
        conditions: its dependencies that are not decided, while WAITING.
        dependents: tasks that wait for its end; None for nearly all.
        is_aborting: ends as aborted if it comes back unrun.
        interrupted: when its timeout was enforced; None before.
    """

    id: TaskId
    spec: TaskSubmitted
    client: Client
    function: Function
    flow: Flow
    size: int
    retries_left: int
    timeout: float | None
    attempt: int
    submitted: float
    target: int | frozenset[int] | None = None
    place: Place = Place.QUEUED
    order: int = 0
    engine: Engine | None = None
    weight: float = 0.0
    dispatched: float = 0.0
    ended: float = 0.0
    duration: float = 0.0
    result_size: int = 0
    status: Status | None = None
    reason: str = ""
    kills: int = 0
    avoid: frozenset[int] = frozenset()
    is_choosy: bool = False
    refused: frozenset[int] = frozenset()
    wait_until: float = NEVER
    conditions: tuple[Condition, ...] = ()
    dependents: dict[TaskId, Task] | None = None
    is_aborting: bool = False
    interrupted: float | None = None


class Flow:
    """The tasks of one client in one FairQueue.

    Attributes:
        tasks: in order; those that are not QUEUED were aborted and are skipped.
        dead: how many of them are not QUEUED.
        credit: seconds of run time that the client may still take before the next one has its turn.
        is_active: it stands in the ring.
    """

    __slots__ = ("client", "credit", "dead", "fair", "is_active", "tasks")

    def __init__(self, client: Client, fair: FairQueue) -> None:
        self.client = client
        self.fair = fair
        self.tasks: deque[Task] = deque()
        self.dead = 0
        self.credit = QUANTUM
        self.is_active = False


class FairQueue:
    """Queued tasks that the same engines may run, shared fairly between clients (see `fairness`).

    Attributes:
        owner: the engine (direct work), the pool (work for some engines), or None (balanced work).
        flows: one for each client that has used it, by handle.
        ring: all and only flows with a QUEUED task whose client reads its results; the first is next.
    """

    __slots__ = ("flows", "owner", "ring")

    def __init__(self, owner: Engine | Pool | None) -> None:
        self.owner = owner
        self.flows: dict[int, Flow] = {}
        self.ring: deque[Flow] = deque()

    def flow_of(self, client: Client) -> Flow:
        """Return the client's flow, made at its first use."""
        flow = self.flows.get(client.handle)
        if flow is None:
            flow = self.flows[client.handle] = Flow(client, self)
            client.flows.append(flow)
        return flow

    def queued(self) -> int:
        """Return how many tasks wait in it."""
        return sum(len(flow.tasks) - flow.dead for flow in self.flows.values())


class Client:
    """One client session.

    Attributes:
        live_tasks, live_bytes: what has not ended, against max_tasks and max_bytes.
        ended: all that ever did.
        flow: its balanced work; `flows` has this one and those in engines and pools.
        goes_round: see `ClientAttached`.
    """

    __slots__ = (
        "ended",
        "flow",
        "flows",
        "goes_round",
        "handle",
        "is_attached",
        "is_blocked",
        "is_forgotten",
        "live_bytes",
        "live_tasks",
        "max_bytes",
        "max_tasks",
    )

    def __init__(self, handle: int, max_tasks: int, max_bytes: int, balanced: FairQueue) -> None:
        self.handle = handle
        self.max_tasks = max_tasks
        self.max_bytes = max_bytes
        self.live_tasks = 0
        self.live_bytes = 0
        self.ended = 0
        self.is_attached = True
        self.is_blocked = False
        self.is_forgotten = False
        self.goes_round = False
        self.flows: list[Flow] = []
        self.flow = balanced.flow_of(self)

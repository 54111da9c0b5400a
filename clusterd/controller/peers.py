"""Who is attached: clients, engines, agents. Plain records; `hub` changes them, everybody reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from clusterd.controller.connection import Connection
    from clusterd.controller.doors import ClientDoor, EngineDoor
    from clusterd.core.wire.messages import SlotReport
    from clusterd.system.process import ProcessIdentity


class Loss(NamedTuple):
    """How an engine ended.

    Attributes:
        cause: a sentence for people.
        output_tail: the last lines that it wrote.
        running: the task that its status page shows; None where it shows none, or was not read.
        is_wanted: it was stopped on purpose.
    """

    cause: str
    output_tail: str = ""
    running: bytes | None = None
    is_wanted: bool = False


class Client:
    """A client or operator, by uuid; it has up to two connections."""

    __slots__ = (
        "control",
        "data",
        "door",
        "handle",
        "has_spoken",
        "host",
        "is_blocked",
        "is_expected",
        "is_operator",
        "is_subscribed",
        "label",
        "last_heard",
        "pid",
        "process",
        "refused",
        "undelivered",
        "undelivered_bytes",
        "unwanted",
        "user",
        "uuid",
    )

    def __init__(self, handle: int, uuid: bytes, now: float) -> None:
        # Small number of this client, for the scheduler; never reused.
        self.handle = handle
        self.uuid = uuid
        self.data: Connection | None = None
        self.control: Connection | None = None
        # Set for one that speaks another protocol, and has no connection of ours.
        self.door: ClientDoor | None = None
        # True once anything came under a session: from then on its uuid needs the token.
        self.has_spoken = False
        # Gets EnginesChanged; operators get AgentNotice and Drained too.
        self.is_subscribed = False
        self.is_operator = False
        # Given up, or known from the store alone: it goes as soon as its last task has ended.
        self.is_expected = False
        self.label = ""
        self.user = ""
        self.host = ""
        self.pid = 0
        # Who holds its connections, by the kernel's word; None where that is another host.
        self.process: ProcessIdentity | None = None
        # Monotonic time of the last byte.
        self.last_heard = now
        # What its last data connection could not deliver (see Connection.take_unsent); empty while it has one.
        self.undelivered: list[Any] = []
        self.undelivered_bytes = 0
        # True while the scheduler is told that it reads its results too slowly.
        self.is_blocked = False
        # How many tasks were refused since then.
        self.refused = 0
        # Tasks that it has aborted before they came, oldest first; at most as many as it may have.
        self.unwanted: dict[bytes, None] = {}

    @property
    def name(self) -> str:
        """For logs and `status`."""
        return f"client {self.label or self.uuid.hex()[:8]} ({self.user}@{self.host}, pid {self.pid})"


class Engine:
    """A registered engine, by wire id."""

    __slots__ = (
        "agent",
        "connection",
        "door",
        "engine_set",
        "functions",
        "has_spoken",
        "host",
        "id",
        "is_draining",
        "last_heard",
        "pid",
        "process",
        "python",
        "slot",
        "started_at",
        "suspect_since",
        "uuid",
    )

    def __init__(self, wire_id: int, uuid: bytes) -> None:
        self.id = wire_id
        self.uuid = uuid
        self.connection: Connection | None = None
        # Set for one that speaks another protocol, and has no connection of ours.
        self.door: EngineDoor | None = None
        self.has_spoken = False
        self.engine_set = ""
        self.slot = 0
        # Launch id of the agent that answers for it; empty for an engine without one.
        self.agent = ""
        self.host = ""
        self.pid = 0
        self.python = ""
        # Who holds its connection, by the kernel's word; None where that is another host.
        self.process: ProcessIdentity | None = None
        # Wall time.
        self.started_at = 0.0
        # Digests sent on the present connection.
        self.functions: set[bytes] = set()
        self.is_draining = False
        # Monotonic time of the last message.
        self.last_heard = 0.0
        # Since when nobody knows whether it lives (monotonic); None while it is well.
        self.suspect_since: float | None = None

    @property
    def is_suspect(self) -> bool:
        """True while it gets no work because nobody knows whether it lives, or because that was so too often."""
        return self.suspect_since is not None

    @property
    def name(self) -> str:
        """The operator's name of the place: `engines/3`."""
        return f"{self.engine_set}/{self.slot}"


class Agent:
    """An attached agent, by launch id."""

    __slots__ = (
        "connection",
        "engine_set",
        "generation",
        "has_spoken",
        "host",
        "launch",
        "missing",
        "pid",
        "slots",
        "uuid",
        "warnings",
    )

    def __init__(self, launch: str, uuid: bytes) -> None:
        self.launch = launch
        self.uuid = uuid
        self.connection: Connection | None = None
        self.has_spoken = False
        self.engine_set = ""
        self.host = ""
        self.pid = 0
        self.generation = 0
        self.slots: list[SlotReport] = []
        self.warnings: list[str] = []
        # Engines that should be its own and were not in its Attach: dead, but how is perhaps told in what follows.
        self.missing: list[Engine] = []

    @property
    def name(self) -> str:
        """For logs and error texts."""
        return f"agent of {self.engine_set} on {self.host} (pid {self.pid})"

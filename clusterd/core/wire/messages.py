"""What may be said on each link, in each direction. PROTOCOL.md gives the meaning; this file gives the shapes.

Every message is a MessagePack array that begins with its type number, so a small one is a few bytes. Numbers are never
reused. Fields are only ever added at the end, with a default: an older reader ignores them, a newer one fills them in.
The unions at the end are the whole grammar: a message that is not in the union of its link, or a field out of its range, cannot be
decoded there.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from msgspec import Meta, Struct

VERSIONS: Final = (1, 1)
"""Lowest and highest version that this side speaks."""

APPLY: Final = 0
MAP: Final = 1
EXECUTE: Final = 2
PUSH: Final = 3
PULL: Final = 4
CLEAR: Final = 5
"""Kinds of task. The body is the pickle of, in turn: (args, kwargs); a tuple of columns, one for each parameter (sequences
of one length: faster to pickle than a tuple for each item); source text; a dict of names to values; a list of names; None."""
STOCK: Final = 6
"""A Jupyter request of a stock client: the body is a packed `core.wire.jupyter.Request`, the frames are its buffers."""

STATUS_OK: Final = 0
STATUS_ERROR: Final = 1
"""Status of a Result: the body is the pickled value (EXECUTE: text/plain of the last expression, or None), or a packed
`core.wire.payload.RemoteFailure`, which is MessagePack around a pickle. Of STOCK tasks it is always a packed `core.wire.jupyter.Reply`."""
STATUS_UNMET: Final = 2
"""The task's own check (`@depend`, `@require`) says that this engine cannot run it: it is tried on another one, at no charge."""


TaskId: TypeAlias = Annotated[bytes, Meta(min_length=1, max_length=64)]
Digest: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
DigestOrNone: TypeAlias = Annotated[bytes, Meta(max_length=16)]
"""Digest of a function; empty: there is none."""
Kind: TypeAlias = Annotated[int, Meta(ge=0, le=255)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Order: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
ResultStatus: TypeAlias = Annotated[int, Meta(ge=0, le=2)]
WireId: TypeAlias = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
"""Of an engine; -1: none."""
WireIds: TypeAlias = Annotated[list[int], Meta(max_length=65_536)]
Slots: TypeAlias = Annotated[list[int], Meta(max_length=65_536)]
SignalNumber: TypeAlias = Annotated[int, Meta(ge=0, le=64)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0)]
"""Not NaN either."""


class Message(Struct, array_like=True, gc=False):
    """Base of all; `gc=False` because messages hold no cycles and are made by the hundred thousand."""


# --- handshake -------------------------------------------------------------------------------------------------------


class Limits(Message):
    """What the controller takes. Sizes in bytes, `ping_interval` in seconds; `max_targets` of a Broadcast, 0: it knows none."""

    max_message: int = 2 * 1024**3
    max_header: int = 16 * 1024**2
    max_frames: int = 1024
    window: int = 64 * 1024**2
    max_tasks: int = 20_000
    max_task_bytes: int = 64 * 1024**2
    ping_interval: float = 1.0
    max_targets: int = 0


class Hello(Message, tag=1):
    """First word of a peer. `role`: client, operator, engine, agent; `channel`: data, control."""

    versions: tuple[int, int]
    role: str
    channel: str
    nonce: bytes
    software: str


class Welcome(Message, tag=2):
    """The controller's challenge. `controller` is its incarnation: 16 bytes, new at each start."""

    version: int
    nonce: bytes
    challenge: bytes
    controller: bytes
    cluster: str
    limits: Limits


class Refuse(Message, tag=3):
    """No. `nonce` echoes the Hello (empty under session keys)."""

    nonce: bytes
    code: str
    message: str
    hint: str = ""


class Reset(Message, tag=4):
    """I do not know your session, or want it begun anew: `reason`. `echo` is the mac of the message that is answered, or came last."""

    echo: bytes
    reason: str = ""


# --- attaching -------------------------------------------------------------------------------------------------------


class AttachClient(Message, tag=10):
    """A client or operator shows who it is. `label` is free text for `status`."""

    uuid: bytes
    token: bytes
    pid: int
    host: str
    user: str = ""
    label: str = ""


class AttachEngine(Message, tag=11):
    """An engine shows who it is, and what it holds: `held` lists (task, attempt) not yet run or not yet acknowledged.

    `controller` is the incarnation it was last attached to, `completed` how many tasks it has run. `agent` is the launch id of its agent.
    `wanted_id` asks for a wire id (MPI: the rank); -1 leaves it to the controller.
    """

    uuid: bytes
    token: bytes
    engine_set: str
    slot: int
    agent: str
    pid: int
    host: str
    python: str
    software: str
    controller: bytes = b""
    held: list[tuple[TaskId, Count]] = []
    completed: int = 0
    wanted_id: WireId = -1
    started_at: float = 0.0


class EngineState(Message):
    """One engine as its agent sees it: `state` is starting, idle, running or stopping; `since` is wall time.

    `id` is its wire id, -1 before it has one; `order` the number of the last dispatch that it began. `has_results`: when it began what it
    runs it held results that no controller had acknowledged.
    """

    uuid: bytes
    slot: int
    pid: int
    state: str
    task: bytes = b""
    attempt: Count = 0
    since: float = 0.0
    order: Order = 0
    id: WireId = -1
    has_results: bool = False


class AttachAgent(Message, tag=12):
    """An agent shows who it is, and which engines it holds.

    `is_complete`: it has looked for all engines of its set on its host, so one that it does not list is gone. The helper of an engine
    by hand has looked for its own only.
    """

    uuid: bytes
    token: bytes
    launch: str
    engine_set: str
    host: str
    pid: int
    generation: int
    engines: list[EngineState]
    slots: list[int] = []
    is_complete: bool = True


class Attached(Message, tag=13):
    """Welcome in. `id` is the wire id of an engine, the handle of a client, -1 for an agent.

    `is_resumed`: this controller still knew the uuid; where it did not, the peer offers again what has no outcome.
    """

    token: bytes
    id: int = -1
    is_resumed: bool = False


# --- tasks -----------------------------------------------------------------------------------------------------------


class Function(Message, tag=20):
    """A function by digest. `python` is "3.11" when the body holds code by value, else empty (by reference: any version)."""

    digest: Digest
    name: str
    python: str
    body: bytes
    frames: Count = 0


class NeedFunction(Message, tag=21):
    """The sender does not hold this function (any more)."""

    digest: Digest


class Dependency(Message):
    """Wait for `tasks`: all of them or any; satisfied by success, failure or both."""

    tasks: list[TaskId]
    is_all: bool = True
    on_success: bool = True
    on_failure: bool = False


class TaskOptions(Message):
    """What few tasks have; null for the rest. `timeout` in seconds of run time, `retries` further attempts after any failure.

    `max_wait`: seconds that it may wait for an engine, counted anew each time it is put back.
    """

    retries: Count = 0
    timeout: Seconds | None = None
    label: str = ""
    after: Dependency | None = None
    follow: Dependency | None = None
    max_wait: Seconds | None = None


class Submit(Message, tag=22):
    """A task. `target`: null for balanced work, a wire id, or several (any one of them)."""

    task: TaskId
    kind: Kind
    function: DigestOrNone
    target: int | WireIds | None
    body: bytes
    frames: Count = 0
    options: TaskOptions | None = None
    is_offered_again: bool = False


class Dispatch(Message, tag=23):
    """A task for an engine."""

    task: TaskId
    attempt: Count
    order: Order
    kind: Kind
    function: bytes
    body: bytes
    frames: Count = 0


class Result(Message, tag=24):
    """An engine's answer. Times are the engine's wall clock, in seconds since the epoch. `display` holds rich output of a cell."""

    task: TaskId
    attempt: Count
    status: ResultStatus
    started: float
    finished: float
    stdout: str
    stderr: str
    body: bytes
    frames: Count = 0
    display: list[dict[str, Any]] | None = None


class NotRun(Message, tag=25):
    """The engine did not begin this attempt and will not: `reason` is recalled, dropped or full."""

    task: TaskId
    attempt: Count
    reason: str


class Deliver(Message, tag=26):
    """A result for the client that asked; fields as in Result, `engine` is the wire id."""

    task: TaskId
    attempt: Count
    engine: int
    status: int
    started: float
    finished: float
    stdout: str
    stderr: str
    body: bytes
    frames: Count = 0
    display: list[dict[str, Any]] | None = None


class Failed(Message, tag=27):
    """A task that has no result, and why. `engine` is -1 where none was involved."""

    task: bytes
    attempt: int
    code: str
    message: str
    hint: str = ""
    engine: int = -1


class Published(Message, tag=28):
    """What a running STOCK task shows, as it happens: a Jupyter message for all clients, of which the controller makes the header.

    `what`: stream, display_data, update_display_data, clear_output, execute_input, execute_result, error, data_message, comm_open,
    comm_msg, comm_close. `content` and `metadata` are JSON objects. `task` is empty for what belongs to none.
    """

    task: Annotated[bytes, Meta(max_length=64)]
    attempt: Count
    what: str
    content: bytes
    metadata: bytes = b"{}"
    frames: Count = 0


class Broadcast(Message, tag=29):
    """The same task for several engines, with the payload sent once: what a Submit for each pair of task and target would be."""

    tasks: Annotated[list[TaskId], Meta(min_length=1, max_length=65_536)]
    targets: WireIds
    kind: Kind
    function: DigestOrNone
    body: bytes
    frames: Count = 0
    options: TaskOptions | None = None
    is_offered_again: bool = False


# --- control of clients ----------------------------------------------------------------------------------------------


class Ping(Message, tag=40):
    """Are you there?"""


class Pong(Message, tag=41):
    """Yes."""


class Reply(Message, tag=42):
    """The answer to a request: plain MessagePack data whose keys each request documents."""

    request: int
    value: Any = None


class ErrorReply(Message, tag=43):
    """A request failed."""

    request: int
    code: str
    message: str
    hint: str = ""


class Abort(Message, tag=44):
    """End tasks of this client that have not begun: those named, those for `targets`, or (both null) all. Reply: {"aborted": n}."""

    request: int
    tasks: list[TaskId] | None = None
    targets: WireIds | None = None


class QueueStatus(Message, tag=45):
    """Reply: {"engines": {id: {"queued", "running", "prefetched", "completed"}}, "unassigned": n, "clients": n}."""

    request: int
    targets: WireIds | None = None


class ControllerStatus(Message, tag=46):
    """Reply: all that `clusterctl status` shows of a controller: counters, clients, agents, memory, tasks per state."""

    request: int


class EngineCommand(Message, tag=47):
    """Forwarded to the engines' agents. Reply: {"done": [ids], "failed": {id: reason}}.

    `command`: interrupt, stop, kill, restart, or signal with its `number`.
    """

    request: int
    engines: WireIds
    command: str
    number: SignalNumber = 0


class ListEngines(Message, tag=48):
    """Reply: [EngineInfo as an array, ...]; afterwards EnginesChanged notices follow on this connection."""

    request: int


class SetDesired(Message, tag=49):
    """Operator to controller to agent: the slots that `launch` is to hold. Idempotent; an older generation is ignored. Reply: {}."""

    request: int
    launch: str
    generation: int
    slots: Slots


class Drain(Message, tag=50):
    """Operator: give these engines no new work (or again, with `is_draining` false). Reply: {"idle": [ids]}; Drained notices follow."""

    request: int
    engines: WireIds
    is_draining: bool = True


class Shutdown(Message, tag=51):
    """Operator: end the controller; it forgets its connection files unless they are to be reused. Reply: {}."""

    request: int


class ResumeSlots(Message, tag=52):
    """Operator to controller to agent: end the crash loop of these slots (null: all of the launch). Reply: {}."""

    request: int
    launch: str
    slots: Slots | None = None


class QueryTasks(Message, tag=53):
    """Task records. `query` as in `storage/taskstore/query.py`; `keys`: fields wanted, null for all but payload. Reply: [record, ...]."""

    request: int
    query: dict[str, Any]
    keys: list[str] | None = None
    limit: Count = 1000


class Resubmit(Message, tag=54):
    """Run recorded tasks once more, as new balanced tasks of this client under ids of its own. Reply: {"resubmitted": [ids]}.

    `is_asked_again`: another controller may have begun with them. What it has is not taken a second time.
    """

    request: int
    tasks: list[TaskId]
    new_ids: list[TaskId]
    is_asked_again: bool = False


class PurgeTasks(Message, tag=55):
    """Forget records of ended tasks: those named, or (null) all that this client may see. Reply: {"purged": n}."""

    request: int
    tasks: list[TaskId] | None = None


class PageTasks(Message, tag=56):
    """Some records, as people are told of them, found in bounded time. `query` as in QueryTasks.

    `after`, `before`: bounds, exclusive, of the rank that each record has (0: none); what is left of them is in the reply, null at the end.
    `is_full`: with output and traceback. Reply: {"tasks": [...], "rest": [after, before] or null}.
    """

    request: int
    query: dict[str, Any]
    limit: Count = 100
    after: Order = 0
    before: Order = 0
    is_newest_first: bool = True
    is_full: bool = False


class DescribeTask(Message, tag=57):
    """One record in full, and of a task that has not ended where it is and why. Reply: {"task": {...}}.

    `task` is an id, the beginning of one, or its short form.
    """

    request: int
    task: Annotated[str, Meta(min_length=1, max_length=256)]


class PurgePage(Message, tag=58):
    """Forget records of ended tasks that match, as far as is done in bounded time; as PageTasks. Reply: {"purged": n, "rest": ...}."""

    request: int
    query: dict[str, Any]
    after: Order = 0
    before: Order = 0


class RotateKeys(Message, tag=59):
    """Operator: make new keys, and write them to the files; the present ones are accepted for `grace` seconds more.

    Reply: {"changed_at", "until", "using_old": {"clients", "engines", "agents": [names]}, "files": [paths]}; no key is in it.
    """

    request: int
    grace: Seconds = 60.0


class EngineTasks(Message, tag=64):
    """What these engines (None: all) hold.

    Reply: {"engines": {id: {"tasks": [{task, label, function, is_running, for, owner}], "more"}}}.
    """

    request: int
    engines: WireIds | None = None


class EngineInfo(Message):
    """One registered engine. `state`: idle, busy, suspect, draining."""

    id: int
    uuid: bytes
    engine_set: str
    slot: int
    agent: str
    host: str
    pid: int
    python: str
    state: str
    started_at: float


class EngineGone(Message):
    """One engine that is gone, and how: `cause` is a sentence for people; `is_wanted`: it was stopped on purpose."""

    id: int
    uuid: bytes
    engine_set: str
    slot: int
    cause: str
    is_wanted: bool = False


class EnginesChanged(Message, tag=60):
    """Notice: engines that came, changed or went."""

    added: list[EngineInfo]
    removed: list[EngineGone]


class Drained(Message, tag=61):
    """Notice to operators: these draining engines hold nothing any more."""

    engines: list[int]


class SlotReport(Message):
    """One slot of an agent. `state`: starting, running, backoff, crash-loop, stopping. `reason` says why when it is not running."""

    slot: int
    state: str
    pid: int = 0
    uuid: bytes = b""
    reason: str = ""
    restarts: int = 0
    retry_at: float = 0.0


class AgentNotice(Message, tag=62):
    """Notice to operators: how an agent stands. `event`: attached, report, lost. `warnings` are the zygote's (preloads)."""

    event: str
    launch: str
    engine_set: str
    host: str
    pid: int
    generation: int
    slots: list[SlotReport]
    warnings: list[str] = []
    asked_at: float = 0.0


class StopAsked(Message, tag=63):
    """Notice to operators: `who` has asked for the end of the cluster, as stock clients may, and it is theirs to carry it out."""

    who: str


# --- control of agents -----------------------------------------------------------------------------------------------


class EngineStarted(Message, tag=70):
    """The agent forked an engine (it has not attached yet)."""

    uuid: bytes
    slot: int
    pid: int


class EngineExited(Message, tag=71):
    """An engine is dead. `exit_code` or `signal` is set (-1: unknown, it was adopted); `cause` is the sentence for people.

    From its status page: the task that it ran, and the last order that it began or was kept from beginning (-1: there is no page) of
    the controller named by `epoch` (0: of none). What it held beyond that has certainly not begun. `attempt` is that of `running`,
    `id` the engine's wire id (-1: it had none): a controller that has never seen the engine knows by them what died with it.
    """

    uuid: bytes
    slot: int
    pid: int
    exit_code: int
    signal: int
    is_oom: bool
    is_wanted: bool
    cause: str
    output_tail: str
    running: bytes = b""
    order: int = -1
    epoch: int = 0
    attempt: int = 0
    id: int = -1


class AgentReport(Message, tag=72):
    """The state of every slot, after each change (at most ten a second) and every few seconds."""

    generation: int
    slots: list[SlotReport]
    warnings: list[str] = []


class Inventory(Message, tag=73):
    """What the engines hold, from their status pages; the answer to InventoryRequest."""

    engines: list[EngineState]


class InventoryRequest(Message, tag=74):
    """Read the status pages now."""


class EngineSignal(Message, tag=75):
    """Controller to agent. `command`: interrupt, stop, kill, restart, or signal with its `number`."""

    request: int
    uuid: bytes
    command: str
    number: SignalNumber = 0


class CommandDone(Message, tag=76):
    """Agent to controller: the answer to a request; `error` is empty when it went well."""

    request: int
    error: str = ""


class Recall(Message, tag=77):
    """Controller to agent: the engine is not to begin dispatches first..last."""

    uuid: bytes
    first: int
    last: int


class Recalled(Message, tag=78):
    """Agent to controller: the engine was at `running` when the recall took effect; orders in the range above it will not run."""

    uuid: bytes
    first: int
    last: int
    running: int


class Goodbye(Message, tag=79):
    """The sender leaves on purpose; `reason` is a sentence. Nothing follows on this connection."""

    reason: str = ""


HandshakeUp: TypeAlias = Hello
HandshakeDown: TypeAlias = Welcome | Refuse | Reset
ClientDataUp: TypeAlias = AttachClient | Function | Submit | Broadcast | Goodbye
ClientDataDown: TypeAlias = Attached | Refuse | NeedFunction | Deliver | Failed | Goodbye
ClientControlUp: TypeAlias = (
    AttachClient
    | Ping
    | Abort
    | QueueStatus
    | ControllerStatus
    | EngineCommand
    | ListEngines
    | SetDesired
    | Drain
    | Shutdown
    | ResumeSlots
    | QueryTasks
    | Resubmit
    | PurgeTasks
    | PageTasks
    | DescribeTask
    | PurgePage
    | RotateKeys
    | EngineTasks
    | Goodbye
)
ClientControlDown: TypeAlias = (
    Attached | Refuse | Pong | Reply | ErrorReply | EnginesChanged | Drained | AgentNotice | StopAsked | Goodbye
)
EngineDataUp: TypeAlias = AttachEngine | Result | Published | NeedFunction | NotRun | Goodbye
EngineDataDown: TypeAlias = Attached | Refuse | Function | Dispatch | Goodbye
AgentUp: TypeAlias = (
    AttachAgent | Ping | EngineStarted | EngineExited | AgentReport | Inventory | CommandDone | Recalled | Goodbye
)
AgentDown: TypeAlias = (
    Attached | Refuse | Pong | SetDesired | EngineSignal | ResumeSlots | InventoryRequest | Recall | Goodbye
)

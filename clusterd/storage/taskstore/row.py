"""What is kept of one task. Made by the million, so as cheap as a struct can be: nothing is encoded, copied or derived here.

Dictionaries of Jupyter messages are the JSON bytes that came; `record` derives what a native task has none of. Times are seconds
since the epoch. A row is changed by one thread only, attribute by attribute, while a store's thread may read it: so what belongs
together (`Outcome`) is set in one assignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from msgspec import Struct, field

from clusterd.core.wire.messages import STOCK

ROW_BYTES: Final = 1024
"""What a row takes beside its payload, measured with its ids, its outcome and its places in the store's tables."""
MAX_STREAM: Final = 4 * 1024**2
"""Characters of stdout, and of stderr, that are recorded of one task: a task that prints for ever must not fill the controller."""

WHOLE: Final = "broadcast"
PART: Final = "part"
HIDDEN: Final = frozenset({WHOLE, PART})
"""Queues of rows that only a durable controller reads: no history shows them, no query finds them."""

# `is_owed` as a database has it. What native clients are owed is kept until they have it, what stock clients are owed may grow too old.
OWED: Final = 1
OWED_TO_STOCK: Final = 2
OWED_UNSEEN: Final = 3
UNSEEN: Final = -1
"""Of rows in HIDDEN, when nothing is owed for them any more."""

# Which parts of a row its store has written; PARTIAL: it was read without body and buffers.
REQUEST: Final = 1
OUTCOME: Final = 2
PARTIAL: Final = 4


class Outcome(Struct, gc=False):
    """How a task ended.

    Attributes:
        status: ok, error, or the reason why there is no result (`core.model.task.Reason`, or invalid_dependency).
        completed: when it ended; `started`: when it began, None where it never did; `received`: when the controller heard of it.
        header, metadata, content: JSON of the reply; empty where they are to be derived.
        body: of a native result; `buffers`: its frames, or the buffers of the reply.
        message: for people, where there is no result.
        display: MessagePack of the rich output of a native cell; empty: there was none.
    """

    status: str
    completed: float
    received: float
    started: float | None = None
    body: bytes = b""
    buffers: Sequence[Any] = ()
    message: str = ""
    header: bytes = b""
    metadata: bytes = b""
    content: bytes = b""
    display: bytes = b""


class Output(Struct, gc=False):
    """What a task has shown: pieces of its streams; JSON of its code, of its last result and of its error (empty: there was none)."""

    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    execute_input: bytes = b""
    execute_result: bytes = b""
    error: bytes = b""
    stdout_size: int = 0
    stderr_size: int = 0

    def write(self, name: str, text: str) -> None:
        """Add to the stream `name`; what is beyond MAX_STREAM is not kept, and the end says so."""
        if name == "stderr":
            pieces, size = self.stderr, self.stderr_size
        else:
            pieces, size = self.stdout, self.stdout_size
        if size > MAX_STREAM or not text:
            return
        room = MAX_STREAM - size
        pieces.append(text if len(text) <= room else f"{text[:room]}\n[what follows is not recorded]\n")
        size += max(len(text), 1)
        if name == "stderr":
            self.stderr_size = size
        else:
            self.stdout_size = size


class TaskRow(Struct, gc=False):
    """One task.

    Attributes:
        msg_id: the task's id: hex natively.
        client: uuid of the client (hex), or session of a stock one.
        queue: "mux" when it was for one engine, else "task"; or one of HIDDEN.
        submitted: when it came; of stock tasks the date of their header.
        kind: as in `core.wire.messages`; STOCK has header, metadata and content, all others `function` and `body`.
        buffers: frames of the request.
        label: null where a stock client gave none.
        engine: uuid of the engine that has it or had it last, hex for ours; empty: none. `engine_id`: its wire id.
        attempt: number of that attempt.
        resubmitted: msg_id of the task that was made of this one.
        is_whole: false where the request was too large to be kept; it cannot be run once more.
        wish: MessagePack of where and how it is to be run, which a durable controller needs to take it up again.
        is_owed: its client has not acknowledged its outcome; never true where nothing is durable.
        name: of the function, as its client wrote it; empty where there is none, or it was not here any more.
        place: of that engine, as `place_of` writes it; ids are of one controller or another, this can still be read years later.
        outcome: None until it has ended.
        order: rank among all rows of the store, given by it.
        stored: parts that the store has, and `size`: bytes that it counts for it; the store's own business.
    """

    msg_id: str
    client: str
    queue: str
    submitted: float
    kind: int = STOCK
    function: bytes = b""
    body: bytes = b""
    buffers: Sequence[Any] = ()
    label: str | None = ""
    header: bytes = b""
    metadata: bytes = b""
    content: bytes = b""
    engine: str = ""
    engine_id: int = -1
    attempt: int = 0
    resubmitted: str = ""
    is_whole: bool = True
    outcome: Outcome | None = None
    output: Output | None = None
    order: int = 0
    stored: int = 0
    size: int = 0
    wish: bytes = b""
    is_owed: bool = False
    name: str = ""
    place: str = ""


class EnginePlace(NamedTuple):
    """Where a task ran: the engine as operators call it (`engines/3`), its process, and its host; empty or 0 where unknown."""

    engine: str
    pid: int
    host: str


def place_of(engine: str, pid: int, host: str) -> str:
    """An `EnginePlace` as it is kept: one text for all tasks of an engine."""
    return f"{engine} {pid} {host}"


def parse_place(place: str) -> EnginePlace:
    """Read what `place_of` wrote."""
    engine, _, rest = place.partition(" ")
    pid, _, host = rest.partition(" ")
    return EnginePlace(engine, int(pid) if pid.isdigit() else 0, host)


def debt_of(row: TaskRow) -> int:
    """`is_owed` as a database has it."""
    if row.queue in HIDDEN:
        return OWED_UNSEEN if row.is_owed else UNSEEN
    if not row.is_owed:
        return 0
    return OWED_TO_STOCK if row.kind == STOCK else OWED


def request_size(row: TaskRow) -> int:
    """Bytes that a row takes before its task has ended."""
    size = ROW_BYTES + len(row.body) + len(row.wish)
    if row.buffers:
        size += sum(map(len, row.buffers))
    if row.kind == STOCK:
        size += len(row.header) + len(row.metadata) + len(row.content)
    return size


def end_size(outcome: Outcome, output: Output | None) -> int:
    """Bytes that the end of a task adds: its result, and what it has shown until then (characters taken as bytes)."""
    size = len(outcome.body) + len(outcome.display)
    if outcome.buffers:
        size += sum(map(len, outcome.buffers))
    if outcome.content:
        size += len(outcome.content) + len(outcome.metadata) + len(outcome.header)
    if output is not None:
        size += output.stdout_size + output.stderr_size
        size += len(output.execute_input) + len(output.execute_result) + len(output.error)
    return size


def unwritten(row: TaskRow, *, is_ended: bool) -> int:
    """Bytes of `size` that are still to be written, by what is `stored`."""
    if not row.stored & REQUEST:
        return row.size
    return row.size - request_size(row) if is_ended and not row.stored & OUTCOME else 0

"""The status page of an engine: what it runs since when, readable while user code holds the GIL. Pure layout, no mmap.

The engine publishes a record with two stores: it fills the record that is not current, then stores the sequence number,
whose lowest bit says which one is. A reader that sees the same number before and after has a whole record, also when the
writer was killed in between; a seqlock would stay odd for ever then. Revocations go the other way (PROTOCOL.md,
"Recall"): the agent stores a range, fences, reads the order; the engine publishes its order, fences, reads the ranges.
So at least one of them sees the other. Both are on one host: byte order and alignment are native.
"""

from __future__ import annotations

from struct import Struct as Layout
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ALL_ORDERS",
    "SIZE",
    "STATES",
    "EngineRecord",
    "PageHeader",
    "PageWriter",
    "State",
    "epoch_of",
    "read",
    "revoke",
]

SIZE: Final = 4096
MAGIC: Final = b"clusterd"
VERSION: Final = 1
ALL_ORDERS: Final = 2**64 - 1
"""As `last` of a revocation: everything that was not begun."""

State = Literal["starting", "idle", "running", "stopping"]
STATES: tuple[State, ...] = ("starting", "idle", "running", "stopping")

# Offsets in bytes. Words that the two processes use against each other lie in cache lines of their own.
_SEQUENCE: Final = 64
_RECORDS: Final = (128, 512)
_RANGE_COUNT: Final = 1024
_RANGES: Final = 1088
_RANGE_MAX: Final = 64

# magic, version, slot, pid, uuid; written once, before the page is announced.
_HEADER = Layout("=8sIIQ16s")
# number, state, length of task id, length of label, has results, attempt, wire id, since, order, epoch, done, failed, task id,
# label, number again. The number stands at both ends: on machines that reorder stores a mixture of two records shows there.
_RECORD = Layout("=QBBB?IqdQQQQ64s64sQ")
_TRIES: Final = 1000
_WORD: Final = 8


class PageHeader(NamedTuple):
    """Whose page it is.

    Attributes:
        slot: number of the engine in its set.
        pid: of the engine.
        uuid: of the engine, 16 bytes.
    """

    slot: int
    pid: int
    uuid: bytes


class EngineRecord(NamedTuple):
    """What the engine does.

    Attributes:
        state: starting, idle, running or stopping.
        task: id of the running task (1 to 64 bytes), empty when none runs.
        attempt: of that task.
        order: number of the last Dispatch that it began, or was kept from beginning, in this epoch.
        epoch: which controller incarnation the order belongs to; 0 before the first.
        wire_id: what clients call it, -1 before it has registered.
        since: wall time of the last change of state.
        done: tasks it has run.
        failed: those of them that ended in an exception.
        label: the task's label, at most 64 bytes of UTF-8.
        has_results: while a task runs: when it began, results of others were not acknowledged.
    """

    state: State
    task: bytes
    attempt: int
    order: int
    epoch: int
    wire_id: int
    since: float
    done: int
    failed: int
    label: str
    has_results: bool = False


class PageWriter:
    """The engine's side. Cheap enough for two calls around each task.

    Invariant: nobody else publishes records; only the agent writes revocations.
    """

    def __init__(self, page: memoryview, header: PageHeader, now: float, *, fence: Callable[[], object]) -> None:
        """Begin a page.

        Args:
            page: at least SIZE writable bytes, zeroed.
            header: whose it is.
            now: wall time.
            fence: a memory barrier, `system.barrier.light`.
        """
        self._page = page
        self._words = page[:SIZE].cast("Q")
        self._fence = fence
        # What the current record says.
        self._number = 0
        self._order = self._epoch = self._done = self._failed = 0
        self._wire_id = -1
        _HEADER.pack_into(page, 0, MAGIC, VERSION, header.slot, header.pid, header.uuid)
        self._publish("starting", now)

    def attach(self, epoch: int, wire_id: int, now: float) -> None:
        """A controller took the engine in: orders begin again when `epoch` is another incarnation's."""
        if epoch != self._epoch:
            self._epoch, self._order = epoch, 0
        self._wire_id = wire_id
        self._publish("idle", now)

    def begin(
        self, order: int, task: bytes, attempt: int, now: float, label: str = "", *, has_results: bool = False
    ) -> bool:
        """Publish that a task begins; False when the agent has revoked it, then the task must not be run."""
        self._order = order
        self._publish("running", now, task, attempt, label, has_results)
        self._fence()
        if self._words[_RANGE_COUNT // _WORD] and self._is_revoked(order):
            self._publish("idle", now)
            return False
        return True

    def end(self, now: float, *, is_failed: bool = False) -> None:
        """Publish that the task is over."""
        self._done += 1
        self._failed += is_failed
        self._publish("idle", now)

    def stop(self, now: float) -> None:
        """Publish that the engine ends on purpose."""
        self._publish("stopping", now)

    def release(self) -> None:
        """Let go of the memory, so that the mapping can be closed."""
        self._words.release()
        self._page.release()

    def _publish(
        self,
        state: State,
        now: float,
        task: bytes = b"",
        attempt: int = 0,
        label: str = "",
        has_results: bool = False,  # noqa: FBT001, FBT002 - private, and called for each task
    ) -> None:
        text = _clipped(label) if label else b""
        number = self._number + 1
        _RECORD.pack_into(
            self._page,
            _RECORDS[number & 1],
            number,
            STATES.index(state),
            len(task),
            len(text),
            has_results,
            attempt,
            self._wire_id,
            now,
            self._order,
            self._epoch,
            self._done,
            self._failed,
            task,
            text,
            number,
        )
        # One aligned store of 8 bytes: memoryview items of format Q are copied whole.
        self._words[_SEQUENCE // _WORD] = number
        self._number = number

    def _is_revoked(self, order: int) -> bool:
        words = self._words
        for index in range(_RANGES // _WORD, _RANGES // _WORD + 3 * words[_RANGE_COUNT // _WORD], 3):
            if words[index + 1] <= order <= words[index + 2] and words[index] == self._epoch:
                return True
        return False


def read(page: memoryview) -> tuple[PageHeader, EngineRecord] | None:
    """Return what the page says; None while it is not begun, is of another layout, or is written faster than we read.

    Args:
        page: at least SIZE bytes.
    """
    magic, version, slot, pid, uuid = _HEADER.unpack_from(page, 0)
    if magic != MAGIC or version != VERSION:
        return None
    with page[:SIZE].cast("Q") as words:
        for _ in range(_TRIES):
            number = words[_SEQUENCE // _WORD]
            fields = _RECORD.unpack_from(page, _RECORDS[number & 1])
            is_whole = fields[0] == number == fields[-1]
            if is_whole and number and words[_SEQUENCE // _WORD] == number:
                return PageHeader(slot, pid, uuid), _record(fields)
    return None


def revoke(page: memoryview, epoch: int, first: int, last: int, *, fence: Callable[[], object]) -> EngineRecord | None:
    """Keep the engine from beginning orders first..last of `epoch`, and return what it was at when that took effect.

    Afterwards no order in the range above the record's `order` will run (if its epoch is the same); the task at that
    order is decided by the engine. Returns None, and revokes nothing, when too many ranges are in force at once or
    nothing can be read.

    Args:
        page: writable, at least SIZE bytes.
        epoch: of the controller that numbered the orders.
        first: lowest order.
        last: highest, ALL_ORDERS for whatever comes.
        fence: a full memory barrier, `system.barrier.full`.
    """
    current = read(page)
    if current is None:
        return None
    with page[:SIZE].cast("Q") as words:
        place = _free_place(words, current[1])
        if place is None:
            return None
        index = _RANGES // _WORD + 3 * place
        # While the three words change, `last` is 0, which makes the range empty: the engine never sees a mixture.
        words[index + 2] = 0
        fence()
        words[index] = epoch
        words[index + 1] = first
        fence()
        words[index + 2] = last
        words[_RANGE_COUNT // _WORD] = max(words[_RANGE_COUNT // _WORD], place + 1)
        fence()
    after = read(page)
    return None if after is None else after[1]


def epoch_of(controller: bytes) -> int:
    """Return the number by which pages name a controller's incarnation (16 bytes); never 0."""
    return int.from_bytes(controller[:8], "little") or 1


def _free_place(words: memoryview, record: EngineRecord) -> int | None:
    """A range may be overwritten when it cannot matter any more: passed by the engine, or of an earlier controller."""
    for place in range(_RANGE_MAX):
        index = _RANGES // _WORD + 3 * place
        last = words[index + 2]
        is_other_epoch = words[index] != record.epoch and record.epoch != 0
        if last == 0 or is_other_epoch or last < record.order:
            return place
    return None


def _record(fields: tuple[Any, ...]) -> EngineRecord:
    _, state, task_length, label_length, has_results, attempt, *more = fields
    wire_id, since, order, epoch, done, failed, task, label, _ = more
    return EngineRecord(
        STATES[state],
        task[:task_length],
        attempt,
        order,
        epoch,
        wire_id,
        since,
        done,
        failed,
        label[:label_length].decode(errors="replace"),
        has_results,
    )


def _clipped(label: str) -> bytes:
    """Return at most 64 bytes of UTF-8 that do not end within a character."""
    text = label.encode(errors="replace")
    return text if len(text) <= 64 else text[:64].decode(errors="ignore").encode()

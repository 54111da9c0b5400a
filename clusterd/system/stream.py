"""Messages of several parts over a stream socket of this host (AF_UNIX): framed, non-blocking, without a copy of large parts.

    message = magic u32 | parts u32 | length u64 per part | parts          (little-endian)

A reader takes what is there and returns whole messages; small ones are cut out of one shared buffer, a large part is received
straight into memory of its own. A writer sends what the kernel takes and keeps the rest. Invariants: lengths are
checked against the limits before anything is allocated; memory for a large part is touched only as its bytes arrive.
"""

from __future__ import annotations

import itertools
import mmap
import socket
import struct
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Closed", "Malformed", "PartLimits", "Stream"]

MAGIC = 0x31304443  # "CD01" as it lies in memory
_PREFIX = struct.Struct("<II")
_LENGTHS = [struct.Struct(f"<{count}Q") for count in range(17)]
# The head of a message of two parts: nearly all are.
_TWO = struct.Struct("<IIQQ")
# What one recv(2) may bring: 128 KiB is more than the kernel's buffer of a Unix socket holds by default (212,992 bytes less overhead).
_BUFFER_BYTES = 256 * 1024
# A part over this gets memory of its own, and is received into it.
_LARGE_BYTES = 64 * 1024
# Above this, memory comes from mmap: untouched pages cost nothing, and it goes back to the system when the part is dropped.
_MAPPED_BYTES = 1024 * 1024
_HUGE_BYTES = 8 * 1024 * 1024
# sendmsg(2) takes 1,024 pieces (IOV_MAX).
_PIECES = 1000
# Sent in one call of `flush`, at most. A peer that reads as fast as we write keeps a single sendmsg(2) of 200 MB busy to its end, and
# whatever else this process has to do waits for it.
_FLUSH_BYTES = 1024 * 1024
# Calls of recv(2) in one `receive`, for the same reason; each brings some 200 KiB of a large part.
_RECEIVE_CALLS = 8


class Closed(Exception):
    """The other side is gone."""


class Malformed(Exception):
    """What arrives is not framed as it must be, or is over a limit; the stream cannot be read any further."""

    def __init__(self, message: str, *, is_oversized: bool = False) -> None:
        super().__init__(message)
        self.is_oversized = is_oversized


class PartLimits(NamedTuple):
    """Largest first, second and further part in bytes, and how many parts there may be."""

    first: int
    second: int
    further: int
    parts: int


class _Shared(threading.local):
    """One buffer for all streams that a thread reads: what recv(2) brings is cut up before the next call."""

    def __init__(self) -> None:
        # Of each thread: a process may have several clients, each with a thread of its own, and recv(2) releases the GIL.
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))


_shared = _Shared()


class Stream:
    """One connected socket.

    Args:
        connection: non-blocking.
        limits: of what is received.
    """

    __slots__ = (
        "_arrived",
        "_at",
        "_failure",
        "_is_drained",
        "_lengths",
        "_limits",
        "_outbox",
        "_parts",
        "_rest",
        "_socket",
        "outbox_bytes",
    )

    def __init__(self, connection: socket.socket, limits: PartLimits) -> None:
        self._socket = connection
        self._limits = limits
        # Bytes that arrived and belong to a message that is not whole yet (small ones).
        self._rest = b""
        # The large message that is being received: lengths of its parts (None: there is none), those complete, the one that is
        # being filled, and how far.
        self._lengths: Sequence[int] | None = None
        self._parts: list[Any] = []
        self._at = 0
        self._arrived: deque[list[Any]] = deque()
        # Why nothing more can be read; None while it can.
        self._failure: Malformed | None = None
        # True when the last recv(2) brought less than it could have: `receive` then says None once without another one.
        self._is_drained = False
        # What the kernel has not taken yet, in order, and the sum of the bytes.
        self._outbox: deque[memoryview] = deque()
        self.outbox_bytes = 0

    def fileno(self) -> int:
        """The descriptor, for polling."""
        return self._socket.fileno()

    @property
    def is_closed(self) -> bool:
        """True after `close`."""
        return self._socket.fileno() < 0

    def set_limits(self, limits: PartLimits) -> None:
        """Other limits from the next message on (a peer that has proved itself may send more)."""
        self._limits = limits

    def close(self) -> None:
        """Close, and forget what has not been sent or returned; idempotent."""
        self._socket.close()
        self._outbox.clear()
        self.outbox_bytes = 0
        self.discard()

    def discard(self) -> None:
        """Forget what has arrived and was not returned; nothing more is to be received."""
        self._arrived.clear()
        self._parts, self._lengths, self._rest = [], None, b""
        self._is_drained = False

    # --- receiving ---

    def receive(self) -> list[Any] | None:
        """The next whole message as a list of buffers (small parts are bytes), None when it is not here yet: then poll.

        Raises:
            Closed: the other side is gone, and everything it sent has been returned.
            Malformed: see there.
        """
        for _ in range(_RECEIVE_CALLS):
            if self._arrived:
                return self._arrived.popleft()
            if self._is_drained:
                self._is_drained = False
                return None
            try:
                is_over = not self.read_once()
            except Malformed:
                # What came whole before the fault is good.
                if not self._arrived:
                    raise
                continue
            if is_over and not self._arrived:
                self._is_drained = False
                return None
        return self.next_message()

    @property
    def has_message(self) -> bool:
        """True while `receive` has something to say without a look at the socket: no poll would tell of it."""
        return bool(self._arrived) or self._failure is not None

    def next_message(self) -> list[Any] | None:
        """A message that has arrived whole, without a look at the socket."""
        return self._arrived.popleft() if self._arrived else None

    def read_once(self) -> bool:
        """One recv(2); False when nothing more is to be read now. Raises as `receive`, but before what has arrived is returned."""
        if self._failure is not None:
            raise self._failure
        try:
            if self._lengths is not None:
                if self._fill():
                    self._finish()
                return True
            shared = _shared.buffer
            count = self._socket.recv_into(shared)
        except BlockingIOError:
            return False
        except OSError as error:
            raise Closed(error.strerror or str(error)) from error
        if not count:
            raise Closed("it closed the connection")
        if count >= _TWO.size and not self._rest:
            # A lone message without payload, which is the usual case, in a quarter of the time.
            magic, parts, first, second = _TWO.unpack_from(shared)
            middle = _TWO.size + first
            limits = self._limits
            if magic == MAGIC and parts == 2 and middle + second == count and first <= limits.first:
                if second > limits.second:
                    self._check((first, second))
                self._arrived.append([bytes(shared[_TWO.size : middle]), bytes(shared[middle:count])])
                self._is_drained = True
                return False
        self._cut(shared[:count])
        # Less than there was room for: the socket is empty, and a poll will tell when it is not. Saves a call per message.
        self._is_drained = count < _BUFFER_BYTES and self._lengths is None
        return not self._is_drained

    def _cut(self, data: memoryview) -> None:
        """Take whole messages out of what has just arrived."""
        if self._rest:
            data = memoryview(self._rest + data)
            self._rest = b""
        start, end = 0, len(data)
        while end - start >= 8:
            magic, parts = _PREFIX.unpack_from(data, start)
            if magic != MAGIC or not 1 <= parts <= self._limits.parts:
                raise self._fail("not a message of ours", is_oversized=magic == MAGIC and parts > 0)
            body = start + 8 + 8 * parts
            if body > end:
                break
            layout = _LENGTHS[parts] if parts < len(_LENGTHS) else struct.Struct(f"<{parts}Q")
            lengths = layout.unpack_from(data, start + 8)
            self._check(lengths)
            total = sum(lengths)
            if body + total > end:
                if total <= _LARGE_BYTES:
                    break
                self._begin(lengths, data[body:end])
                return
            message: list[Any] = []
            for length in lengths:
                message.append(bytes(data[body : body + length]))
                body += length
            self._arrived.append(message)
            start = body
        if start < end:
            self._rest = bytes(data[start:end])

    def _check(self, lengths: Sequence[int]) -> None:
        limits = self._limits
        for place, length in enumerate(lengths):
            limit = limits.further if place > 1 else limits.second if place else limits.first
            if length > limit:
                raise self._fail(f"a part of {length} bytes, the limit is {limit}", is_oversized=True)

    def _fail(self, text: str, *, is_oversized: bool) -> Malformed:
        self._failure = Malformed(text, is_oversized=is_oversized)
        return self._failure

    def _begin(self, lengths: Sequence[int], data: memoryview) -> None:
        """Go over to receiving a large message part by part; `data` is what is here of it."""
        self._lengths = lengths
        self._parts = []
        while len(self._parts) < len(lengths):
            self._parts.append(self._allocate(lengths[len(self._parts)]))
            target = memoryview(self._parts[-1])
            self._at = min(len(target), len(data))
            target[: self._at] = data[: self._at]
            data = data[self._at :]
            if self._at < len(target):
                return

    def _fill(self) -> bool:
        """Receive into the part at hand; True when the message is whole."""
        lengths = self._lengths or ()
        target = memoryview(self._parts[-1])
        if self._at < len(target):
            count = self._socket.recv_into(target[self._at :])
            if not count:
                raise Closed("it closed the connection in the middle of a message")
            self._at += count
        while self._at == len(memoryview(self._parts[-1])):
            if len(self._parts) == len(lengths):
                return True
            self._parts.append(self._allocate(lengths[len(self._parts)]))
            self._at = 0
        return False

    def _allocate(self, size: int) -> Any:
        try:
            return _memory(size)
        except (OSError, MemoryError, OverflowError) as error:
            raise self._fail(f"no memory for a part of {size} bytes: {error}", is_oversized=True) from error

    def _finish(self) -> None:
        parts, self._parts, self._lengths = self._parts, [], None
        self._arrived.append([bytes(part) if place < 2 else part for place, part in enumerate(parts)])

    # --- sending ---

    @property
    def wants_write(self) -> bool:
        """True while the kernel has not taken everything: poll for writing, then `flush`."""
        return bool(self._outbox)

    def send(self, parts: Sequence[Any]) -> bool:
        """Send a message as far as the kernel takes it, and keep the rest; buffers must not change until they are gone.

        Returns:
            `wants_write`.

        Raises:
            Closed: the other side is gone.
        """
        if len(parts) == 2 and not self._outbox:
            first, second = parts
            data = _TWO.pack(MAGIC, 2, len(first), len(second)) + first + second
            try:
                sent = self._socket.send(data, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise Closed(error.strerror or str(error)) from error
            if sent == len(data):
                return False
            self._outbox.append(memoryview(data)[sent:])
            self.outbox_bytes += len(data) - sent
            return True
        views = [part if type(part) is memoryview else memoryview(part) for part in parts]
        views = [view if view.format == "B" and view.ndim == 1 else view.cast("B") for view in views]
        count = len(views)
        layout = _LENGTHS[count] if count < len(_LENGTHS) else struct.Struct(f"<{count}Q")
        head = _PREFIX.pack(MAGIC, count) + layout.pack(*map(len, views))
        small = b"".join([head, *views[:2]])
        for view in (memoryview(small), *views[2:]):
            if len(view):
                self._outbox.append(view)
                self.outbox_bytes += len(view)
        self.flush()
        return bool(self._outbox)

    def flush(self) -> None:
        """Send what the kernel takes of what is left, up to a bound: where `wants_write` stays true, poll and call again.

        Raises:
            Closed: the other side is gone.
        """
        outbox, budget = self._outbox, _FLUSH_BYTES
        while outbox and budget:
            pieces, size = [], 0
            for piece in itertools.islice(outbox, _PIECES):
                pieces.append(piece[: budget - size])
                size += len(pieces[-1])
                if size == budget:
                    break
            sent = self._write(pieces)
            self.outbox_bytes -= sent
            budget -= sent
            is_all = sent == size
            while sent:
                if sent < len(outbox[0]):
                    outbox[0] = outbox[0][sent:]
                    break
                sent -= len(outbox.popleft())
            if not is_all:
                return

    def _write(self, pieces: Sequence[Any]) -> int:
        try:
            return self._socket.sendmsg(pieces, (), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise Closed(error.strerror or str(error)) from error


def _memory(size: int) -> Any:
    if size < _MAPPED_BYTES:
        return bytearray(size)
    memory = mmap.mmap(-1, size)
    if size >= _HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        # 200 MB in pages of 4 KiB are 51,000 page faults, half of the time that the transfer takes.
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory

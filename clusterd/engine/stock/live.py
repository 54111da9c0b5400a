"""What a STOCK task shows, sent while it runs, in the order in which it was shown.

Text goes at once when a line is complete and the last text is a while ago, else within 0.1 s by a thread that exists only while text
of a task waits. The link belongs to the main thread between tasks and to whoever holds the lock here during one; nothing else of the
engine runs then. Whoever prints faster than the controller takes it waits: a task that prints a gigabyte is slow, not large. Without a
controller nobody waits, and the last MiB is kept. A forked child has no part in this: what it prints goes to the log.
"""

from __future__ import annotations

import codecs
import os
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from clusterd.core.wire import messages as m
from clusterd.core.wire.jupyter import json_of
from clusterd.engine.stock.log import Log
from clusterd.engine.stock.replies import flat, plain_json
from clusterd.errors import TaskNotSendable
from clusterd.link import Down, poll_once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.engine.executor import Executor
    from clusterd.link import Link

FLUSH_SECONDS: Final = 0.1
"""No text waits longer, unless user code holds the interpreter."""
EAGER_SECONDS: Final = 0.05
"""A complete line goes at once when none went for so long."""
PIECE_BYTES: Final = 1024 * 1024
"""Text of one message; who has more than that waiting waits. Stock clients copy all they have of a task's text for each message of it:
small ones make them quadratically slow. Control characters are six times as long on the wire: it still fits into a header."""
KEPT_BYTES: Final = 1024 * 1024
"""What is kept while there is no controller."""
MAX_CONTENT_BYTES: Final = 8 * 1024 * 1024
"""A picture beyond this is replaced by a note: it travels in a message header (16 MiB at most)."""
_WAIT_SECONDS: Final = 0.1


class _Text(Struct):
    """Text of one stream, not sent yet."""

    name: str
    parts: list[bytes]
    size: int


class _Shown(Struct):
    """A message that is complete."""

    what: str
    content: bytes
    metadata: bytes
    frames: Any
    size: int


class Live:
    """The one of an engine.

    Args:
        link: the engine's.
        executor: it holds signals while the link is used, and has the streams to listen to.
    """

    def __init__(self, link: Link, executor: Executor) -> None:
        self._link = link
        self._executor = executor
        self._output = executor.output
        self._log = None if executor.output.log is None else Log(executor.output.log)
        self._main = threading.get_ident()
        self._lock = threading.RLock()
        # The task that runs; None between tasks, and in forked children for ever.
        self._task: tuple[bytes, int] | None = None
        # What waits, in order, and the sum of its sizes.
        self._items: deque[_Text | _Shown] = deque()
        self._size = 0
        self._dropped = 0
        # True while the link is used: a destructor or signal handler that prints meanwhile must not use it too.
        self._is_busy = False
        self._is_lost = False
        # Monotonic time of the last text.
        self._sent_at = 0.0
        self._thread: threading.Thread | None = None
        self._is_over = threading.Event()
        # A character may be cut in two by whoever writes bytes.
        self._decoders: dict[str, codecs.IncrementalDecoder] = {}
        # What the link said meanwhile, for the engine's loop.
        self.events: list[Any] = []
        _instances.add(self)

    @property
    def is_open(self) -> bool:
        """True while a task runs whose output goes this way."""
        return self._task is not None

    # --- for the runner ---

    def begin(self, task: bytes, attempt: int) -> None:
        """A task begins."""
        self._task = (task, attempt)
        self._is_lost = False
        self._decoders.clear()
        if self._log is not None:
            self._log.begin()
        self._output.stdout.tap = self._output.stderr.tap = self

    def finish(self) -> list[tuple[m.Published, Sequence[Any]]]:
        """The task has ended: what it showed is sent, or returned where the link does not take it now."""
        output = self._output
        if self._log is not None:
            # What a line of ours lacks its end of is not in the log yet, and came after what is.
            self._found(self._log.rest())
        output.stdout.tap = output.stderr.tap = None
        if not self._items and self._thread is None:
            self._task = None
            return []
        with self._lock:
            self._drain()
            rest = [self._message(item) for item in self._items]
            self._items.clear()
            self._size = self._dropped = 0
            self._task = None
            thread, self._thread = self._thread, None
        if thread is not None:
            # User code of the next task finds no thread of ours, and may fork.
            self._is_over.set()
            if thread.ident is not None:  # a signal may have come while it was started
                thread.join()
            self._is_over.clear()
        return rest

    def take_events(self) -> list[Any]:
        """What the link said while the task ran."""
        events, self.events = self.events, []
        return events

    # --- for streams, shell and comms, from any thread ---

    def write(self, name: str, data: bytes) -> None:
        """Text of the stream `name`."""
        with self._lock:
            if self._task is None:
                return
            last = self._items[-1] if self._items else None
            if isinstance(last, _Text) and last.name == name and last.size + len(data) <= PIECE_BYTES:
                last.parts.append(data)
                last.size += len(data)
            else:
                pieces = (data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES))
                self._items.extend(_Text(name, [piece], len(piece)) for piece in pieces)
            self._size += len(data)
            if self._size < PIECE_BYTES:
                if b"\n" in data:
                    self._hurry()
                else:
                    self._send_later()
                return
        self._send_all()

    def log(self, data: bytes) -> None:
        """Text of the task for the engine's log, or none; what its child processes have put there before is shown first."""
        assert self._log is not None  # noqa: S101 - the streams know one
        with self._lock:
            found = self._log.write(data) if data else self._log.rest()
        self._found(found)

    def log_renamed(self) -> None:
        """There is a new log."""
        assert self._log is not None  # noqa: S101 - as above
        with self._lock:
            self._log.begin()

    def _found(self, data: bytes) -> None:
        if data:
            self.write("stdout", data)

    def flush(self) -> None:
        """Text is to go out soon: now, unless some went a moment ago."""
        if self._items:
            with self._lock:
                self._hurry()

    def publish(
        self, what: str, content: dict[str, Any], metadata: dict[str, Any] | None = None, frames: Sequence[Any] = ()
    ) -> None:
        """Send a message of the running task; without one it is dropped.

        Raises:
            TaskNotSendable: a frame is larger than the controller takes.
        """
        if self._task is None:
            return
        packed = plain_json(content)
        if len(packed) > MAX_CONTENT_BYTES:
            text = f"... {len(packed)} bytes of rich output dropped"
            packed = plain_json({**content, "data": {"text/plain": text}, "metadata": {}})
        size = len(packed)
        if frames:
            frames = [flat(frame) for frame in frames]
            size += sum(map(len, frames))
            limits = self._link.welcome.limits if self._link.welcome is not None else m.Limits()
            if size > limits.max_message:
                raise TaskNotSendable(
                    f"{what}: {size} bytes are published, the controller takes {limits.max_message}",
                    hint="Publish less at a time.",
                )
        with self._lock:
            self._items.append(_Shown(what, packed, plain_json(metadata or {}), frames, size))
            self._size += size
        self._send_all()

    # --- sending ---

    def _hurry(self) -> None:
        """With the lock held: send what waits, or see to it that it is sent."""
        if time.monotonic() - self._sent_at >= EAGER_SECONDS:
            self._drain()
        if self._items:
            self._send_later()

    def _send_all(self) -> None:
        """Send what waits; the caller waits for room."""
        while True:
            with self._lock:
                if self._drain() or self._is_busy:
                    return
                if self._is_lost or not self._link.is_attached:
                    self._drop()
                    return
                pollables = list(self._link.pollables())
            # Not held: Ctrl-C, SIGTERM and the end of the task come through.
            poll_once(pollables, _WAIT_SECONDS)

    def _drain(self) -> bool:
        """With the lock held: send as much as the link takes now; True when nothing waits."""
        if self._is_busy:
            return False
        self._is_busy = True
        is_main = threading.get_ident() == self._main
        if is_main:
            # An exception in the middle of the link would leave half a message behind.
            self._executor.hold()
        try:
            if self._task is None or self._is_lost:
                return not self._items
            for event in self._link.receive():  # acknowledgements, above all
                self.events.append(event)
                self._is_lost = self._is_lost or isinstance(event, Down)
            while self._items:
                if self._is_lost or not self._link.is_clear or self._link.is_sending:
                    return False
                item = self._items.popleft()
                self._size -= item.size
                self._dropped = 0
                message, frames = self._message(item)
                self._link.send([message], frames)
                if isinstance(item, _Text):
                    self._sent_at = time.monotonic()
            return True
        finally:
            self._is_busy = False
            if is_main:
                self._executor.release()

    def _drop(self) -> None:
        if self._size <= KEPT_BYTES:
            return
        if self._dropped:
            self._size -= self._items.popleft().size  # the note of the last time
        while self._size > KEPT_BYTES and self._items:
            item = self._items.popleft()
            self._size -= item.size
            self._dropped += item.size
        note = f"\n... {self._dropped} bytes of output dropped: there was no controller\n".encode()
        self._items.appendleft(_Text("stderr", [note], len(note)))
        self._size += len(note)

    def _message(self, item: _Text | _Shown) -> tuple[m.Published, Sequence[Any]]:
        task, attempt = self._task or (b"", 0)
        if isinstance(item, _Shown):
            return m.Published(task, attempt, item.what, item.content, item.metadata, len(item.frames)), item.frames
        decoder = self._decoders.get(item.name)
        if decoder is None:
            decoder = self._decoders[item.name] = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(b"".join(item.parts))
        return m.Published(task, attempt, "stream", json_of({"name": item.name, "text": text})), ()

    # --- the thread ---

    def _send_later(self) -> None:
        if self._thread is None and not self._is_over.is_set():
            self._thread = threading.Thread(target=self._run, name="clusterd live output", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._is_over.wait(FLUSH_SECONDS):
            with self._lock:
                self._drain()
                if not self._items or self._is_lost:
                    self._thread = None
                    return

    def after_fork(self) -> None:
        """In a child that user code forked: the link is the parent's."""
        self._task = None
        self._output.stdout.tap = self._output.stderr.tap = None
        # It may have been held by another thread.
        self._lock = threading.RLock()
        self._thread = None


_instances: weakref.WeakSet[Live] = weakref.WeakSet()


def _after_fork() -> None:
    for live in list(_instances):
        live.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

"""What tasks print: kept per task up to a bound, and written to the engine's log at once, line by line.

`sys.stdout` and `sys.stderr` are the same two objects for the life of the engine, so that handlers of `logging` and
redirections that a user's module keeps stay valid. Their `fileno()` is the log file: what C code and child processes print
lands there too. Nothing here ever fails a task: a full disk loses lines of the log, not the user's computation.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from clusterd.engine.stock.live import Live

LIMIT_BYTES = 1024 * 1024
"""How much of each stream a task's result carries: the last of it."""
# An unfinished line waits for its end in memory, up to this size; a progress bar may never end its line.
_LINE_BYTES = 8192
# How often the name of the log is compared with the open file.
_LOOK_SECONDS = 1.0
# No child process comes and goes in less; a task that prints a million lines does not ask a million times.
_CHILDREN_SECONDS = 0.0005


class _Binary(io.RawIOBase):
    """`sys.stdout.buffer`."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._stream.write_bytes(content)
        return len(content)

    def flush(self) -> None:
        self._stream.flush()


class Stream(io.TextIOBase):
    """One of the two streams.

    Args:
        descriptor: of the log file, 1 or 2.
        limit: bytes that are kept for a task's result.
        log: name of the log file, to follow its rotation; None for a terminal or pipe.
    """

    def __init__(self, descriptor: int, limit: int = LIMIT_BYTES, log: Path | None = None) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._limit = limit
        self._log = log
        # Monotonic time before which the log is not looked at again.
        self._look_at = 0.0
        # Likewise for what child processes have written.
        self._children_at = 0.0
        # True when anything was written since the last `take`: all that a silent task pays for.
        self.is_dirty = False
        # What the running task wrote, in order; at most twice the limit, so that trimming costs O(1) a byte.
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._dropped = 0
        # Where what is written goes instead of being kept, while a task of a stock client runs.
        self.tap: Live | None = None
        self._name = "stderr" if descriptor == 2 else "stdout"
        # What is not in the log yet: never a whole line.
        self._line: list[bytes] = []
        self._line_bytes = 0
        self.buffer = _Binary(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the log."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """How what cannot be encoded is written."""
        return "backslashreplace"

    def fileno(self) -> int:
        """The log file."""
        return self._descriptor

    def writable(self) -> bool:
        """Yes."""
        return True

    def isatty(self) -> bool:
        """No: no colours, no cursor movement."""
        return False

    def write(self, text: str) -> int:
        """Keep and log `text`."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.write_bytes(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def write_bytes(self, data: bytes) -> None:
        """Keep and log bytes."""
        size = len(data)
        if not size:
            return
        if self.tap is not None and not self._line and self._log is not None:
            # Before a line of ours begins, what child processes have put into the log.
            now = time.monotonic()
            if now >= self._children_at:
                self._children_at = now + _CHILDREN_SECONDS
                self.tap.log(b"")
        self._line.append(data)
        self._line_bytes += size
        if b"\n" in data or self._line_bytes > _LINE_BYTES:
            self._flush_line()
        if self.tap is not None:
            self.tap.write(self._name, data)
            return
        self.is_dirty = True
        self._kept.append(data)
        self._kept_bytes += size
        if self._kept_bytes > 2 * self._limit:
            self._trim()

    def flush(self) -> None:
        """Bring what was written into the log, and to whoever looks on."""
        self._flush_line()
        if self.tap is not None:
            self.tap.flush()

    def _flush_line(self) -> None:
        if self._line:
            data = b"".join(self._line)
            self._line.clear()
            self._line_bytes = 0
            if self._log is not None and time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + _LOOK_SECONDS
                if reopen_if_renamed(self._log) and self.tap is not None:
                    self.tap.log_renamed()
            if self.tap is not None and self._log is not None:
                self.tap.log(data)
                return
            with contextlib.suppress(OSError):
                view = memoryview(data)
                while view:
                    view = view[os.write(self._descriptor, view) :]

    def take(self) -> str:
        """What was written since the last call, at most `limit` bytes of it, the last ones."""
        if not self.is_dirty:
            return ""
        self.is_dirty = False
        self._flush_line()
        if self._kept_bytes > self._limit:
            self._trim()
        text = b"".join(self._kept).decode("utf-8", "replace")
        if self._dropped:
            text = f"... {self._dropped} bytes dropped\n{text}"
        self._kept.clear()
        self._kept_bytes = self._dropped = 0
        return text

    def _trim(self) -> None:
        data = b"".join(self._kept)
        surplus = len(data) - self._limit
        self._kept[:] = [data[surplus:]]
        self._kept_bytes = self._limit
        self._dropped += surplus


def reopen_if_renamed(log: Path) -> bool:
    """Move on to a new file when the agent has renamed the old one; what was written is in one of the two, whole. True when it did.

    The writer decides when: with copy-and-truncate lines between the two steps are lost.
    """
    try:
        if os.path.samestat(log.stat(), os.fstat(1)):
            return False
    except FileNotFoundError:
        pass
    except OSError:
        return False
    with contextlib.suppress(OSError):
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        return True
    return False


class Output:
    """Both streams; `log` is the file that they go to, if they do."""

    def __init__(self, limit: int = LIMIT_BYTES, log: Path | None = None) -> None:
        self.log = log
        self.stdout = Stream(1, limit, log)
        self.stderr = Stream(2, limit, log)

    def install(self) -> None:
        """Become `sys.stdout` and `sys.stderr`; what the old ones still hold is written first."""
        for stream in (sys.stdout, sys.stderr):
            # A zygote's standard streams may be closed or None.
            with contextlib.suppress(Exception):
                stream.flush()
        sys.stdout = sys.__stdout__ = self.stdout  # type: ignore[misc,assignment]
        sys.stderr = sys.__stderr__ = self.stderr  # type: ignore[misc,assignment]

    def take(self) -> tuple[str, str]:
        """(stdout, stderr) since the last call."""
        return (
            self.stdout.take() if self.stdout.is_dirty else "",
            self.stderr.take() if self.stderr.is_dirty else "",
        )

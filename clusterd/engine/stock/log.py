"""What child processes and C code of a task print: it goes to the engine's log past `sys.stdout`, and is found there.

What we write ourselves goes through an open file of our own, whose position after a write says where that lies, whoever else writes at
the same moment; all else that has come since the task began is the others'. Only for an engine that has a log to itself.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from clusterd.engine.output import LIMIT_BYTES

if TYPE_CHECKING:
    from pathlib import Path


class Log:
    """The log of an engine.

    Args:
        path: its name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Ours; -1 while there is none.
        self._descriptor = -1
        # Up to where everything is ours, or was found.
        self._position = 0

    def begin(self) -> None:
        """What is in the log now is no concern of the task that begins (or: the log was renamed, and descriptor 1 is a new one)."""
        try:
            standard = os.fstat(1)
            if self._descriptor < 0 or not os.path.samestat(os.fstat(self._descriptor), standard):
                self.end()
                descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0))
                if os.path.samestat(os.fstat(descriptor), standard):
                    self._descriptor = descriptor
                else:
                    os.close(descriptor)
            self._position = standard.st_size
        except OSError:
            self.end()

    def end(self) -> None:
        """Close our file."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = -1

    def write(self, data: bytes) -> bytes:
        """Write; what others have written before that. Lines of the log may be lost, never a task."""
        if self._descriptor < 0:
            _write(1, data)
            return b""
        try:
            if os.write(self._descriptor, data) < len(data):
                return b""  # a full disk
            end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        except OSError:
            return b""
        found = self._read(end - len(data))
        self._position = end
        return found

    def rest(self) -> bytes:
        """What others have written since; the last MiB of it."""
        if self._descriptor < 0:
            return b""
        try:
            end = os.fstat(self._descriptor).st_size
        except OSError:
            return b""
        return self._read(end)

    def _read(self, end: int) -> bytes:
        start, self._position = self._position, end
        if end <= start:
            return b""
        note = b""
        if end - start > LIMIT_BYTES:
            note = b"... %d bytes are in the engine's log only\n" % (end - start - LIMIT_BYTES)
            start = end - LIMIT_BYTES
        try:
            return note + os.pread(self._descriptor, end - start, start)
        except OSError:
            return b""


def _write(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

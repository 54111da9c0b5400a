"""Says when files in a directory change, so that nobody has to look again and again (inotify(7), by ctypes).

One watch on a directory tells of all files in it by name: written to, made, renamed into place, removed. What a host of a
network file system does there is not seen. Where inotify is missing or used up, `Watcher.open` returns None and the caller
looks at intervals instead.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Watcher"]

_MODIFY, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x002, 0x040, 0x080, 0x100, 0x200
_ONLYDIR = 0x01000000
_HEADER = struct.Struct("iIII")  # wd, mask, cookie, length of the name
_BUFFER = 64 * 1024


class Watcher:
    """Watches one directory; `fileno()` is readable when there are changes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def open(cls, directory: Path) -> Self | None:
        """Watch `directory`; None where that is not possible.

        Raises:
            FileNotFoundError: there is no such directory.
        """
        try:
            library = ctypes.CDLL(None, use_errno=True)
            descriptor = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except (AttributeError, TypeError, OSError):
            return None
        if descriptor < 0:
            return None  # EMFILE: fs.inotify.max_user_instances (128 by default) are in use
        mask = _MODIFY | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR
        if library.inotify_add_watch(descriptor, os.fsencode(directory), mask) < 0:
            number = ctypes.get_errno()
            os.close(descriptor)
            if number == errno.ENOENT:
                raise FileNotFoundError(number, os.strerror(number), str(directory))
            return None
        return cls(descriptor)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._descriptor

    def read(self) -> set[str]:
        """Return the names that changed since the last call, without waiting; {""} when some were lost: look at all."""
        names: set[str] = set()
        while True:
            try:
                data = os.read(self._descriptor, _BUFFER)
            except BlockingIOError:
                return names
            offset = 0
            while offset < len(data):
                _, _, _, length = _HEADER.unpack_from(data, offset)
                offset += _HEADER.size
                # An overflow of the queue has no name, and neither has the directory itself.
                names.add(os.fsdecode(data[offset : offset + length].rstrip(b"\0")))
                offset += length

    def close(self) -> None:
        """End the watch."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

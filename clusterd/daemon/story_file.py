"""The story on disk: one JSON object a line, so that what happened is known after a restart of the daemon, too.

It is told, not relied upon: the journal is the truth, so nothing is synced, and a line that cannot be written is lost without
harm. Invariants: at most two files of `MAX_BYTES`; a line that a crash cut short spoils no other.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clusterd.system.files import write_all

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["StoryFile"]

MAX_BYTES: Final = 4 * 1024**2
_READ_BYTES: Final = 2 * 1024**2
"""What is read of the end: more than all events that are kept in memory usually need."""

_ROOM: Final = 64 * 1024
"""A file with less room than this is full: no event is larger."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])


class StoryFile:
    """`events.jsonl` and its predecessor `events.jsonl.1`.

    Args:
        path: of the file; its directory exists, or nothing is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._size = 0

    def last(self, count: int) -> list[dict[str, Any]]:
        """Return the last events, oldest first; whatever is no event is left out."""
        data = b""
        for path in (self._path, self._predecessor):
            data = _end_of(path, _READ_BYTES - len(data)) + data
            if data.count(b"\n") > count or len(data) >= _READ_BYTES:
                break
        found = []
        for line in data.splitlines()[-count:]:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                event = _decoder.decode(line)
                if isinstance(event.get("seq"), int) and isinstance(event.get("time"), int | float):
                    found.append(event)
        return found

    def add(self, event: dict[str, Any]) -> None:
        """Write one event."""
        data = _encoder.encode(event) + b"\n"
        with contextlib.suppress(OSError):
            if self._descriptor < 0 or self._size + _ROOM > MAX_BYTES:
                self._open()
            try:
                write_all(self._descriptor, data)
            except OSError:
                # What may stand there now is half a line: the next opening ends it.
                self.close()
                raise
            self._size += len(data)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def _predecessor(self) -> Path:
        return self._path.with_name(f"{self._path.name}.1")

    def _open(self) -> None:
        self.close()
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size > MAX_BYTES - _ROOM:
                self._path.replace(self._predecessor)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            write_all(self._descriptor, b"\n")
            self._size += 1


def _end_of(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - count))
            data = file.read(count)
    except OSError:
        return b""
    # A file that a crash cut short must not run into its successor.
    return data if data.endswith(b"\n") or not data else data + b"\n"

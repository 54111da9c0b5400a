"""Under systemd: what engines print goes to the journal as well, line by line, with the field CLUSTERD_ENGINE=.

The file is the truth: an engine writes to it itself, whoever else lives. Here its new lines are read when inotify tells of them, and
sent to journald, which adds the unit and its CLUSTERD_PROFILE= and CLUSTERD_SET=. Nothing waits for the journal: what it does not
take yet is read again when it does, and what is too far behind by then is left out there, and said so.
"""

from __future__ import annotations

import os
import re
import select
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from clusterd.system.inotify import Watcher

if TYPE_CHECKING:
    from clusterd.core.model.launch import AgentSpec

__all__ = ["JOURNAL", "Mirror"]

JOURNAL: Final = "/run/systemd/journal/socket"
LINE_MAX: Final = 32 * 1024
TURN_MAX: Final = 256 * 1024
"""Bytes of one file in one turn: the agent has other things to do. What lies further back is skipped."""


class _File:
    """A log and how far it was read: bytes of a line without an end are read again."""

    def __init__(self, inode: int, offset: int) -> None:
        self.inode, self.offset = inode, offset


class Mirror:
    """The logs of one set's engines.

    Args:
        spec: whose.
        watcher: of the directory.
        journal: to journald.
    """

    def __init__(self, spec: AgentSpec, watcher: Watcher, journal: socket.socket) -> None:
        self._directory = Path(spec.log_dir)
        self._pattern = re.compile(rf"engine-{re.escape(spec.engine_set)}-(\d+)\.log")
        self._set = spec.engine_set
        self._watcher = watcher
        self._journal = journal
        self._files: dict[str, _File] = {}
        # Files with lines that the journal did not take yet.
        self._pending: set[str] = set()
        for path in self._directory.iterdir():
            if self._pattern.fullmatch(path.name):
                status = path.stat()
                self._files[path.name] = _File(status.st_ino, status.st_size)

    @classmethod
    def open(cls, spec: AgentSpec, address: str = JOURNAL) -> Self | None:
        """Begin with what will be printed from now on; None where it is not wanted, or cannot be done."""
        watcher = Watcher.open(Path(spec.log_dir)) if spec.journal else None
        if watcher is None:
            return None
        journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            journal.connect(address)
        except OSError:
            journal.close()
            watcher.close()
            return None
        return cls(spec, watcher, journal)

    def pollables(self) -> list[tuple[int, int]]:
        """Return the descriptors to wait for, and for what."""
        watched = (self._watcher.fileno(), select.POLLIN)
        return [watched, (self._journal.fileno(), select.POLLOUT)] if self._pending else [watched]

    def forward(self) -> None:
        """Send what is new; never waits."""
        names = self._watcher.read() | self._pending
        self._pending.clear()
        if "" in names:
            names |= set(self._files)
        for name in sorted(names):
            found = self._pattern.fullmatch(name)
            if found is not None:
                self._follow(name, f"{self._set}/{found[1]}")

    def close(self) -> None:
        """Stop."""
        self._watcher.close()
        self._journal.close()

    def _follow(self, name: str, engine: str) -> None:
        path = self._directory / name
        try:
            status = path.stat()
        except FileNotFoundError:
            return  # rotated, and nothing was written since
        known = self._files.get(name)
        if known is not None and known.inode != status.st_ino:
            # Renamed since: its last lines are there.
            self._read(path.with_name(f"{name}.1"), known, engine)
            known = None
        if known is None or known.offset > status.st_size:
            known = self._files[name] = _File(status.st_ino, 0)
        self._read(path, known, engine)

    def _read(self, path: Path, known: _File, engine: str) -> None:
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != known.inode:
                    return
                skipped = max(0, status.st_size - known.offset - TURN_MAX)
                file.seek(known.offset + skipped)
                data = file.read(TURN_MAX)
        except OSError:
            return
        if skipped:
            self._send(engine, f"clusterd: {skipped} bytes are left out here, they are in {path}".encode())
        # A line without an end waits for it, unless it is too long for one.
        end = data.rfind(b"\n") + 1 or (len(data) if len(data) >= LINE_MAX else 0)
        known.offset += skipped
        for line in data[:end].splitlines(keepends=True):
            if line.strip() and not self._send(engine, line.rstrip(b"\r\n")[:LINE_MAX]):
                self._pending.add(f"engine-{engine.replace('/', '-')}.log")
                return
            known.offset += len(line)

    def _send(self, engine: str, line: bytes) -> bool:
        """Send a line; False when it is to be sent again."""
        # The native protocol of journald: with a text of one line each field is NAME=text.
        head = f"PRIORITY=6\nSYSLOG_IDENTIFIER=clusterd-engine\nCLUSTERD_ENGINE={engine}\nMESSAGE="
        try:
            self._journal.send(head.encode() + line + b"\n")
        except BlockingIOError:
            return False
        except OSError:
            return True  # there is no journald; the line is in its file
        return True

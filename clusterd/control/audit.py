"""What was commanded, by whom, with which outcome: a file of JSON lines, private, renamed to `.1` when it has grown.

Every command has a line, and every request that was refused; questions that were answered have none. What cannot be written is told
in `status` and stops nobody: the journal is what commands depend on. It is a record for people who trust the user of the daemon, not
against that user: who runs code on the engines has the same uid, and the file is that uid's. Elsewhere it is safe: systemd's journal
has each line as well.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Final

from clusterd.system.files import write_all

if TYPE_CHECKING:
    from pathlib import Path

    from clusterd.control.authorize import Caller

__all__ = ["Audit", "NoAudit"]

_log = logging.getLogger("clusterd.audit")

MAX_BYTES: Final = 16 * 1024**2
ARGUMENTS_MAX: Final = 4096
"""Characters of a command's arguments that are kept: a list of 65,536 engines would be a line of its own megabyte."""


class Audit:
    """One file.

    Args:
        path: of the file; its directory exists.
        max_bytes: how long it grows.

    Attributes:
        problem: why the last line could not be written; empty when it could.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._descriptor: int | None = None
        self.problem = ""

    def note(self, now: float, caller: Caller, verb: str, arguments: dict[str, Any], outcome: str, reason: str) -> None:
        """Write a line.

        Args:
            now: wall time.
            caller: who asked.
            verb: for what.
            arguments: with what; no secret is ever one.
            outcome: `done`, or the code of the refusal.
            reason: its text; empty when done.
        """
        told = json.dumps(arguments)
        line: dict[str, Any] = {
            "time": _stamp(now),
            "uid": caller.uid,
            "user": caller.name or None,
            "pid": caller.pid,
            "verb": verb,
            "arguments": arguments if len(told) <= ARGUMENTS_MAX else told[:ARGUMENTS_MAX] + "...",
            "outcome": outcome,
        }
        if reason:
            line["reason"] = reason
        # In the daemon's own log a refusal stands out; what was done is there already, as an event.
        level = logging.DEBUG if outcome == "done" else logging.WARNING
        _log.log(level, "%s by %s: %s%s", verb, caller, outcome, f": {reason}" if reason else "")
        self._add(line)

    def note_client(self, now: float, who: str, verb: str) -> None:
        """Write down what a client has asked the controller for, which asked the daemon: the controller knows no uid."""
        self._add({"time": _stamp(now), "uid": None, "user": None, "client": who, "verb": verb, "outcome": "done"})

    def close(self) -> None:
        """Give the file back."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _add(self, line: dict[str, Any]) -> None:
        try:
            self._write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            if not self.problem:
                _log.error("%s cannot be written: %s", self._path, error.strerror)
            self.problem = f"the audit log {self._path} cannot be written: {error.strerror}"
            self.close()
        else:
            self.problem = ""

    def _write(self, data: bytes) -> None:
        if self._descriptor is not None and os.fstat(self._descriptor).st_size + len(data) > self._max_bytes:
            self.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        if self._descriptor is None or not self._is_current(self._descriptor):
            self.close()
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._path, flags, 0o600)
        write_all(self._descriptor, data)

    def _is_current(self, descriptor: int) -> bool:
        """Say whether the path still names the file that is open: logrotate(8), or a person, may have moved it."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except OSError:
            return False


def _stamp(now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(now))


class NoAudit:
    """Where there is no file."""

    def note(self, *_: Any) -> None:
        """Do nothing."""

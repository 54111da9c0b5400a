"""Starts a daemon for a user who has none: in its own session, its log in the state directory, ready when it says so.

The daemon writes READY to a pipe once its socket listens, and closes it by ending if it cannot: no polling, no guess from a
file that appeared. It outlives its starter, and a terminal that is closed.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from typing import TYPE_CHECKING

from clusterd.errors import LaunchError, LockHeld, NotConverged, ProfileError
from clusterd.system import paths
from clusterd.system.files import private_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["log_path", "spawn_daemon"]

READY = b"READY\n"
PROFILE_STATUS = 78  # EX_CONFIG of sysexits(3): `clusterd serve` ends with it when the profile cannot be used,
LOCKED_STATUS = 3  # and with this when another daemon serves it
LOG_MAX = 16 * 1024**2
_LINES_SHOWN = 15


def log_path(name: str) -> Path:
    """Return the file that a daemon started here logs to."""
    return paths.state_dir(name) / "log" / "daemon.log"


def spawn_daemon(name: str, arguments: Sequence[str], *, timeout: float) -> int:
    """Start the daemon of profile `name` and return its pid once it listens.

    Args:
        name: the profile.
        arguments: further ones for `clusterd serve`.
        timeout: seconds it may take.

    Raises:
        LockHeld: another daemon serves the profile, or begins to.
        ProfileError: the profile cannot be used; the text has all its mistakes.
        LaunchError: it ended for another reason; the text has the last lines of its log.
        NotConverged: it still runs, but did not get ready in time.
        NotPrivate: its directories belong to somebody else.
        OSError: no process, no pipe, no log file.
    """
    path = log_path(name)
    for directory in (path.parent.parent.parent, path.parent.parent, path.parent):
        private_directory(directory)
    _put_aside(path)
    reading, writing = os.pipe()
    try:
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            before = os.fstat(log).st_size
            process = subprocess.Popen(
                _command(name, writing, arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                pass_fds=[writing],
            )
        finally:
            os.close(log)
            os.close(writing)
        return _await_ready(name, process, reading, timeout, path, before)
    finally:
        os.close(reading)


def _put_aside(path: Path) -> None:
    """Let a log that has grown become `.1`: nobody else rotates that of a user's daemon."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > LOG_MAX:
            path.replace(path.with_name(path.name + ".1"))


def _command(name: str, writing: int, arguments: Sequence[str]) -> list[str]:
    # -P: a file called clusterd.py in the caller's directory is not what is meant.
    command = [sys.executable, "-P", "-m", "clusterd", "serve", "--profile", name]
    return [*command, "--ends-on-stop", "--ready-fd", str(writing), *arguments]


def _await_ready(
    name: str, process: subprocess.Popen[bytes], reading: int, timeout: float, path: Path, before: int
) -> int:
    readable, _, _ = select.select([reading], [], [], timeout)
    if not readable:
        raise NotConverged(
            f"the daemon (process {process.pid}) runs, but was not ready within {timeout:g} s",
            hint=f"its log: {path}",
        )
    if os.read(reading, len(READY)) != READY:
        status = process.wait()
        lines = _lines_since(path, before)
        if status == LOCKED_STATUS:
            raise LockHeld(lines[-1] if lines else f"{name} is served by another daemon")
        if status == PROFILE_STATUS:
            # What the daemon logged is the list of mistakes: it stands for itself.
            raise ProfileError("\n".join(lines), hint=f"correct it, then: clusterctl -p {name} start")
        raise LaunchError(
            "\n".join([f"the daemon could not start ({_how(status)}):", *(f"  {line}" for line in lines)]),
            hint=f"all of its log: {path}",
        )
    # Popen would warn about a child that still runs; this one is meant to.
    process.returncode = 0
    return process.pid


def _lines_since(path: Path, offset: int) -> list[str]:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace").splitlines()[-_LINES_SHOWN:]


def _how(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by signal {-status}"

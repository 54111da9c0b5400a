"""The launcher `local`: processes on this host, each in a session of its own, its output in a file.

What is started lives on without the daemon: no pipe, no terminal, no process group ties the two. Invariants: the pid that is
returned is that of the program itself (setup lines end in `exec`); no variable of the daemon's own service or, for another
interpreter than ours, of its Python reaches it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clusterd.core.model.launch import ProcessIdentity
from clusterd.core.supervisor.settings import LOCAL
from clusterd.errors import LaunchError
from clusterd.launchers import limits
from clusterd.system import process
from clusterd.system.systemd import without_service_variables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterd.launchers.base import Program

__all__ = ["SHELL", "LocalLauncher", "command", "environment", "open_log", "program_argv", "why_it_ended"]

SHELL: Final = "/bin/sh"
LOG_MAX: Final = 16 * 1024**2
"""A log that is longer when its process is started becomes `.1`: a crash loop must not fill the disk."""

# They name the modules of one interpreter; another one would load those, or not even start.
_OF_ONE_PYTHON: Final = frozenset({"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONPLATLIBDIR", "VIRTUAL_ENV"})
_TAIL_BYTES: Final = 8192


class LocalLauncher:
    """Starts processes; knows nothing of those that it has started."""

    traits = LOCAL

    def start(self, program: Program) -> ProcessIdentity:
        """Start it and return who it is.

        Raises:
            LaunchError: nothing was started, or it ended in the very moment.
        """
        argv = command(program)
        log = open_log(Path(program.log))
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment(os.environ, program),
                start_new_session=True,
                close_fds=True,
            )
        except OSError as error:
            raise LaunchError(f"cannot start {program.title}: {argv[0]}: {error.strerror}") from error
        finally:
            os.close(log)
        limits.hold(child.pid, program.limits)
        identity = process.of(child.pid)
        if identity is None:
            status = child.wait()
            raise LaunchError(f"{program.title} {why_it_ended(status, Path(program.log))}")
        # Its end is seen by pidfd and reaped by whoever watches it; Popen would warn about a child that still runs.
        child.returncode = 0
        return ProcessIdentity(*identity)


def command(program: Program) -> list[str]:
    """Return the argv.

    Raises:
        LaunchError: there is no such interpreter. With setup lines only the shell can know that.
    """
    argv = program_argv(program)
    if not program.setup:
        return argv
    return [SHELL, "-c", "\n".join([*program.setup, 'exec "$0" "$@"']), *argv]


def program_argv(program: Program) -> list[str]:
    """Return what is to be run after the setup lines; raises as `command` does."""
    python = program.python or sys.executable
    if not program.setup:
        python = _interpreter(python, program)
    # -P: files in the working directory are no modules. Users' code gets its own idea of sys.path in the engine.
    return [python, "-P", "-m", "clusterd", program.word, "--spec", program.spec]


def environment(own: Mapping[str, str], program: Program) -> dict[str, str]:
    """Return the environment for a program, from the daemon's own."""
    result = without_service_variables(own)
    if program.python is not None or program.setup:
        result = {name: value for name, value in result.items() if name not in _OF_ONE_PYTHON}
    return {**result, **program.env}


def why_it_ended(status: int | None, log: Path) -> str:
    """Return how a process ended, and what it said last, as the rest of a sentence.

    Args:
        status: as of subprocess (negative: a signal); None when nobody could know, because it was not our child.
        log: where it wrote to.
    """
    if status is None:
        how = "ended (how is not known: an earlier daemon had started it)"
    elif status < 0:
        how = f"was killed by {_signal_name(-status)}"
    elif status == 0:
        how = "ended with exit status 0"
    else:
        how = f"ended with exit status {status}"
    last = last_line(log)
    if status and "No module named" in last and "clusterd" in last:
        python = last.partition(": ")[0]
        return f"{how}: clusterd is not installed there; install it: {python} -m pip install clusterd"
    return f"{how}; its log ends: {last}" if status and status > 0 and last else how


def last_line(path: Path) -> str:
    """Return the last line of a file that is not empty, shortened; nothing when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _interpreter(python: str, program: Program) -> str:
    found = shutil.which(python)
    if found is not None:
        return found
    path = Path(python)
    if "/" not in python:
        problem = f"there is no {python} in PATH"
    elif not path.exists():
        problem = f"{python} does not exist"
    elif path.is_dir():
        problem = f"{python} is a directory"
    else:
        problem = f"{python} is not executable"
    raise LaunchError(
        f"cannot start {program.title}: {problem}", hint="correct `python:` in the profile, then: clusterctl reload"
    )


def open_log(path: Path) -> int:
    """Return a descriptor that appends to a log; one that has grown large is put aside.

    Raises:
        LaunchError: it cannot be written.
    """
    try:
        if path.exists() and path.stat().st_size > LOG_MAX:
            path.replace(path.with_name(path.name + ".1"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LaunchError(f"cannot write the log {path}: {error.strerror}") from error


def _signal_name(number: int) -> str:
    import signal  # noqa: PLC0415 - only for messages

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

"""How an engine ended, in words: from its wait status, from what we asked of it, and from what the kernel counted."""

from __future__ import annotations

import os
import signal
from typing import NamedTuple

_ASKED = {
    "surplus": "stopped: its set was made smaller",
    "stop": "stopped by command",
    "kill": "killed by command",
    "restart": "ended by command, to be started anew",
    "shutdown": "stopped with its set",
}
# What user code does to itself, not what somebody does to it.
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS})


class End(NamedTuple):
    """The end of an engine; fields as in EngineExited. `is_failure`: the restart policy counts it."""

    exit_code: int
    signal: int
    is_oom: bool
    is_wanted: bool
    is_failure: bool
    cause: str


def of_status(status: int, asked: str, oom: str, peak_bytes: int) -> End:
    """An end whose wait status is known.

    Args:
        status: as of wait(2).
        asked: why we wanted it to end (`slots.Engine.ending`), or nothing.
        oom: what the kernel counted since the last end (`memory_events`), or nothing.
        peak_bytes: most memory that it had resident.
    """
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        is_oom = number == signal.SIGKILL and not asked and bool(oom)
        return End(-1, number, is_oom, bool(asked), not asked, _signalled(number, asked, oom, peak_bytes))
    code = os.waitstatus_to_exitcode(status)
    cause = _ASKED.get(asked, asked) if asked else f"ended with exit status {code}"
    return End(code, -1, is_oom=False, is_wanted=bool(asked), is_failure=not asked and code != 0, cause=cause)


def unknown(asked: str, oom: str, starter: str) -> End:
    """The end of an engine that somebody else had to reap, because `starter` had started it."""
    if asked:
        return End(-1, -1, is_oom=False, is_wanted=True, is_failure=False, cause=_ASKED.get(asked, asked))
    cause = f"ended; how is not known, because {starter} had started it"
    if oom:
        cause += f" (at that time {oom})"
    return End(-1, -1, is_oom=False, is_wanted=False, is_failure=True, cause=cause)


def _signalled(number: int, asked: str, oom: str, peak_bytes: int) -> str:
    if asked:
        return _ASKED.get(asked, asked)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"  # a real-time signal
    peak = f"its peak was {peak_bytes / 2**20:.0f} MiB"
    if number == signal.SIGKILL:
        if oom:
            return f"killed by the kernel because {oom} ({peak})"
        return f"killed by SIGKILL, not by its agent: a person, a batch system's limit or the kernel ({peak})"
    verb = "crashed with" if number in _CRASHES else "killed by"
    return f"{verb} {name}"

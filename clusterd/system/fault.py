"""Fault points: named moments at which a test can end, freeze or break the process. Off by default.

    CLUSTERD_FAULT=journal.append.before_fsync:2=kill      at the second pass, SIGKILL to ourselves
    CLUSTERD_FAULT_ONCE=DIR                                fire once over all processes and restarts (DIR/NAME is made)

While DIR does not exist nothing is counted and nothing fires: a test arms what already runs by making it.
Several are separated by commas. Actions: `kill` (SIGKILL), `stop` (SIGSTOP), `exit` (status 70, no clean-up), `raise`
(FaultInjected). `POINTS` names every point, the process that passes it and what was and was not done there; tests
are generated from it, and one checks that code and table agree. When off, a point costs one call of an empty function.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple

__all__ = ["POINTS", "FaultInjected", "Point", "install", "point"]


class Point(NamedTuple):
    """One fault point.

    Attributes:
        process: the process that passes it: daemon, controller, agent, zygote, engine, client or any.
        description: the state of the world at that moment, in terms of what is already durable or visible.
    """

    process: str
    description: str


POINTS: dict[str, Point] = {
    "agent.start.after_claim": Point("agent", "its launch is claimed, no zygote runs"),
    "agent.start.before_attach": Point("agent", "engines of an earlier agent are found, the controller was not told"),
    "agent.fork.after_order": Point("agent", "engines are ordered from the zygote, none of them is reported"),
    "agent.recall.before_answer": Point(
        "agent", "dispatches are revoked on an engine's page, the controller was not told"
    ),
    "agent.engine_exited.before_report": Point("agent", "an engine is dead, nobody was told, its files are there"),
    "client.submit.before_send": Point("client", "tasks are taken from the queue, nothing of them is sent"),
    "client.submit.after_send": Point("client", "tasks are sent, the controller may or may not have read them"),
    "client.result.received": Point("client", "results are read, no future knows of them and nothing is acknowledged"),
    "controller.bound": Point("controller", "the sockets are bound, the connection files not written"),
    "controller.announced": Point("controller", "the connection files are written, nothing is read yet"),
    "controller.submit.received": Point("controller", "tasks of a client are read, nobody else knows of them"),
    "controller.result.received": Point(
        "controller", "results of an engine are read, their client does not know of them"
    ),
    "controller.recovery.before_release": Point(
        "controller", "a successor knows what the engines hold, nothing of what clients offered again is placed"
    ),
    "controller.restore.before_load": Point(
        "controller", "a durable successor listens, and has read nothing of what it is to take up"
    ),
    "controller.restore.after_load": Point(
        "controller", "what an earlier controller left is taken up, nothing of it is sent to an engine"
    ),
    "controller.commit.before_write": Point(
        "controller",
        "what turns of a durable controller changed is on its way to the store; nothing is written or said",
    ),
    "controller.commit.after_write": Point("controller", "what turns changed is committed; nothing of it is said"),
    "controller.release.before_send": Point("controller", "the loop knows what is committed; nothing of it is said"),
    "controller.release.half_done": Point(
        "controller", "what was committed is said; bare acknowledgements alone are missing"
    ),
    "controller.rotate.secrets_kept": Point(
        "controller", "new keys are in the secrets file; the connection files and this controller have the old ones"
    ),
    "controller.rotate.half_written": Point(
        "controller", "new keys are in the secrets and in the engine file; clients still read the old one"
    ),
    "controller.rotate.written": Point(
        "controller", "new keys are in all files; this controller has the old ones, and nobody was told"
    ),
    "controller.flush.half_done": Point(
        "controller", "what a turn decided is sent to clients, nothing of it (dispatches, acknowledgements) to engines"
    ),
    "controller.turn.before_flush": Point("controller", "what a turn decided is queued, nothing of it is sent"),
    "controller.turn.after_flush": Point(
        "controller", "what a turn decided is sent, acknowledgements alone may be missing"
    ),
    "daemon.handle.after_actions": Point("daemon", "what an event means is durable and done, nobody was told"),
    "daemon.rotate.before_publish": Point(
        "daemon", "the controller has new keys and has written its files; the copy for IPython has the old one"
    ),
    "daemon.start.after_spawn": Point("daemon", "a process runs, its identity is not in the journal"),
    "daemon.start.before_spawn": Point("daemon", "a launch is intended and its spec written, no process exists"),
    "engine.start.before_attach": Point("engine", "its identity file and page are there, no controller knows of it"),
    "engine.task.before_run": Point("engine", "the task is announced on the status page, nothing of it has run"),
    "engine.task.after_run": Point("engine", "the task has run, its result exists in this process alone"),
    "engine.result.before_send": Point("engine", "results are ready, nothing of them is sent"),
    "engine.result.after_send": Point("engine", "results are sent, the controller may or may not have them"),
    "files.atomic_write.before_rename": Point("any", "the temporary file is complete, the old file still in place"),
    "journal.append.before_write": Point("daemon", "decided, nothing of the batch is written"),
    "journal.append.before_fsync": Point("daemon", "the batch is written, not synced"),
    "journal.append.after_fsync": Point("daemon", "the batch is durable, nothing was done about it and nobody told"),
    "journal.segment.before_write": Point("daemon", "the new segment is an empty temporary file"),
    "journal.segment.before_fsync": Point("daemon", "the new segment is written under its temporary name, not synced"),
    "journal.segment.before_rename": Point("daemon", "the new segment is synced under its temporary name"),
    "journal.segment.before_directory_fsync": Point("daemon", "the new segment has its name, which is not synced"),
    "journal.segment.before_switch": Point("daemon", "two complete segments exist, the old one is still in use"),
    "journal.segment.before_removal": Point("daemon", "the new segment is in use, an old one still exists"),
    "journal.repair.before_truncate": Point("daemon", "a torn tail is copied and not yet cut off"),
    "zygote.warm.before_report": Point("zygote", "everything is imported, the agent was not told"),
    "zygote.reap.before_report": Point("zygote", "a dead engine is reaped, the agent was not told how it ended"),
    "zygote.fork.before_report": Point("zygote", "the engine runs, the agent was not told its pid"),
}
"""Every fault point of the product; add yours here."""

VARIABLE = "CLUSTERD_FAULT"
ONCE_VARIABLE = "CLUSTERD_FAULT_ONCE"
EXIT_STATUS = 70  # EX_SOFTWARE in sysexits(3): no program of ours exits with it otherwise


class FaultInjected(RuntimeError):
    """Raised by the action `raise`; deliberately no ClusterdError, so that no handler for expected errors hides it."""


def point(name: str) -> None:
    """Pass the point `name`; does nothing unless CLUSTERD_FAULT names it."""


def install(specification: str, once: str | None = None) -> None:
    """Switch points on; called at import with the environment's values, and by tests in a process of their own.

    Args:
        specification: `NAME[:N]=ACTION`, comma separated; fires at the N-th pass (1) and at each one after it.
        once: a directory; a point fires only if it can make the file `once/NAME`, so a restarted process lives on. Passes
            before it exists do not count.

    Raises:
        ValueError: an unknown point or action, or a malformed entry: a test that names nothing would prove nothing.
    """
    armed: dict[str, tuple[int, str]] = {}
    for entry in filter(None, specification.split(",")):
        left, separator, action = entry.partition("=")
        name, _, count = left.partition(":")
        if not separator or action not in _ACTIONS or name not in POINTS or not (count or "1").isdecimal():
            raise ValueError(
                f"{VARIABLE}: {entry!r} is not NAME[:N]=kill|stop|exit|raise with a NAME from fault.POINTS"
            )
        armed[name] = (int(count or "1"), action)
    passes = dict.fromkeys(armed, 0)
    directory = Path(once) if once else None

    def pass_point(name: str) -> None:
        if name not in armed or not (directory is None or directory.is_dir()):
            return
        passes[name] += 1
        at, action = armed[name]
        if passes[name] >= at and (directory is None or _claim(directory / name)):
            _act(action, name)

    global point  # noqa: PLW0603 - the one switch: callers say `fault.point(...)`, so they see the replacement
    point = pass_point if armed else _off


_ACTIONS = ("kill", "stop", "exit", "raise")
_off = point


def _claim(marker: Path) -> bool:
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _act(action: str, name: str) -> None:
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "exit":
            os._exit(EXIT_STATUS)
        case _:
            raise FaultInjected(name)


if VARIABLE in os.environ:
    install(os.environ[VARIABLE], os.environ.get(ONCE_VARIABLE))

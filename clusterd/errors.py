"""Every error that clusterd raises or sends; each has a stable code and, where one is known, a hint: what to do next.

ClusterdError
+-- ProfileError            a profile cannot be used (all mistakes at once, with line and column)
+-- ControlError            the daemon answered no
|   +-- DaemonNotRunning    nobody listens on the control socket
|   +-- PermissionDenied    the caller's uid may not command this daemon
|   +-- NotConverged        the wish was journaled, but did not come true in time
+-- ConnectionFileError     a connection file is missing, unreadable, open to others or not ours
+-- WireError               bytes that are not our protocol
|   +-- VersionMismatch     the other side speaks no version that we speak
|   +-- AuthenticationError a signature, nonce or resume token is wrong
|   |   +-- KeyChanged      the connection file has a key that the cluster does not use any more
|   +-- LimitExceeded       a message is larger than the peer allows
+-- ControllerLost          the controller vanished and did not come back in time
+-- LaunchError             a process could not be started
+-- StorageError            the journal or a task store cannot be read or written
|   +-- LockHeld            another process has it open; says which
|   +-- NotPrivate          a file or directory of ours belongs, or is open, to somebody else
|   +-- UnknownTask         no record of this task
|   +-- NoRecords           this controller keeps no records
+-- BadQuery                a question about task records that has no meaning
+-- TaskError               a task has no result
|   +-- EngineLost          its engine died: names engine, cause and last output
|   +-- TaskAborted         it was aborted before it ran
|   +-- TaskTimeout         it did not finish within its timeout
|   +-- TaskUnschedulable   no engine can ever run it (target gone, none left)
|   +-- TaskNotSendable     function or arguments cannot be pickled, or the result cannot
|   +-- CompositeError      several engines failed in one call
+-- NoEngines               a view over no engines
"""

from __future__ import annotations

from typing import Any


class ClusterdError(Exception):
    """Base of all; `str(error)` is the message, followed by the hint on a line of its own.

    Attributes:
        code: stable word for programs (JSON `error.code`, documented exit codes).
        hint: what to do next, or an empty string.
    """

    code: str = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments and attributes of subclasses survive pickling through __dict__.
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(cls: type[ClusterdError], args: tuple[Any, ...], state: dict[str, Any]) -> ClusterdError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ProfileError(ClusterdError):
    """A profile cannot be used."""

    code = "profile"


class ControlError(ClusterdError):
    """The daemon refused or failed a command.

    Attributes:
        code: `refused` unless the daemon gave a narrower one that has no class of its own (`bad_request`, `not_found`, ...).
    """

    code = "refused"

    def __init__(self, message: str, *, code: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        if code:
            self.code = code


class DaemonNotRunning(ControlError):
    """No daemon serves the profile."""

    code = "no_daemon"


class PermissionDenied(ControlError):
    """The caller may not command this daemon."""

    code = "denied"


class NotConverged(ControlError):
    """The wish was accepted but did not come true within the time limit."""

    code = "not_converged"


class ConnectionFileError(ClusterdError):
    """A connection file cannot be used."""

    code = "connection_file"


class WireError(ClusterdError):
    """Bytes that are not our protocol."""

    code = "wire"


class VersionMismatch(WireError):
    """The other side speaks no version that we speak."""

    code = "version"


class AuthenticationError(WireError):
    """A signature, nonce or resume token is wrong."""

    code = "authentication"


class KeyChanged(AuthenticationError):
    """The key of the cluster was changed since the connection file was written."""

    code = "key_changed"


class LimitExceeded(WireError):
    """A message is larger, or there are more of them, than the peer allows."""

    code = "limit"


class ControllerLost(ClusterdError):
    """The controller vanished and did not come back in time."""

    code = "controller_lost"


class LaunchError(ClusterdError):
    """A process could not be started."""

    code = "launch"


class StorageError(ClusterdError):
    """The journal or a task store cannot be read or written."""

    code = "storage"


class LockHeld(StorageError):
    """Another process holds the lock.

    Attributes:
        pid: its process id, None when the lock file does not say.
        host: its host id, likewise.
    """

    code = "locked"

    def __init__(self, message: str, *, pid: int | None = None, host: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.pid = pid
        self.host = host


class NotPrivate(StorageError):
    """A file or directory that must be ours alone belongs to somebody else, or is open to others."""

    code = "not_private"


class UnknownTask(StorageError):
    """There is no record of a task.

    Attributes:
        task: its id.
    """

    code = "unknown_task"

    def __init__(self, task: str) -> None:
        super().__init__(f"no record of task {task}")
        self.task = task


class NoRecords(StorageError):
    """The controller keeps no records of tasks."""

    code = "no_records"


class BadQuery(ClusterdError):
    """A query for task records names what does not exist, or compares what cannot be compared."""

    code = "bad_query"


class TaskError(ClusterdError):
    """A task has no result."""

    code = "task"


class EngineLost(TaskError):
    """The engine that ran the task died; the message names engine, cause and last output."""

    code = "engine_lost"


class TaskAborted(TaskError):
    """The task was aborted before it ran."""

    code = "aborted"


class TaskTimeout(TaskError):
    """The task did not finish within its timeout."""

    code = "timeout"


class TaskUnschedulable(TaskError):
    """No engine can ever run the task."""

    code = "unschedulable"


class TaskNotSendable(TaskError):
    """Function, arguments or result cannot be pickled."""

    code = "not_sendable"


class CompositeError(TaskError):
    """Several engines failed in one call.

    Attributes:
        errors: (engine wire id, exception) of each failure, in the order of the engines.
    """

    code = "composite"

    def __init__(self, message: str, errors: list[tuple[int, BaseException]], *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errors = errors


class NoEngines(ClusterdError):
    """A view was asked for while no engine is registered."""

    code = "no_engines"

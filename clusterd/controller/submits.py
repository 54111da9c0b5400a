"""A Submit as it is kept and as the scheduler is told of it; payload frames as they are handed out. Nobody looks into a payload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clusterd.core.model.task import Dependency
from clusterd.core.scheduler import events
from clusterd.core.wire.messages import Broadcast, Submit
from clusterd.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.storage.taskstore.row import TaskRow

MAX_TARGETS = 4096
"""Tasks of one Broadcast: what follows from one message is done before the next is looked at."""
# A label is kept with the record of its task.
MAX_LABEL = 256
# What a task id in a dependency takes here: the id, and its places in a set and a dict.
_ID_BYTES = 256
# Function digests are 16 bytes: a kind alone keys the run times of tasks without a function (cells, push, pull).
_KEY_OF_KIND = [bytes([kind]) for kind in range(256)]


class Part(Submit):
    """One task of a Broadcast: so many of them have its payload together."""

    sharers: int = 1


class Payload:
    """The request of one task, as it arrived."""

    __slots__ = ("body", "client", "digests", "frames", "function", "kind", "origin", "row")

    def __init__(
        self, message: Submit, client: int, frames: Sequence[Any], digests: Sequence[bytes], origin: Any = None
    ) -> None:
        self.kind = message.kind
        self.function = message.function
        self.body = message.body
        self.client = client
        self.frames = frames
        self.digests = digests
        # What the door that it came through has to remember until the end; None natively.
        self.origin = origin
        # The record of the task; None where none is kept.
        self.row: TaskRow | None = None


class Frames:
    """Hands out the payload frames of one message in order."""

    __slots__ = ("_at", "_digests", "_payload")

    def __init__(self, payload: Sequence[Any], digests: list[bytes] | None) -> None:
        self._payload = payload
        self._digests = digests
        self._at = 0

    def take(self, count: int) -> tuple[Sequence[Any], Sequence[bytes]]:
        """The next `count` frames and their digests (empty where the link has none).

        Raises:
            WireError: there are not so many.
        """
        if not count:
            return (), ()
        start, self._at = self._at, self._at + count
        if self._at > len(self._payload):
            raise WireError(f"{len(self._payload)} payload frames, of which messages own {self._at}")
        return self._payload[start : self._at], self._digests[start : self._at] if self._digests else ()

    def check_taken(self) -> None:
        """Raise WireError when frames are left that no message owns."""
        if self._at != len(self._payload):
            raise WireError(f"{len(self._payload)} payload frames, of which messages own {self._at}")


def parts_of(message: Any, frames: Frames) -> tuple[list[Part], tuple[Sequence[Any], Sequence[bytes]]]:
    """The tasks of a Broadcast, as if each had been submitted, and the payload that they share.

    Raises:
        WireError: it is none, or has not as many tasks as targets, or too many.
    """
    if type(message) is not Broadcast:
        raise WireError(f"{type(message).__name__} from a client that is attached")
    count = len(message.tasks)
    if count != len(message.targets) or count > MAX_TARGETS:
        raise WireError(f"a broadcast of {count} tasks to {len(message.targets)} engines; {MAX_TARGETS} are taken")
    shared = (message.body, message.frames, message.options, message.is_offered_again, count)
    parts = [
        Part(task, message.kind, message.function, target, *shared)
        for task, target in zip(message.tasks, message.targets, strict=True)
    ]
    return parts, frames.take(message.frames)


def size_of(message: Submit, frames: Sequence[Any]) -> int:
    """What a task counts for in the credit of its client, in bytes."""
    size = len(message.body)
    if frames:
        size += sum(map(len, frames))
    if type(message) is Part:
        size = -(-size // message.sharers)
    options = message.options
    if options is not None:
        # Kept with the task, and the client's to answer for.
        dependencies = (options.after, options.follow)
        size += _ID_BYTES * sum(len(dependency.tasks) for dependency in dependencies if dependency is not None)
    return size


def submitted(message: Submit, client: int, frames: Sequence[Any]) -> events.TaskSubmitted:
    """What the scheduler is told of a Submit."""
    function = message.function or _KEY_OF_KIND[message.kind]
    size = size_of(message, frames)
    target = message.target
    options = message.options
    if type(target) is list:
        target = tuple(target)  # type: ignore[assignment]
    if options is None:
        return events.TaskSubmitted(message.task, client, function, size, target)  # type: ignore[arg-type]
    return events.TaskSubmitted(
        message.task,
        client,
        function,
        size,
        target,  # type: ignore[arg-type]
        options.retries,
        options.timeout,
        options.label[:MAX_LABEL],
        _dependency(options.after),
        _dependency(options.follow),
        max_wait=options.max_wait,
    )


def _dependency(wire: Any) -> Dependency | None:
    if wire is None:
        return None
    return Dependency(tuple(wire.tasks), wire.is_all, wire.on_success, wire.on_failure)

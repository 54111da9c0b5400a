"""What a stock client asks of balanced work: dependencies, retries, how long it may wait. All of it comes from outside, and is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from clusterd.controller.restoring import rest_of
from clusterd.core.model.task import Dependency
from clusterd.core.wire import jupyter, messages
from clusterd.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterd.controller.compat.origin import Metadata
    from clusterd.storage.taskstore.row import TaskRow

_TASK_BYTES: Final = 256
"""What a task in a dependency takes here."""


class TaskOptions:
    """What a balanced task asks for.

    Raises:
        WireError: something of it makes no sense.
    """

    __slots__ = ("after", "follow", "retries", "size", "timeout")

    def __init__(self, metadata: Metadata) -> None:
        self.after = _dependency(metadata.after, "after")
        self.follow = _dependency(metadata.follow, "follow")
        retries, timeout = metadata.retries or 0, metadata.timeout or None
        if not isinstance(retries, int) or retries < 0:
            raise WireError(f"retries: {retries!r} is no number of times")
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise WireError(f"timeout: {timeout!r} is no time in seconds")
        self.retries = min(retries, 2**31)
        self.timeout = None if timeout is None else float(timeout)
        dependencies = (self.after, self.follow)
        self.size = _TASK_BYTES * sum(len(each.tasks) for each in dependencies if each is not None)

    @property
    def needs(self) -> tuple[bytes, ...]:
        """The tasks that it waits for."""
        return tuple(task for wait in (self.after, self.follow) if wait is not None for task in wait.tasks)

    def forget_ended(
        self, target: int | tuple[int, ...] | None, outcome_of: Callable[[bytes], TaskRow | None]
    ) -> int | tuple[int, ...] | None:
        """Drop what need not be waited for, because the store says how it ended; the engines that are left of `target`."""
        if self.after is None and self.follow is None:
            return target
        asked = messages.TaskOptions(after=_wire(self.after), follow=_wire(self.follow))
        aim, rest = rest_of(list(target) if isinstance(target, tuple) else target, asked, outcome_of)
        if rest is not None:
            self.after, self.follow = _model(rest.after), _model(rest.follow)
        return tuple(aim) if isinstance(aim, list) else aim


def _wire(wait: Dependency | None) -> messages.Dependency | None:
    return (
        None if wait is None else messages.Dependency(list(wait.tasks), wait.is_all, wait.on_success, wait.on_failure)
    )


def _model(wait: messages.Dependency | None) -> Dependency | None:
    return None if wait is None else Dependency(tuple(wait.tasks), wait.is_all, wait.on_success, wait.on_failure)


def _dependency(value: Any, what: str) -> Dependency | None:
    if not value:
        return None
    if isinstance(value, dict):
        ids = strings(value.get("dependencies") or [], what)
        if not ids:
            return None
        return Dependency(
            tuple(map(jupyter.task_id, ids)),
            bool(value.get("all", True)),
            bool(value.get("success", True)),
            bool(value.get("failure", False)),
        )
    ids = [value] if isinstance(value, str) else strings(value, what)
    return Dependency(tuple(map(jupyter.task_id, ids)))


def strings(value: Any, what: str) -> list[str]:
    """A list of texts.

    Raises:
        WireError: it is none.
    """
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise WireError(f"{what}: {value!r:.100} is no list of ids")
    return value

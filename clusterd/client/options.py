"""What is said about a task beside its call: retries, timeout, label, dependencies; checked where the user gives it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from clusterd.client import dependencies
from clusterd.client.aggregate import AggregateFuture
from clusterd.client.maps import MapFuture
from clusterd.client.task import TaskFuture
from clusterd.core.wire.messages import Dependency, TaskOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_RETRIES = 1_000_000


class Options(NamedTuple):
    """The options of a view; `message` is what travels."""

    retries: int = 0
    timeout: float | None = None
    label: str = ""
    after: Any = None
    follow: Any = None

    def message(self) -> TaskOptions | None:
        """None where everything has its default: most tasks have no options.

        Raises:
            TypeError, ValueError: one of them is no such thing.
        """
        if self == _DEFAULT:
            return None
        return TaskOptions(
            check_retries(self.retries),
            check_timeout(self.timeout),
            self.label,
            dependency(self.after),
            dependency(self.follow),
        )


_DEFAULT = Options()


def check_timeout(timeout: float | None) -> float | None:
    """A number of seconds above 0, or None.

    Raises:
        TypeError, ValueError: it is not.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"a timeout is a number of seconds or None, not {timeout!r}")
    if not timeout > 0 or math.isinf(timeout):
        raise ValueError(f"a timeout is a finite number of seconds above 0, not {timeout!r}")
    return float(timeout)


def check_retries(retries: int) -> int:
    """A number of further attempts.

    Raises:
        TypeError, ValueError: it is not.
    """
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise TypeError(f"retries is a number of further attempts, not {retries!r}")
    if not 0 <= retries <= MAX_RETRIES:
        raise ValueError(f"retries is a number from 0 to {MAX_RETRIES}, not {retries}")
    return retries


def dependency(tasks: Any) -> Dependency | None:
    """The wait for futures of this client: one, or several of them.

    Raises:
        TypeError: something else stands there.
    """
    if tasks is None or tasks == []:
        return None
    if isinstance(tasks, Dependency):
        return tasks
    return Dependency(dependencies.name(_futures(tasks)))


def _futures(tasks: Any) -> Iterator[TaskFuture]:
    if isinstance(tasks, TaskFuture):
        yield tasks
    elif isinstance(tasks, MapFuture):
        raise TypeError("a map cannot be waited for by the controller, its tasks are made as it goes; wait for it here")
    elif isinstance(tasks, AggregateFuture):
        yield from tasks.tasks
    elif isinstance(tasks, (list, tuple, set, frozenset)):
        for task in tasks:
            yield from _futures(task)
    else:
        raise TypeError(f"a dependency is a future of this client or a list of them, not {tasks!r}")

"""What is said about a task beside its call: retries, timeout, label, dependencies; checked where the user gives it."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from clusterd.client import dependencies
from clusterd.client.aggregate import AggregateFuture
from clusterd.client.maps import MapFuture
from clusterd.client.task import TaskFuture
from clusterd.core.wire import messages as m

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_RETRIES = 1_000_000
MAX_LABEL = 256
"""Characters; the controller keeps no more of it."""
_ID = re.compile("[0-9a-f]{32}")


class Dependency:
    """What a task waits for, for `after` and `follow`, where a plain future or list of them does not say enough.

    Args:
        tasks: futures of calls, lists of them, or ids (`future.task_id`) of tasks that the controller still knows.
        all: wait for all of them; False: for the first that ends as asked.
        success: one that ended well counts.
        failure: one that failed, or was aborted, counts. With both any end does.

    Raises:
        TypeError: something else stands there.
        ValueError: neither success nor failure counts.
    """

    def __init__(self, tasks: Any, *, all: bool = True, success: bool = True, failure: bool = False) -> None:  # noqa: A002 - ipyparallel's word
        if not (success or failure):
            raise ValueError("a dependency for which neither success nor failure counts is never met")
        # The futures themselves: a controller that is new is told what has become of them.
        self.tasks = list(_tasks(tasks))
        self.all = bool(all)
        self.success = bool(success)
        self.failure = bool(failure)

    def message(self) -> m.Dependency | None:
        """What travels; None where there is nothing to wait for."""
        ids = ids_of(self.tasks)
        return m.Dependency(ids, self.all, self.success, self.failure) if ids else None

    def __repr__(self) -> str:
        counts = " or ".join(word for word, is_so in (("success", self.success), ("failure", self.failure)) if is_so)
        return f"<Dependency on {'all' if self.all else 'any'} of {len(self.tasks)} tasks: {counts}>"


class Options(NamedTuple):
    """The options of a view; `message` is what travels."""

    retries: int = 0
    timeout: float | None = None
    label: str = ""
    after: Any = None
    follow: Any = None
    max_wait: float | None = None

    def message(self) -> m.TaskOptions | None:
        """None where everything has its default: most tasks have no options.

        Raises:
            TypeError, ValueError: one of them is no such thing.
        """
        if self == _DEFAULT:
            return None
        return m.TaskOptions(
            check_retries(self.retries),
            check_timeout(self.timeout),
            check_label(self.label),
            dependency(self.after),
            dependency(self.follow),
            check_timeout(self.max_wait, "max_wait"),
        )


_DEFAULT = Options()


def check_timeout(timeout: float | None, what: str = "a timeout") -> float | None:
    """A number of seconds above 0, or None.

    Raises:
        TypeError, ValueError: it is not.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"{what} is a number of seconds or None, not {timeout!r}")
    if not timeout > 0 or math.isinf(timeout):
        raise ValueError(f"{what} is a finite number of seconds above 0, not {timeout!r}")
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


def check_label(label: str | None) -> str:
    """Text that can travel; None is none.

    Raises:
        TypeError, ValueError: it is none, is too long, or holds half a character.
    """
    if label is None:
        return ""
    if not isinstance(label, str):
        raise TypeError(f"a label is text, not {type(label).__name__}: {label!r}")
    if len(label) > MAX_LABEL:
        raise ValueError(f"a label has at most {MAX_LABEL} characters, not {len(label)}")
    if not label.isascii():
        # Raises UnicodeEncodeError, a ValueError that names the place, for half of a surrogate pair.
        label.encode()
    return label


def dependency(tasks: Any) -> m.Dependency | None:
    """The wait for futures of this client: one, or several of them, or a `Dependency`.

    Raises:
        TypeError: something else stands there.
    """
    if tasks is None:
        return None
    return (tasks if isinstance(tasks, Dependency) else Dependency(tasks)).message()


def ids_of(tasks: Iterable[TaskFuture | bytes]) -> list[bytes]:
    """The ids of tasks; those that are futures can be asked for their ends from now on."""
    ids: list[bytes] = []
    for task in tasks:
        ids += [task] if isinstance(task, bytes) else dependencies.name([task])
    return ids


def _tasks(tasks: Any) -> Iterator[TaskFuture | bytes]:
    if isinstance(tasks, TaskFuture):
        yield tasks
    elif isinstance(tasks, MapFuture):
        raise TypeError("a map cannot be waited for by the controller, its tasks are made as it goes; wait for it here")
    elif isinstance(tasks, AggregateFuture):
        yield from tasks.tasks
    elif isinstance(tasks, str) and _ID.fullmatch(tasks):
        yield bytes.fromhex(tasks)
    elif isinstance(tasks, Dependency):
        raise TypeError(
            "one Dependency for each of `after` and `follow`: it says itself whether all or any of its tasks"
        )
    elif isinstance(tasks, (list, tuple, set, frozenset)):
        for task in tasks:
            yield from _tasks(task)
    else:
        raise TypeError(f"a dependency is a future of this client or a list of them, not {tasks!r}")

"""The future of one call on several engines: a list of values in the order of the engines, or what went wrong.

One failure is raised as it is; several become a CompositeError, which names each engine.
"""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from clusterd.client.future import CANCELLED, FINISHED, PENDING, LightFuture
from clusterd.errors import CompositeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from clusterd.client.task import TaskFuture, TaskOwner

# Of more failures only the number is told in the text; all are in `errors`.
SHOWN_ERRORS = 8


class AggregateFuture(LightFuture):
    """The futures of one call, one for each engine.

    Attributes:
        tasks: those futures, in the order of the engines.
        targets: wire ids of the engines.
    """

    _owner: TaskOwner

    def __init__(
        self, owner: TaskOwner, targets: Sequence[int], convert: Callable[[list[Any]], Any] | None = None
    ) -> None:
        super().__init__(owner)
        self.targets = list(targets)
        self.tasks: list[TaskFuture] = []
        self._convert = convert
        # Parts that have not ended; one more until `_complete`, so that the end cannot come before all have begun.
        self._left = len(self.targets) + 1

    def _add(self, task: TaskFuture) -> None:
        self.tasks.append(task)

    def _complete(self) -> None:
        """All parts are submitted."""
        self._count_down()

    def child_ended(self, _child: TaskFuture) -> None:
        """One part has ended."""
        self._count_down()

    def _count_down(self) -> None:
        with self._owner.lock:
            self._left -= 1
            is_last = self._left == 0
        if is_last:
            self._is_error = any(task._is_error for task in self.tasks)  # noqa: SLF001 - of one family
            self._end(CANCELLED if all(task.cancelled() for task in self.tasks) else FINISHED)

    def cancel(self) -> bool:
        """Cancel the parts that have not begun; True when that is all of them."""
        if self._state == PENDING:
            self._owner.end_early([task for task in self.tasks if not task.done()], is_cancelling=True)
        return all(task.cancelled() for task in self.tasks)

    def abort(self) -> bool:
        """As `cancel`, but `result` raises TaskAborted; True when that is so for all of them."""
        waiting = [task for task in self.tasks if not task.done()]
        return bool(waiting) and self._owner.end_early(waiting, is_cancelling=False) == len(self.tasks)

    @property
    def stdout(self) -> list[str]:
        """What each engine printed."""
        return [task.stdout for task in self.tasks]

    @property
    def stderr(self) -> list[str]:
        """What each engine wrote to stderr."""
        return [task.stderr for task in self.tasks]

    @property
    def progress(self) -> int:
        """How many parts have ended."""
        return sum(task.done() for task in self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Any]:
        for task in self.tasks:
            yield task.result()

    def _load(self) -> tuple[Any, BaseException | None]:
        values: list[Any] = []
        errors: list[tuple[int, BaseException]] = []
        for target, task in zip(self.targets, self.tasks, strict=True):
            try:
                error = task.exception()
            except CancelledError as cancelled:
                error = cancelled
            if error is None:
                values.append(task.result())
            else:
                errors.append((target, error))
        if errors:
            return None, errors[0][1] if len(errors) == 1 else composite(errors, len(self.tasks))
        return (values if self._convert is None else self._convert(values)), None

    def _describe(self) -> str:
        return f"call on {len(self.targets)} engines"


def composite(errors: list[tuple[int, BaseException]], total: int) -> CompositeError:
    """One error for several."""
    lines = [f"{len(errors)} of {total} engines failed:"]
    lines += [f"  engine {engine}: {type(error).__name__}: {error}" for engine, error in errors[:SHOWN_ERRORS]]
    if len(errors) > SHOWN_ERRORS:
        lines.append(f"  and {len(errors) - SHOWN_ERRORS} more")
    failure = CompositeError("\n".join(lines), errors, hint="Each one, with its traceback, is in `error.errors`.")
    # The first traceback is shown whole: it is mostly the same on all of them.
    failure.__cause__ = errors[0][1]
    return failure

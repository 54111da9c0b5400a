"""What a task waits for, told anew to a controller that has not seen the tasks it waits for.

A new controller knows what it is offered again, which is what has no result. What has ended before is known to this client alone:
so it says no more than what is still to be waited for. What can never be met is left as it is: the controller refuses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from msgspec.structs import replace

from clusterd.client.future import PENDING
from clusterd.core.wire.messages import Dependency

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clusterd.client.task import TaskFuture
    from clusterd.core.wire.messages import Submit, TaskOptions

# By task id: all and only futures that somebody has named as a dependency, and still holds.
_named: WeakValueDictionary[bytes, TaskFuture] = WeakValueDictionary()


def name(futures: Iterable[TaskFuture]) -> list[bytes]:
    """The ids of tasks that another one is to wait for; their outcomes can be asked for from now on."""
    ids = []
    for future in futures:
        ids.append(future._id)  # noqa: SLF001 - of one family
        _named[future._id] = future  # noqa: SLF001
    return ids


def waited_for(options: TaskOptions | None) -> Sequence[TaskFuture]:
    """The futures that a task with these options waits for, to be held as long as it has no end."""
    if options is None or (options.after is None and options.follow is None):
        return ()
    tasks = [task for wait in (options.after, options.follow) if wait is not None for task in wait.tasks]
    return [future for task in tasks if (future := _named.get(task)) is not None]


def leave_out_unknown(submit: Submit, futures: Sequence[TaskFuture], *, is_new_controller: bool) -> None:
    """As `tell_anew`, where the controller may not know one of the futures: given up before it was sent, or ended with another one."""
    if is_new_controller or any(future._state != PENDING and not future._is_sent for future in futures):  # noqa: SLF001
        tell_anew(submit, futures)


def tell_anew(submit: Submit, futures: Sequence[TaskFuture]) -> None:
    """Take out of a submission what it need not wait for any more.

    Args:
        submit: what is offered again; it is changed.
        futures: what `waited_for` gave.
    """
    options = submit.options
    if not futures or options is None:
        return
    # Not `done`: that looks for news, and this is called while they are dealt with.
    ended = {future._id: future for future in futures if future._state != PENDING}  # noqa: SLF001
    after, follow = _rest(options.after, ended), options.follow
    if follow is not None:
        places = {ended[task].engine_id for task in follow.tasks if task in ended and _counts(follow, ended[task])} - {
            None
        }
        target = _within(submit.target, places)
        # Else it can run nowhere, as before: the controller says so.
        if target is not None and not (follow.is_all and len(places) > 1):
            submit.target = target
            follow = _rest(follow, ended)
    # A new one: those of several tasks that were submitted together are the same.
    submit.options = replace(options, after=after, follow=follow)


def _rest(wait: Dependency | None, ended: dict[bytes, TaskFuture]) -> Dependency | None:
    """What is left to wait for."""
    if wait is None:
        return None
    met = {task for task in wait.tasks if task in ended and _counts(wait, ended[task])}
    failed = {task for task in wait.tasks if task in ended} - met
    if wait.is_all:
        left = wait.tasks if failed else [task for task in wait.tasks if task not in met]
    else:
        left = [] if met else [task for task in wait.tasks if task not in failed] or wait.tasks
    return Dependency(left, wait.is_all, wait.on_success, wait.on_failure) if left else None


def _within(target: int | list[int] | None, places: set[int | None]) -> int | list[int] | None:
    """The engines of `target` that are among `places`; None where there are none."""
    given = places if target is None else {target} if isinstance(target, int) else set(target)
    found = sorted(place for place in given & places if place is not None)
    return found[0] if len(found) == 1 else found or None


def _counts(wait: Dependency, future: TaskFuture) -> bool:
    return wait.on_failure if future._is_error or future.cancelled() else wait.on_success  # noqa: SLF001

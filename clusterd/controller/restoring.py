"""Rows of the store turned back into what was said of them: outcomes for clients, and what tasks still have to wait for. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from clusterd.core.model.task import Reason
from clusterd.core.wire.messages import STATUS_OK, Deliver, Dependency, Failed, TaskOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from clusterd.storage.taskstore.row import Outcome, TaskRow

STATUS_ERROR = 1
Target = int | list[int] | None
_decode_display = msgspec.msgpack.Decoder(list[dict[str, Any]]).decode
# Reasons that are finer in records than on the wire.
_CODES = {"invalid_dependency": Reason.UNSCHEDULABLE.value}


def message_of(task: bytes, row: TaskRow, outcome: Outcome) -> tuple[Deliver | Failed, Sequence[Any]]:
    """What a client is told of a native task that has ended, and the payload that belongs to it."""
    if outcome.status not in {"ok", "error"}:
        code = _CODES.get(outcome.status, outcome.status)
        return Failed(task, row.attempt, code, outcome.message, "", row.engine_id), ()
    shown = row.output
    message = Deliver(
        task,
        row.attempt,
        row.engine_id,
        STATUS_OK if outcome.status == "ok" else STATUS_ERROR,
        outcome.completed if outcome.started is None else outcome.started,
        outcome.completed,
        "" if shown is None else "".join(shown.stdout),
        "" if shown is None else "".join(shown.stderr),
        outcome.body,
        len(outcome.buffers),
        _decode_display(outcome.display) if outcome.display else None,
    )
    return message, outcome.buffers


def rest_of(
    target: Target, options: TaskOptions | None, outcome_of: Callable[[bytes], TaskRow | None]
) -> tuple[Target, TaskOptions | None]:
    """(target, options) of a task without what it need not wait for any more.

    What can never be met is left as it is: the scheduler, which does not know the task that is named, refuses it.
    """
    if options is None or (options.after is None and options.follow is None):
        return target, options
    ended = {task: row for task in {*named_by(options)} if (row := outcome_of(task)) is not None}
    after, follow = _rest(options.after, ended), options.follow
    if follow is not None:
        places = {ended[task].engine_id for task in follow.tasks if task in ended and _counts(follow, ended[task])}
        within = _within(target, places)
        if within is not None and not (follow.is_all and len(places) > 1):
            target, follow = within, _rest(follow, ended)
    return target, msgspec.structs.replace(options, after=after, follow=follow)


def named_by(options: TaskOptions | None) -> Collection[bytes]:
    """The tasks that a task with these options depends on."""
    if options is None:
        return ()
    return [task for wait in (options.after, options.follow) if wait is not None for task in wait.tasks]


def _rest(wait: Dependency | None, ended: dict[bytes, TaskRow]) -> Dependency | None:
    if wait is None:
        return None
    met = {task for task in wait.tasks if task in ended and _counts(wait, ended[task])}
    failed = ended.keys() & set(wait.tasks) - met
    if wait.is_all:
        left = wait.tasks if failed else [task for task in wait.tasks if task not in met]
    else:
        left = [] if met else [task for task in wait.tasks if task not in failed] or wait.tasks
    return msgspec.structs.replace(wait, tasks=left) if left else None


def _within(target: Target, places: Collection[int]) -> Target:
    """The engines of `target` that are among `places`; None where there are none."""
    given = set(places) if target is None else {target} if isinstance(target, int) else set(target)
    found = sorted(place for place in given & set(places) if place >= 0)
    return found[0] if len(found) == 1 else found or None


def _counts(wait: Dependency, row: TaskRow) -> bool:
    is_ok = row.outcome is not None and row.outcome.status == "ok"
    return wait.on_success if is_ok else wait.on_failure

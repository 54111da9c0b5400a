"""`clusterctl tasks [list | show ID | purge | export]`: what ran, where, for how long, with which outcome."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar
from urllib.parse import quote

import click

from clusterctl.moments import AGO
from clusterctl.options import as_json
from clusterctl.output.answer import print_answer
from clusterctl.output.tasks import task_lines, task_table
from clusterd.errors import ControlError, DaemonNotRunning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterctl.target import Target

__all__ = ["tasks"]

_F = TypeVar("_F", bound="Callable[..., Any]")
PAGE = 500
"""Tasks of one answer, where all are asked for."""
STATES = ("waiting", "running", "unfinished", "ok", "error", "aborted")
ENDED = ("ok", "error", "aborted")


def _filters(states: tuple[str, ...]) -> Callable[[_F], _F]:
    """Add the options that say which tasks are meant; all of those that are given must hold."""

    def decorate(function: _F) -> _F:
        for option in (
            click.option("--client", metavar="ID", help="Of this client: its id, or the beginning of it."),
            click.option("--engine", metavar="ENGINE", help="On engines/3, SET (any of its engines), 3, or id:7."),
            click.option("--name", metavar="PATTERN", help="With this name of the function; * stands for anything."),
            click.option("--label", metavar="PATTERN", help="With this label; * stands for anything."),
            click.option("--state", type=click.Choice(states), help="In this state."),
        ):
            function = option(function)
        return function

    return decorate


def _submitted(function: _F) -> _F:
    """Add --since and --older-than."""
    older = click.option("--older-than", "before", type=AGO, metavar="AGO", help="Submitted longer ago.")
    return click.option("--since", type=AGO, metavar="AGO", help="Submitted since then: 90s, 15m, 12h, 7d, or a date.")(
        older(function)
    )


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def tasks(context: click.Context, *, is_json: bool) -> None:
    """Show what ran, where, for how long, and with which outcome.

    What is remembered, and for how long, is `controller.database` of the profile. With sqlite it can be asked for when the
    cluster was stopped, too.
    """
    if context.invoked_subcommand is None:
        _list(context.obj, {}, 20, is_json=is_json)


@tasks.command("list")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="At most so many."
)
@click.option("--all", "is_all", is_flag=True, help="All of them, however many there are.")
@_filters(STATES)
@_submitted
@as_json
@click.pass_obj
def list_(target: Target, /, *, limit: int, is_all: bool, is_json: bool, **filters: Any) -> None:
    """List tasks, the newest first.

    Times waited and run are those of the engine's clock; of a task that has not ended they go on. The state `unfinished` is that
    of a task whose controller ended before it did.
    """
    _list(target, filters, None if is_all else limit, is_json=is_json)


def _list(target: Target, filters: dict[str, Any], limit: int | None, *, is_json: bool) -> None:
    found: list[dict[str, Any]] = []
    source, has_more = "", False
    for answer in _pages(target, filters, limit):
        found += answer["tasks"]
        source, has_more = answer["source"], answer["next"] is not None
    lines = [] if is_json else task_table(found) if found else ["no tasks"]
    if has_more and not is_json and limit is not None and len(found) >= limit:
        lines.append("there are older ones: -n, --all")
    if source == "file" and not is_json:
        lines.append("there is no controller to ask: this is what its file says")
    print_answer({"tasks": found, "has_more": has_more, "source": source}, lines, is_json=is_json)


def _pages(target: Target, filters: dict[str, Any], limit: int | None, **options: Any) -> Iterator[dict[str, Any]]:
    """Yield answers until there are `limit` tasks, or all."""
    given = {name: value for name, value in {**filters, **options}.items() if value is not None}
    ask: Callable[..., dict[str, Any]] = partial(target.client(timeout=30.0).get, f"{target.path}/tasks")
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        asked = PAGE if left is None else min(left, PAGE)
        try:
            answer = ask(limit=asked, cursor=cursor, **given)
        except DaemonNotRunning as error:
            if cursor is not None:
                raise  # it ended on the way: its file may not be what it has told of
            from clusterctl import archived  # noqa: PLC0415 - 30 ms, where there is nobody to ask

            ask = partial(archived.page, _file(target, error))
            answer = ask(limit=asked, cursor=cursor, **given)
        yield answer
        cursor = answer["next"]
        if cursor is None:
            return
        left = None if left is None else left - len(answer["tasks"])


def _file(target: Target, error: DaemonNotRunning) -> Path:
    """Return the file to read without a daemon; raise `error` where there is none."""
    from clusterctl import archived  # noqa: PLC0415 - as above

    file = archived.file_of(target.name)
    if file is None:
        raise error
    return file


@tasks.command()
@click.argument("task", metavar="ID")
@as_json
@click.pass_obj
def show(target: Target, *, task: str, is_json: bool) -> None:
    """Show everything about one task: times, place, outcome, traceback and output; why it waits, if it does.

    ID is an id, the beginning of one, or the short form that `tasks list` shows.
    """
    try:
        answer = target.client(timeout=30.0).get(f"{target.path}/tasks/{quote(task, safe='')}")
    except DaemonNotRunning as error:
        from clusterctl import archived  # noqa: PLC0415 - as above

        answer = archived.show(_file(target, error), task)
    print_answer(answer, [] if is_json else task_lines(answer["task"]), is_json=is_json)


@tasks.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--older-than", "ended_before", type=AGO, metavar="AGO", help="Ended longer ago: 90s, 15m, 12h, 7d, or a date."
)
@_filters(ENDED)
@as_json
@click.pass_obj
def purge(target: Target, /, *, ids: tuple[str, ...], is_json: bool, **filters: Any) -> None:
    """Forget the records of tasks that have ended: those named, or all that the options say.

    What has not ended stays. A result that its client has not fetched yet is forgotten with its record.
    """
    given = {name: value for name, value in filters.items() if value is not None}
    if not ids and not given:
        raise click.UsageError(
            "it is not said which tasks: name some, or give --older-than, --state, ... (`--older-than 0s`: all)"
        )
    if ids and given:
        raise click.UsageError("name tasks, or say which by options; not both")
    body: dict[str, Any] = {"tasks": list(ids)} if ids else given
    client = target.client(timeout=30.0)
    purged = 0
    cursor: str | None = None
    while True:
        answer = client.post(f"{target.path}/tasks/purge", body if cursor is None else {**body, "cursor": cursor})
        purged += answer["purged"]
        cursor = answer["next"]
        if cursor is None:
            break
    print_answer({"purged": purged}, [f"{purged} {'record' if purged == 1 else 'records'} purged"], is_json=is_json)


@tasks.command()
@click.option("--jsonl", is_flag=True, help="One JSON object a line: the default, and the only form.")
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE (mode 0600).",
)
@_filters(STATES)
@_submitted
@as_json
@click.pass_obj
def export(target: Target, /, *, jsonl: bool, file: Path | None, is_json: bool, **filters: Any) -> None:
    """Write tasks as JSON, one a line, the oldest first, with their output and traceback.

    Times are ISO 8601 in UTC. Arguments and results are left out; `bytes` is what they take. FILE is there when it is complete.
    """
    del jsonl
    if file is None:
        _write(target, filters, sys.stdout)
        return
    count = _write_file(target, filters, file)
    print_answer({"exported": count, "file": str(file)}, [f"{count} tasks in {file}"], is_json=is_json)


def _write(target: Target, filters: dict[str, Any], stream: TextIO) -> int:
    count = 0
    for answer in _pages(target, filters, None, full=True, oldest_first=True):
        stream.writelines(json.dumps(task) + "\n" for task in answer["tasks"])
        count += len(answer["tasks"])
    return count


def _write_file(target: Target, filters: dict[str, Any], file: Path) -> int:
    # Beside it, so that the rename is within one file system; who reads FILE finds the old one, or a whole new one.
    temporary = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                count = _write(target, filters, stream)
                stream.flush()
                os.fsync(descriptor)
            temporary.replace(file)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise ControlError(f"{file} cannot be written: {error.strerror}", code="refused") from error
    return count

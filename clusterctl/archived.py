"""What ran, read from the file of a cluster whose daemon has ended too: in the shape in which the daemon would answer.

The only part of clusterctl that loads the stores, and only when there is nobody to ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clusterd.storage.taskstore.archive import read_page, read_task
from clusterd.storage.taskstore.opening import file_name
from clusterd.storage.taskstore.selection import Selection, cursor_of, span_of
from clusterd.system import paths

if TYPE_CHECKING:
    from pathlib import Path

    from clusterd.storage.taskstore.pages import Span

__all__ = ["file_of", "page", "show"]


def file_of(name: str) -> Path | None:
    """Return the SQLite file of profile `name` on this host; None where there is none that we may see."""
    file = paths.state_dir(name) / "db" / file_name("")
    try:
        return file if file.is_file() else None
    except OSError:
        return None


def page(
    file: Path, *, limit: int, cursor: str | None, full: bool = False, oldest_first: bool = False, **filters: Any
) -> dict[str, Any]:
    """Return what GET tasks would.

    Raises:
        BadQuery: the filters make no sense.
        StorageError: the file cannot be read.
    """
    selection = Selection(**filters)
    query = selection.query()
    tasks: list[dict[str, Any]] = []
    rest: Span | None = span_of(cursor)
    while rest is not None and len(tasks) < limit:
        left = limit - len(tasks)
        found, rest = read_page(file, query, rest, left, is_newest_first=not oldest_first, is_full=full)
        tasks += filter(selection.takes, found)
    return {"tasks": tasks, "next": cursor_of(rest), "source": "file"}


def show(file: Path, name: str) -> dict[str, Any]:
    """Return what GET tasks/ID would; raises as `page` does, and UnknownTask."""
    return {"task": read_task(file, name), "source": "file"}

"""A bar for each engine set while a command waits: on a terminal only, so that logs and pipes stay clean."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import TaskID

__all__ = ["progress"]


@contextmanager
def progress(*, is_quiet: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that shows a status; it does nothing off a terminal or with `is_quiet`."""
    if is_quiet or not sys.stderr.isatty():
        yield lambda _status: None
        return
    # 40 ms, paid only where somebody looks.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
    )
    tasks: dict[str, TaskID] = {}

    def show(status: dict[str, Any]) -> None:
        for name, entry in status["engine_sets"].items():
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=None, note="")
            note = entry.get("reason") or status["controller"].get("reason") or ""
            # Going down the bar empties: its full length is what there was.
            total = max(entry["desired"], entry["observed"], 1)
            bars.update(tasks[name], total=total, completed=entry["observed"], note=note)

    with bars:
        yield show

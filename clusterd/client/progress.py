"""One line that says how far something is: on stderr where that is a terminal, in a notebook below its cell; silent in batch jobs."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

WIDTH = 30
# People do not read faster, and a slow terminal must not slow the work down.
INTERVAL = 0.1
_numbers = itertools.count()


class Progress:
    """A progress bar for a `with` block.

    Args:
        what: its title.
        total: the number at which it is full; None shows a count alone.
        unit: what is counted.
    """

    def __init__(self, what: str, total: int | None, unit: str = "items") -> None:
        self._what = what
        self._total = total
        self._unit = unit
        self._shown_at = 0.0
        self._width = 0
        stream = sys.stderr
        # What shows it in a notebook.
        self._publish = _notebook()
        self._is_on = self._publish is not None or (stream is not None and stream.isatty())
        self._is_shown = False
        # Its id there; an id that was used before would change an older cell.
        self._place = f"clusterd-progress-{os.getpid()}-{next(_numbers)}"

    def show(self, count: int) -> None:
        """Show this many."""
        now = time.monotonic()
        if not self._is_on or (now - self._shown_at < INTERVAL and count != self._total):
            return
        if self._publish is not None and not self._is_shown and self._total is not None and count >= self._total:
            return  # it took no time: a full bar would be all that is left of it, for ever
        self._shown_at = now
        line = f"{self._what}: {count} {self._unit}"
        if self._total:
            full = min(WIDTH, WIDTH * count // self._total)
            line = f"{self._what}: [{'#' * full}{'.' * (WIDTH - full)}] {count} of {self._total} {self._unit}"
        if self._publish is None:
            self._write(f"\r{line.ljust(self._width)}")
            self._width = len(line)
        else:
            # The first makes the place below the cell, the others replace what stands there.
            self._publish(data={"text/plain": line}, transient={"display_id": self._place}, update=self._is_shown)
        self._is_shown = True

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._width:
            self._write("\n")


def _notebook() -> Callable[..., None] | None:
    """What displays in the notebook that this process is the kernel of; None where it is none."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    publish: Callable[..., None] = shell.display_pub.publish
    return publish

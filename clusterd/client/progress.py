"""One line on stderr that says how far something is; silent where stderr is no terminal, as in batch jobs and notebooks' logs."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

WIDTH = 30
# People do not read faster, and a slow terminal must not slow the work down.
INTERVAL = 0.1


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
        self._is_on = stream is not None and stream.isatty()

    def show(self, count: int) -> None:
        """Show this many."""
        now = time.monotonic()
        if not self._is_on or (now - self._shown_at < INTERVAL and count != self._total):
            return
        self._shown_at = now
        line = f"{self._what}: {count} {self._unit}"
        if self._total:
            full = min(WIDTH, WIDTH * count // self._total)
            line = f"{self._what}: [{'#' * full}{'.' * (WIDTH - full)}] {count} of {self._total} {self._unit}"
        self._write(f"\r{line.ljust(self._width)}")
        self._width = len(line)

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

"""When a line of a log was written, where it says so: our own processes stamp theirs, as text or as JSON; users' output has no time."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["later_lines", "time_of"]

# As `system.log_lines` writes them.
_TEXT: Final = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{3}) ")
_JSON: Final = re.compile(rb'\{"time": (\d+(?:\.\d+)?),')


def time_of(line: bytes) -> float | None:
    """Return the wall time of a line, None where it has none."""
    if found := _TEXT.match(line):
        try:
            return time.mktime(time.strptime(found[1].decode(), "%Y-%m-%dT%H:%M:%S")) + int(found[2]) / 1000
        except (ValueError, OverflowError):
            return None
    found = _JSON.match(line)
    return None if found is None else float(found[1])


def later_lines(lines: Sequence[bytes], after: float) -> list[bytes]:
    """Return the lines since a moment; what has no time belongs to the line before it, and is all kept where nothing has one."""
    begin = len(lines)
    for index in range(len(lines) - 1, -1, -1):
        moment = time_of(lines[index])
        if moment is None:
            continue
        if moment <= after:
            return list(lines[begin:])
        begin = index
    return list(lines)

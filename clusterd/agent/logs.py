"""The engines' output files: the last lines of one, and rotation.

An engine holds its file itself (O_APPEND); here it is only renamed, and the engine moves on to a new one by itself when it
next writes: no line is lost. A file whose engine has not moved on yet has no name to be renamed from, so none is
overwritten while it is written to.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024
TAIL_LINES = 20
_TAIL_BYTES = 8192
# How faulthandler begins: what follows are the frames of the crash, innermost first; the rest of them says little.
_CRASH = "Fatal Python error"
_CRASH_LINES = 12


def tail(path: Path, begin: int = 0) -> str:
    """The last lines that stand in a log behind offset `begin`, where the present engine's began."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            # A file shorter than that was rotated since: all of it is later.
            first = max(begin if begin <= end else 0, end - _TAIL_BYTES)
            file.seek(first)
            data = file.read(_TAIL_BYTES)
    except OSError:
        return ""
    lines = data.decode(errors="replace").splitlines()
    if first > begin and len(lines) > 1:
        del lines[0]  # the rest of a line that began before the piece
    crash = next((index for index, line in enumerate(lines) if line.startswith(_CRASH)), None)
    if crash is not None:
        return "\n".join(line for line in lines[crash : crash + _CRASH_LINES] if line)
    return "\n".join(lines[-TAIL_LINES:])


def size(path: Path) -> int:
    """Bytes in a log; 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def rotate(paths: Iterable[Path], max_bytes: int = MAX_BYTES) -> list[Path]:
    """Rename what is longer than `max_bytes` to NAME.1, in place of an older one; the files renamed."""
    rotated = []
    for path in paths:
        if size(path) > max_bytes:
            try:
                path.replace(path.with_name(f"{path.name}.1"))
            except OSError:
                continue  # tried again at the next look; a full or read-only disk is not ours to repair
            rotated.append(path)
    return rotated

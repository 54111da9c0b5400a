"""Text of tracebacks: source lines of code whose file is not here, and which frames are shown.

Cells and a client's functions have no file on this host; their text is put into `linecache`, where `traceback` finds it. The
frames of this engine and of IPython's runner that lie above the user's code say nothing to a user and are left out.
"""

from __future__ import annotations

import linecache
import os
from collections import OrderedDict
from pathlib import Path
from traceback import TracebackException
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

MAX_SOURCES = 1000
MAX_TEXT = 64 * 1024
_OURS = str(Path(__file__).parents[1]) + os.sep
# Names registered here, oldest first; a cell or a file of which many functions came counts once.
_registered: OrderedDict[str, None] = OrderedDict()


def register_source(name: str, first_line: int, text: str) -> None:
    """Make the lines of `text` those of file `name` from `first_line` on; other known lines of that name stay."""
    lines = [line + "\n" for line in text.splitlines()]
    entry = linecache.cache.get(name)
    known: list[str] = list(entry[2]) if entry is not None and len(entry) == 4 else []
    # Lines that nobody sent are empty; traceback shows nothing for them.
    known += ["\n"] * (first_line - 1 + len(lines) - len(known))
    known[first_line - 1 : first_line - 1 + len(lines)] = lines
    # With None for the modification time linecache.checkcache never drops the entry.
    linecache.cache[name] = (sum(map(len, known)), None, known, name)
    keep(name)


def register_sources(sources: dict[str, tuple[int, str]]) -> None:
    """Register what came with a function, where the file itself is not here."""
    for name, (first_line, text) in sources.items():
        if name.startswith("<") or name in _registered or not Path(name).exists():
            register_source(name, first_line, text)


def keep(name: str) -> None:
    """Note that linecache holds `name` for us, and drop the oldest beyond the bound."""
    _registered[name] = None
    _registered.move_to_end(name)
    if len(_registered) > MAX_SOURCES:
        oldest, _ = _registered.popitem(last=False)
        linecache.cache.pop(oldest, None)


def format_traceback(error: BaseException, where: str) -> str:
    """The traceback of an error in user code, headed by `where`; at most about MAX_TEXT characters."""
    try:
        # compact: only the causes that will be shown are looked at.
        exception = TracebackException(type(error), error, error.__traceback__, compact=True)
        del exception.stack[: _leading(error.__traceback__)]
        text = "".join(exception.format())
    except Exception as problem:  # noqa: BLE001 - __str__, __repr__ and line caches of user code
        text = f"{type(error).__qualname__} (its traceback cannot be shown: {type(problem).__name__}: {problem})\n"
    if len(text) > MAX_TEXT:
        half = MAX_TEXT // 2
        text = f"{text[:half]}\n... {len(text) - MAX_TEXT} characters dropped ...\n{text[-half:]}"
    return f"On {where}:\n{text}"


def without_ours(traceback: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that begins with the user's first frame; None where there is none."""
    for _ in range(_leading(traceback)):
        traceback = traceback.tb_next if traceback is not None else None
    return traceback


def _leading(traceback: TracebackType | None) -> int:
    """How many of the outermost frames are not the user's."""
    count = 0
    while traceback is not None:
        name = traceback.tb_frame.f_code.co_filename
        if not (name.startswith(_OURS) or _is_runner(name)):
            return count
        count += 1
        traceback = traceback.tb_next
    # An error with no frame of the user's at all (a pickle that fails) has nothing to show but itself.
    return count


def _is_runner(name: str) -> bool:
    parts = name.replace(os.sep, "/")
    return parts.endswith(("IPython/core/interactiveshell.py", "IPython/core/async_helpers.py"))

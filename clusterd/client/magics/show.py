"""What engines printed, displayed and raised, shown in the user's notebook or terminal; each piece says whose it is.

Equal errors of several engines are shown once: a mistake in a cell is mostly the same mistake everywhere.
"""

from __future__ import annotations

import re
import sys
from concurrent.futures import CancelledError
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from clusterd.client.aggregate import composite
from clusterd.client.engines import id_text
from clusterd.core.wire.payload import RemoteTraceback
from clusterd.errors import CompositeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterd.client.aggregate import AggregateFuture

# Different errors that are shown with their tracebacks; of more only the number.
SHOWN_ERRORS: Final = 4
# The first line of a traceback names the engine.
_WHERE: Final = re.compile(r"\AOn engine [^\n]*:\n")
# The name of a cell has its number on that engine, which may have run more than others.
_CELL: Final = re.compile(r"<ipython-input-\d+-[0-9a-f]+>")


class CellFailed(CompositeError):
    """A cell failed on one engine or on several; the output of all has been shown before.

    Attributes:
        errors: (engine wire id, exception) of each failure, in the order of the engines.
        total: how many engines the cell ran on.
    """

    total = 0

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of the frames of this process, which say nothing."""
        groups: dict[str, list[int]] = {}
        for engine, error in self.errors:
            groups.setdefault(_told(error), []).append(engine)
        lines = [f"The cell failed on {len(self.errors)} of {self.total} engines."]
        for text, engines in list(groups.items())[:SHOWN_ERRORS]:
            lines += ["", f"[{id_text(engines)}]", *text.splitlines()]
        left = len(groups) - SHOWN_ERRORS
        if left > 0:
            lines += ["", f"{left} other errors are in `error.errors`."]
        return lines


class _Piece(NamedTuple):
    """One thing to show."""

    engine: int
    kind: str
    content: Any


def show(shell: Any, future: AggregateFuture, group: str) -> None:
    """Show all output of a cell that has ended.

    Args:
        shell: the user's IPython.
        future: of the cell.
        group: one of `arguments.GROUPS`.

    Raises:
        CellFailed: it failed somewhere.
    """
    for piece in _in_order(future, group):
        _show_piece(shell, piece)
    errors = list(_errors(future))
    if errors:
        plain = composite(errors, len(future.tasks))
        failed = CellFailed(plain.message, errors, hint=plain.hint)
        failed.total = len(future.tasks)
        raise failed from errors[0][1]


def _pieces(engine: int, task: Any) -> list[_Piece]:
    pieces = [_Piece(engine, name, getattr(task, name)) for name in ("stdout", "stderr") if getattr(task, name)]
    return pieces + [_Piece(engine, entry.get("kind", "display_data"), entry) for entry in task.display]


def _in_order(future: AggregateFuture, group: str) -> Iterator[_Piece]:
    by_engine = [_pieces(engine, task) for engine, task in zip(future.targets, future.tasks, strict=True)]
    if group == "order":
        for row in zip_longest(*by_engine):
            yield from (piece for piece in row if piece is not None)
        return
    flat = [piece for pieces in by_engine for piece in pieces]
    if group == "type":
        # Values last, as a cell's value is its last output.
        rank = {"stdout": 0, "stderr": 1, "execute_result": 3}
        flat.sort(key=lambda piece: rank.get(piece.kind, 2))
    yield from flat


def _show_piece(shell: Any, piece: _Piece) -> None:
    if piece.kind in ("stdout", "stderr"):
        _write(getattr(sys, piece.kind), f"[{piece.kind}:{piece.engine}]", piece.content)
        return
    head = f"Out[{piece.engine}]:" if piece.kind == "execute_result" else f"[output:{piece.engine}]"
    data = piece.content.get("data", {})
    text = str(data.get("text/plain", ""))
    if set(data) <= {"text/plain"}:
        _write(sys.stdout, head, text)
    else:
        _write(sys.stdout, head, "")
        sys.stdout.flush()
        shell.display_pub.publish(data=data, metadata=piece.content.get("metadata") or {})


def _write(stream: Any, head: str, text: str) -> None:
    text = text.rstrip("\n")
    separator = "\n" if "\n" in text else " " if text else ""
    stream.write(f"{head}{separator}{text}\n")


def _errors(future: AggregateFuture) -> Iterator[tuple[int, BaseException]]:
    for engine, task in zip(future.targets, future.tasks, strict=True):
        try:
            error = task.exception()
        except CancelledError:
            error = CancelledError("given up before it began")
        if error is not None:
            yield engine, error


def _told(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, RemoteTraceback):
        return _CELL.sub("<cell>", _WHERE.sub("", cause.text)).rstrip()
    return f"{type(error).__name__}: {error}"

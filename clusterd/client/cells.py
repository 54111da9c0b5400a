"""What running a cell on one engine gave: its last value as text, what it printed, what it displayed; shown as IPython shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clusterd.client.task import TaskFuture


class CellResult:
    """The outcome of a cell that raised nothing.

    Attributes:
        engine_id: where it ran.
        text: text of the value of its last expression, None where it has none.
        stdout, stderr: what it printed.
        display: rich output; dicts with `kind`, `data` (by MIME type) and `metadata`.
    """

    def __init__(self, future: TaskFuture, text: str | None) -> None:
        self.engine_id = future.engine_id
        self.text = text
        self.stdout = future.stdout
        self.stderr = future.stderr
        self.display = future.display

    def get(self) -> str | None:
        """`text`."""
        return self.text

    def __repr__(self) -> str:
        parts = []
        if self.stdout:
            parts.append(f"[stdout:{self.engine_id}] {self.stdout.rstrip()}")
        if self.stderr:
            parts.append(f"[stderr:{self.engine_id}] {self.stderr.rstrip()}")
        parts += [
            f"[display:{self.engine_id}] {entry.get('data', {}).get('text/plain', '')}"
            for entry in self.display
            if entry.get("kind") != "execute_result"
        ]
        if self.text is not None:
            separator = "\n" if "\n" in self.text else " "
            parts.append(f"Out[{self.engine_id}]:{separator}{self.text}")
        return "\n".join(parts) or f"<cell on engine {self.engine_id}: no output>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002 - IPython's signature
        """The value's own rich form in a notebook, where it is all that the cell gave."""
        bundle: dict[str, Any] = {"text/plain": repr(self)}
        if len(self.display) == 1 and not self.stdout and not self.stderr:
            bundle = {**self.display[0].get("data", {}), **bundle}
        return bundle

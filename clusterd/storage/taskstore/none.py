"""`database: none`: nothing is kept, and whoever asks is told so."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NoReturn

from clusterd.errors import NoRecords
from clusterd.storage.taskstore.base import Size, TaskStore
from clusterd.storage.taskstore.pages import LOOK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.storage.taskstore.pages import Page, Span
    from clusterd.storage.taskstore.query import Query
    from clusterd.storage.taskstore.row import TaskRow


class NoStore(TaskStore):
    """Keeps nothing."""

    kind: ClassVar[str] = "none"
    keeps_nothing: ClassVar[bool] = True

    def put(self, row: TaskRow) -> None:
        """See `TaskStore`."""

    def update(self, row: TaskRow) -> None:
        """See `TaskStore`."""

    def get(self, msg_id: str, *, buffers: bool = True) -> TaskRow:
        """Refuse."""
        del msg_id, buffers
        _refuse()

    def query(self, query: Query, *, limit: int | None = None, buffers: bool = False) -> list[TaskRow]:
        """Refuse."""
        del query, limit, buffers
        _refuse()

    def page(
        self, query: Query, span: Span | None = None, *, limit: int, look: int = LOOK, newest_first: bool = True
    ) -> Page:
        """Refuse."""
        del query, span, limit, look, newest_first
        _refuse()

    def named(self, pattern: str, limit: int) -> list[str]:
        """Refuse."""
        del pattern, limit
        _refuse()

    def purge(self, msg_ids: Sequence[str]) -> int:
        """Refuse."""
        del msg_ids
        _refuse()

    def purge_matching(self, query: Query) -> int:
        """Refuse."""
        del query
        _refuse()

    def history(self) -> list[str]:
        """Refuse."""
        _refuse()

    def size(self) -> Size:
        """Nothing."""
        return Size(0, 0, 0)

    def close(self) -> None:
        """See `TaskStore`."""


def _refuse() -> NoReturn:
    raise NoRecords(
        "this controller keeps no records of tasks (database: none)",
        hint="Set `controller.database` in the profile to memory, sqlite or mongodb.",
    )

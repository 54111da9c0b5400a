"""What a database has to be for `written.WrittenStore`, which does all that has to do with time and threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from clusterd.storage.taskstore.pages import Span
    from clusterd.storage.taskstore.query import Query
    from clusterd.storage.taskstore.row import TaskRow


class Backend(Protocol):
    """A database. `write` and `tidy` are called on the writer's thread, all else on the caller's."""

    @property
    def has_excess(self) -> bool:
        """It holds more than it may, as far as is known: `tidy` is due."""

    @property
    def refusal(self) -> str:
        """Why no more may be promised (what is owed fills it); empty while there is room."""

    def open(self) -> int:
        """Connect, and make or migrate what is needed; the highest order in use. Raises StorageError.

        Called again after a failure, on the writer's thread; raises StartedAnew when the old data is not there any more.
        """

    def write(self, rows: Sequence[tuple[TaskRow, int]], purged: Collection[str], settled: Collection[str]) -> None:
        """Remove, write, and note that nothing is owed any more of tasks `settled`.

        Raises StorageError: nothing has changed, or all of it is to be done again, which does no harm.

        With each row: which of its parts (REQUEST, OUTCOME) are new; what else can change is written in any case. Any other exception: a
        row of these cannot be written, now or ever.
        """

    def tidy(self, now: float, is_kept: Callable[[str], bool]) -> int:
        """Remove ended rows that are too old or too many; how many. Raises StorageError.

        None that `is_kept` names goes, none that is owed and has not ended, and by number or size none that is owed to a native client.
        What has not ended and is owed to nobody goes by its age.
        """

    def get(self, msg_id: str, *, buffers: bool) -> TaskRow | None:
        """One row. Raises StorageError."""

    def read(self, query: Query, limit: int | None, *, buffers: bool) -> list[TaskRow]:
        """Rows that match, by order. Raises StorageError."""

    def page(
        self, query: Query, span: Span, limit: int, look: int, *, newest_first: bool
    ) -> tuple[list[TaskRow], int | None]:
        """Of the first `look` rows of a span those that match, at most `limit`, without buffers.

        Also the order of the last row that was looked at; None when the span has been looked at to its end. Raises StorageError.
        """

    def named(self, pattern: str, limit: int) -> list[str]:
        """The first ids that match a pattern (`*`, `?`), in any order. Raises StorageError."""

    def matching_ended(self, query: Query) -> list[str]:
        """The ids of ended rows that match. Raises StorageError."""

    def history(self) -> Iterable[tuple[float, str]]:
        """(submitted, msg_id) of all. Raises StorageError."""

    def size(self) -> tuple[int, int]:
        """(records, bytes), as far as is known without asking."""

    def unfinished(self) -> list[TaskRow]:
        """Rows that are owed and have not ended, whole, by order. Raises StorageError."""

    def owed_to(self, client: str) -> list[tuple[int, str, int]]:
        """(order, id, bytes) of the rows of a client that are owed and have ended, by order. Raises StorageError."""

    def whole(self, msg_ids: Sequence[str]) -> list[TaskRow]:
        """Those of these rows that are there, with body and buffers, in any order. Raises StorageError."""

    def write_functions(self, kept: Mapping[bytes, Sequence[Any]], dropped: Collection[bytes]) -> None:
        """Keep functions, each by its digest in its parts, and drop others; on the writer's thread. Raises StorageError."""

    def functions(self) -> dict[bytes, list[bytes]]:
        """All functions. Raises StorageError."""

    def close(self) -> None:
        """Let go; idempotent."""


class StartedAnew(Exception):
    """The old data had to be set aside, or is gone: everything that lives is to be written once more."""

    def __init__(self, highest_order: int = 0) -> None:
        super().__init__()
        self.highest_order = highest_order

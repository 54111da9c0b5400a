"""The interface of a store of task records. What every backend does the same way is held by tests/contract/test_task_stores.py.

Rules for all: a record of a task that has not ended is never culled and never purged; records are returned in the order in which
they were put; nothing here ends the controller: a store that cannot write says so in `trouble`, keeps what it must within its
bounds, and goes on by itself when it can.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from clusterd.storage.taskstore.pages import LOOK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.storage.taskstore.pages import Page, Span
    from clusterd.storage.taskstore.query import Query
    from clusterd.storage.taskstore.row import TaskRow


class Size(NamedTuple):
    """How much a store holds: `records` in all, `pending` of them not ended, and their `bytes`, near enough."""

    records: int
    pending: int
    bytes: int


class TaskStore(ABC):
    """Where the records of tasks are kept.

    Attributes:
        kind: its word in the profile.
        keeps_nothing: recording may be left out altogether.
        is_told_of_dispatch: false where `update` has nothing to do before the end.
        max_request: bytes of the buffers of one request that it can keep; None: any number.
    """

    kind: ClassVar[str]
    keeps_nothing: ClassVar[bool] = False
    is_told_of_dispatch: ClassVar[bool] = True
    max_request: int | None = None

    @abstractmethod
    def put(self, row: TaskRow) -> None:
        """Keep a task that has just been accepted. The store refers to the row; one with the same id is replaced."""

    @abstractmethod
    def update(self, row: TaskRow) -> None:
        """A row that was put here, or came from `get`, has changed; one that is not known any more stays unknown."""

    @abstractmethod
    def get(self, msg_id: str, *, buffers: bool = True) -> TaskRow:
        """One row; without `buffers` it may come without body and buffers.

        Raises:
            UnknownTask: there is none.
            StorageError: the store cannot be read.
        """

    @abstractmethod
    def query(self, query: Query, *, limit: int | None = None, buffers: bool = False) -> list[TaskRow]:
        """The rows that match, the first `limit` of them.

        Raises:
            StorageError: the store cannot be read.
        """

    @abstractmethod
    def page(
        self, query: Query, span: Span | None = None, *, limit: int, look: int = LOOK, newest_first: bool = True
    ) -> Page:
        """Those of the first `look` rows of a span that match, at most `limit`; without buffers.

        Unlike `query` it takes a bounded time, whatever the store holds: a page may be empty though later ones are not.

        Raises:
            StorageError: the store cannot be read.
        """

    def purge_page(self, query: Query, span: Span | None = None, *, look: int = LOOK) -> tuple[int, Span | None]:
        """Forget the ended tasks of a page; returns how many, and what is left of the span.

        Raises:
            StorageError: the store cannot be read.
        """
        page = self.page(query, span, limit=look, look=look)
        return self.purge([row.msg_id for row in page.rows if row.outcome is not None]), page.rest

    @abstractmethod
    def named(self, pattern: str, limit: int) -> list[str]:
        """Some ids that match a pattern (`*`: anything, `?`: any character), at most `limit`.

        Raises:
            StorageError: the store cannot be read.
        """

    @abstractmethod
    def purge(self, msg_ids: Sequence[str]) -> int:
        """Forget those of these tasks that have ended; returns how many that were.

        Raises:
            StorageError: the store cannot be read.
        """

    @abstractmethod
    def purge_matching(self, query: Query) -> int:
        """Forget ended tasks that match; returns how many.

        Raises:
            StorageError: the store cannot be read.
        """

    @abstractmethod
    def history(self) -> list[str]:
        """The ids of all tasks, by the time at which they were submitted.

        Raises:
            StorageError: the store cannot be read.
        """

    @abstractmethod
    def size(self) -> Size:
        """How much it holds."""

    @property
    def trouble(self) -> str:
        """Why nothing can be written at present; empty while all is well."""
        return ""

    @property
    def refusal(self) -> str:
        """Why no more may be promised though all is written: there is no room for what is owed; empty while there is."""
        return ""

    @property
    def lost(self) -> int:
        """How many records could not be kept since the start."""
        return 0

    @property
    def backlog(self) -> int:
        """Bytes that are still to be written."""
        return 0

    def flush(self, seconds: float = 10.0) -> bool:
        """Wait until all is written that was put before; False when it was not in that time."""
        del seconds
        return True

    @abstractmethod
    def close(self) -> None:
        """Write what is left and let go of everything; idempotent."""

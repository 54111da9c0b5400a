"""What was sent and is not acknowledged: in a durable profile, what the controller has not said to be in its store.

Nothing is done for a single task: batches are noted with the number of their message, and looked through when somebody asks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.client.task import TaskFuture
    from clusterd.core.wire.session import Session


class Receipts:
    """The batches of the present connection; the I/O thread notes, anybody asks."""

    def __init__(self) -> None:
        # (number, its tasks), oldest first; may hold some that are acknowledged by now.
        self._batches: deque[tuple[int, Sequence[TaskFuture]]] = deque()
        self._session: Session | None = None

    def note(self, session: Session | None, batch: Sequence[TaskFuture]) -> None:
        """A batch has been sent as the last message of the session."""
        self._session = session
        if session is not None:
            self.prune()
            self._batches.append((session.sent, batch))

    def prune(self) -> None:
        """Let go of what is acknowledged."""
        batches, session = self._batches, self._session
        while batches and session is not None and batches[0][0] <= session.acked:
            batches.popleft()

    def clear(self) -> None:
        """The connection is gone: all that it carried is sent again, or has ended."""
        self._session = None
        self._batches.clear()

    def awaited(self) -> list[TaskFuture]:
        """All that is sent, and neither acknowledged nor ended."""
        session = self._session
        if session is None:
            return []
        acked = session.acked
        # list(): at once, whatever the I/O thread does meanwhile.
        batches = [batch for number, batch in list(self._batches) if number > acked]
        return [future for batch in batches for future in batch if future._state == "PENDING"]  # noqa: SLF001

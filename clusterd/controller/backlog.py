"""When so much is to be written by the store that nothing more is read on data connections: whoever submits is slowed down so.

The store itself holds its caller at twice as much, for a moment each time; with a thousand tasks in a turn that would be minutes in which
the controller answers nobody. Here it stays responsive: control connections are read on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from clusterd.storage.taskstore.base import TaskStore

log = logging.getLogger(__name__)
FULL_BYTES: Final = 32 * 1024**2
"""Bytes that are to be written above which nothing more is read on data connections: half of what the store itself bounds."""
RELIEF: Final = 2
"""It is read again below this part of that."""


class Backlog:
    """What the store of one controller has to write.

    Args:
        store: it says how much that is.
        full_bytes: what it may be.

    Attributes:
        is_full: nothing is to be read on data connections.
    """

    def __init__(self, store: TaskStore, full_bytes: int = FULL_BYTES) -> None:
        self._store = store
        self._full_bytes = full_bytes
        self.is_full = False

    def look(self) -> bool:
        """Say whether it is full now. While the store cannot write at all it is not: that would never end."""
        backlog = self._store.backlog
        if self.is_full:
            if backlog * RELIEF <= self._full_bytes or self._store.trouble:
                self.is_full = False
                log.info("the store has caught up: tasks and results are read again")
        elif backlog > self._full_bytes and not self._store.trouble:
            self.is_full = True
            log.warning("%d bytes are to be written: nothing more is read until the store has caught up", backlog)
        return self.is_full

"""What clients have been told of their outcomes and not acknowledged, and what they are still to be told out of the store.

A client that attaches may be owed more than fits into memory: it is told in pages, in the order in which its tasks were taken, the
next one when it has acknowledged most of the one before. Of all others only the ids are here. Invariants: a task is in `_told`,
in `untold` or `past` of a page, or in none; it leaves `_told` by an acknowledgement, after which nothing is owed for it, or when
its client is gone, after which it is told again out of the store.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from clusterd.controller.restoring import message_of
from clusterd.core.wire.messages import Deliver, Failed
from clusterd.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.controller.peers import Client
    from clusterd.storage.taskstore.durable import DurableStore

log = logging.getLogger(__name__)
PAGE_BYTES: Final = 8 * 1024**2
"""Bytes of tasks and outcomes that are told and not acknowledged; one that is larger goes alone."""
PAGE_TASKS: Final = 2000
AGAIN_SECONDS: Final = 1.0
"""Between attempts to read what a client is owed."""
PAST_SECONDS: Final = 60.0
"""A client that attaches offers what it has no result of, perhaps with the acknowledgement of just that; such an offer may be parked."""


class _Page:
    """What one client is being told out of the store."""

    __slots__ = ("bytes", "client", "is_known", "past", "told", "until", "untold")

    def __init__(self, client: Client) -> None:
        self.client = client
        # False while the store could not say what is owed.
        self.is_known = False
        # Tasks in order, each with its bytes: to be told, and told in this page without an acknowledgement so far.
        self.untold: dict[bytes, int] = {}
        self.told: dict[bytes, int] = {}
        # Of `told`.
        self.bytes = 0
        # Tasks that were told in this page and are acknowledged.
        self.past: set[bytes] = set()
        # When `past` may be forgotten; None while there is more to be told.
        self.until: float | None = None

    def __contains__(self, task: bytes) -> bool:
        return task in self.untold or task in self.past

    @property
    def is_over(self) -> bool:
        """True when there is nothing more to be told, and all is acknowledged."""
        return self.is_known and not self.untold and not self.told


class Receipts:
    """The receipts of one controller.

    Args:
        store: where outcomes lie.
    """

    def __init__(self, store: DurableStore) -> None:
        self._store = store
        # Tasks with an outcome that their client, which is attached, was told and has not acknowledged; with its uuid.
        self._told: dict[bytes, str] = {}
        # By uuid: attached clients that are to be told more, or have just been.
        self._pages: dict[str, _Page] = {}
        self._next_attempt = 0.0

    def __contains__(self, task: bytes) -> bool:
        if task in self._told:
            return True
        return bool(self._pages) and any(task in page for page in self._pages.values())

    def told(self, task: bytes, client: str) -> None:
        """A task has just ended, and its client is being told."""
        self._told[task] = client

    def acknowledged(self, messages: Sequence[Any]) -> None:
        """A client has dealt with what it was told."""
        settled: list[str] = []
        for message in messages:
            if type(message) is Deliver or type(message) is Failed:
                task = message.task
                client = self._told.pop(task, None)
                if client is not None:
                    settled.append(task.hex())
                    page = self._pages.get(client) if self._pages else None
                    if page is not None and task in page.told:
                        page.bytes -= page.told.pop(task)
                        page.past.add(task)
        if settled:
            # That need not be committed soon: who is told twice knows it.
            self._store.settle(settled)
            for page in list(self._pages.values()):
                self._go_on(page)

    # --- out of the store ---

    def attached(self, client: Client) -> None:
        """Begin to tell a client what it has not acknowledged, wherever it ended."""
        self.disconnected(client)
        page = self._pages[client.uuid.hex()] = _Page(client)
        self._look_up(page)

    def tick(self, now: float) -> None:
        """Let time pass: what could not be read may be readable by now."""
        if self._pages and now >= self._next_attempt:
            self._next_attempt = now + AGAIN_SECONDS
            for page in list(self._pages.values()):
                if not page.is_known:
                    self._look_up(page)
                elif not page.is_over:
                    self._go_on(page)
                elif page.until is None:
                    page.until = now + PAST_SECONDS
                elif now >= page.until:
                    del self._pages[page.client.uuid.hex()]

    def disconnected(self, client: Client) -> list[bytes]:
        """What it was told and has not acknowledged it will be told when it is back; returns all that it was to hear."""
        name = client.uuid.hex()
        tasks = [task for task, owner in self._told.items() if owner == name]
        for task in tasks:
            del self._told[task]
        page = self._pages.pop(name, None)
        if page is not None:
            tasks += page.untold
        return tasks

    def goodbye(self, client: Client) -> None:
        """It wants nothing any more."""
        self._store.settle(task.hex() for task in self.disconnected(client))

    def _look_up(self, page: _Page) -> None:
        client = page.client
        try:
            owed = self._store.owed_to(client.uuid.hex())
        except StorageError as error:
            log.error("%s is not told of outcomes as long as they cannot be read: %s", client.name, error)  # noqa: TRY400
            return
        page.is_known = True
        page.untold = {
            task: size
            for task, size in ((bytes.fromhex(msg_id), size) for msg_id, size in owed)
            if task not in self._told
        }
        if page.untold:
            log.info("%s is told of %d outcomes again", client.name, len(page.untold))
        self._go_on(page)

    def _go_on(self, page: _Page) -> None:
        """Tell as much as there is room for."""
        while page.untold and page.bytes <= PAGE_BYTES // 2 and len(page.told) <= PAGE_TASKS // 2:
            chosen: list[bytes] = []
            room = PAGE_BYTES - page.bytes
            for task, size in page.untold.items():
                if (size > room and (chosen or page.told)) or len(chosen) + len(page.told) >= PAGE_TASKS:
                    break
                chosen.append(task)
                room -= size
            if not chosen or not self._tell(page, chosen):
                break
        if page.is_over and not page.past:
            self._pages.pop(page.client.uuid.hex(), None)

    def _tell(self, page: _Page, tasks: list[bytes]) -> bool:
        data = page.client.data
        try:
            rows = self._store.whole([task.hex() for task in tasks])
        except StorageError as error:
            log.error("%s is told of more outcomes when they can be read: %s", page.client.name, error)  # noqa: TRY400
            return False
        sizes = {task: page.untold.pop(task) for task in tasks}
        for row in rows:
            task = bytes.fromhex(row.msg_id)
            # It may have been purged meanwhile.
            if row.outcome is not None and data is not None:
                page.told[task] = sizes[task]
                page.bytes += sizes[task]
                self._told[task] = row.client
                message, frames = message_of(task, row, row.outcome)
                data.say(message, len(row.outcome.body) + 256, frames)
        return True

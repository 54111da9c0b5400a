"""What a durable controller asks of a store besides: what is owed to clients, the functions of tasks, and when a change is committed.

It counts: a change belongs to the number that `last_change` has after it, and is committed once `committed` is as high; the writer then
calls `on_commit`, on its own thread. With `is_durable` the writer does not wait for more to come: what is put while it writes is the
next group. Invariant: a function is written before the first task that names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clusterd.storage.taskstore.paged import PagedStore
from clusterd.system import fault

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from clusterd.storage.taskstore.backend import Backend
    from clusterd.storage.taskstore.row import TaskRow


class DurableStore(PagedStore):
    """A store from which a controller can go on where another one was killed.

    Args:
        backend: not open yet.
        is_durable: somebody waits for each commit.
    """

    def __init__(self, backend: Backend, *, is_durable: bool = False) -> None:
        # Functions to be written, each in its parts, and digests to be dropped.
        self._functions: dict[bytes, Sequence[Any]] = {}
        self._dropped: set[bytes] = set()
        super().__init__(backend, is_prompt=is_durable)

    def settle(self, msg_ids: Iterable[str]) -> None:
        """Nothing is owed for these tasks any more. That is written with whatever is next."""
        with self._lock:
            for msg_id in msg_ids:
                self._pending.settle(msg_id)

    def resume(self, row: TaskRow) -> None:
        """A row of `unfinished` is pending again: it will get its end here."""
        with self._lock:
            self._pending.resume(row)

    def unfinished(self) -> list[TaskRow]:
        """Rows that are owed and have not ended, whole, in the order in which they were put.

        Raises:
            StorageError: the store cannot be read.
        """
        newer, hidden = self._owed_overlay()
        rows = [row for row in self._backend.unfinished() if row.msg_id not in hidden]
        rows.extend(row for row in newer.values() if row.is_owed and row.outcome is None)
        return sorted(rows, key=lambda row: row.order)

    def owed_to(self, client: str) -> list[tuple[str, int]]:
        """(id, bytes) of a client's tasks that have ended and are owed, in the order in which they were put.

        Raises:
            StorageError: the store cannot be read.
        """
        newer, hidden = self._owed_overlay()
        found = [item for item in self._backend.owed_to(client) if item[1] not in hidden]
        found.extend(
            (row.order, row.msg_id, row.size)
            for row in newer.values()
            if row.is_owed and row.outcome is not None and row.client == client
        )
        return [(msg_id, size) for _, msg_id, size in sorted(found)]

    def _owed_overlay(self) -> tuple[Mapping[str, TaskRow], Collection[str]]:
        with self._lock:
            rows, hidden = self._pending.overlay()
            return rows, {*hidden, *self._pending.settled, *self._pending.settling}

    def whole(self, msg_ids: Sequence[str]) -> list[TaskRow]:
        """Those of these rows that there are, with body and buffers, in this order.

        Raises:
            StorageError: the store cannot be read.
        """
        newer, hidden = self._overlay()
        found = {row.msg_id: row for row in self._backend.whole([each for each in msg_ids if each not in hidden])}
        for msg_id in msg_ids:
            if msg_id in newer:
                found[msg_id] = self._complete(newer[msg_id])
        return [found[msg_id] for msg_id in msg_ids if msg_id in found]

    def keep_function(self, digest: bytes, parts: Sequence[Any]) -> None:
        """Keep a function with the next tasks that are put."""
        with self._lock:
            self._dropped.discard(digest)
            self._functions[digest] = parts

    def drop_function(self, digest: bytes) -> None:
        """No task names it any more."""
        with self._lock:
            self._functions.pop(digest, None)
            self._dropped.add(digest)

    def functions(self) -> dict[bytes, list[bytes]]:
        """All functions that are written, each by its digest in its parts.

        Raises:
            StorageError: the store cannot be read.
        """
        return self._backend.functions()

    def _write_first(self) -> None:
        fault.point("controller.commit.before_write")
        with self._lock:
            kept, dropped = self._functions, self._dropped
            self._functions, self._dropped = {}, set()
        if not kept and not dropped:
            return
        try:
            self._backend.write_functions(kept, dropped)
        except BaseException:
            with self._lock:
                self._dropped |= dropped - self._functions.keys()
                self._functions = {
                    **{digest: kept[digest] for digest in kept.keys() - self._dropped},
                    **self._functions,
                }
            raise

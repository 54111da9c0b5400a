"""Submits that the scheduler has not been told of: they wait for their function, or for the end of a recovery.

They count against what their client may have unfinished, as if they were queued, can be aborted, and go when it goes.
Invariant: a task of a client waits here at most once, whatever is sent again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from clusterd.controller.peers import Client
    from clusterd.core.wire.messages import Limits, Submit

Key = tuple[int, bytes]
"""Handle of the client, task."""


class Parked(NamedTuple):
    """One Submit with what belongs to it."""

    client: Client
    message: Submit
    frames: Sequence[Any]
    digests: Sequence[bytes]
    size: int


class Parking:
    """What waits, and how much of it each client has.

    Args:
        limits: what a client may have waiting in all.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # Offers that wait for the end of the recovery, in order of arrival.
        self._offers: dict[Key, Parked] = {}
        # By digest of the function that they wait for.
        self._by_function: dict[bytes, dict[Key, Parked]] = {}
        # All and only keys of what waits, and the sum of the sizes, by handle; no entry for a client that has nothing here.
        self._keys: dict[int, set[Key]] = {}
        self._bytes: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    def has(self, handle: int) -> bool:
        """True while something of this client waits here."""
        return handle in self._keys

    @property
    def has_offers(self) -> bool:
        """True while something waits for the end of the recovery."""
        return bool(self._offers)

    def offer(self, parked: Parked) -> bool:
        """Keep a Submit until `take_offers`; False when its client has too much here already."""
        return self._add(self._offers, parked)

    def take_offers(self) -> list[Parked]:
        """All offers, in order; they wait here no longer."""
        offers, self._offers = self._offers, {}
        return self._taken(offers.values())

    def await_function(self, parked: Parked) -> bool:
        """Keep a Submit until `take_function` of its function; False when its client has too much here already."""
        waiting = self._by_function.get(parked.message.function, {})
        if not self._add(waiting, parked):
            return False
        if waiting:
            self._by_function[parked.message.function] = waiting
        return True

    def is_awaited_by(self, digest: bytes, client: Client) -> bool:
        """True when a task of this client waits for the function: it has been asked for it."""
        return any(handle == client.handle for handle, _ in self._by_function.get(digest, ()))

    def take_function(self, digest: bytes) -> list[Parked]:
        """All that waits for a function, in order; it waits here no longer."""
        return self._taken(self._by_function.pop(digest, {}).values())

    def needed_by(self, client: Client) -> list[bytes]:
        """Digests of the functions that tasks of this client wait for."""
        return [digest for digest in self._by_function if self.is_awaited_by(digest, client)]

    def abort(self, handle: int, tasks: Collection[bytes] | None, targets: Collection[int] | None) -> list[Parked]:
        """Take out what a client does not want any more: the tasks named, those for `targets`, or (both None) all."""
        if handle not in self._keys:
            return []
        return self._take_out(
            key
            for waiting in (self._offers, *self._by_function.values())
            for key, parked in waiting.items()
            if key[0] == handle and _is_meant(parked.message, tasks, targets)
        )

    def forget(self, handle: int) -> None:
        """The client is gone, and what it has here with it."""
        self.abort(handle, None, None)

    # --- inside ---

    def _add(self, waiting: dict[Key, Parked], parked: Parked) -> bool:
        handle = parked.client.handle
        key = (handle, parked.message.task)
        keys = self._keys.get(handle, set())
        if key in keys:
            return True  # sent again after a reconnect
        size = self._bytes.get(handle, 0) + parked.size
        if keys and (len(keys) >= self._limits.max_tasks or size > self._limits.max_task_bytes):
            return False
        waiting[key] = parked
        self._keys.setdefault(handle, keys).add(key)
        self._bytes[handle] = size
        return True

    def _take_out(self, keys: Iterable[Key]) -> list[Parked]:
        taken = []
        for key in list(keys):
            for waiting in (self._offers, *self._by_function.values()):
                parked = waiting.pop(key, None)
                if parked is not None:
                    taken.append(parked)
        self._by_function = {digest: waiting for digest, waiting in self._by_function.items() if waiting}
        return self._taken(taken)

    def _taken(self, taken: Iterable[Parked]) -> list[Parked]:
        taken = list(taken)
        for parked in taken:
            handle = parked.client.handle
            keys = self._keys[handle]
            keys.remove((handle, parked.message.task))
            self._bytes[handle] -= parked.size
            if not keys:
                del self._keys[handle], self._bytes[handle]
        return taken


def _is_meant(message: Submit, tasks: Collection[bytes] | None, targets: Collection[int] | None) -> bool:
    if tasks is not None:
        return message.task in tasks
    return targets is None or (isinstance(message.target, int) and message.target in targets)

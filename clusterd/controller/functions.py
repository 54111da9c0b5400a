"""Functions by digest: sent once by a client, once to each engine, and kept while anything refers to them.

Bounded in bytes; beyond that what no task refers to goes first, and then nothing new is taken. A digest that is asked for and
not here is asked of the client.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

from clusterd.core.wire.messages import Function

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.storage.taskstore.durable import DurableStore

# Functions that no task refers to, kept because they may be named again. Those that are referred to are as many as there are tasks.
MAX_IDLE = 4096
# Of all functions together. A single one may be larger: it could never be called otherwise.
MAX_BYTES = 256 * 1024 * 1024
MAX_NAME = 256

_encode = msgspec.msgpack.Encoder().encode
_decode_function = msgspec.msgpack.Decoder(Function).decode


class StoredFunction:
    """One function as it arrived."""

    __slots__ = ("digests", "message", "name", "payload", "references", "size")

    def __init__(self, message: Function, payload: Sequence[Any], digests: Sequence[bytes]) -> None:
        self.message = message
        # Kept with the record of each task that names it.
        self.name = message.name[:MAX_NAME]
        self.payload = payload
        self.digests = digests
        self.size = len(message.body) + sum(map(len, payload))
        # Tasks that have not ended and name this function.
        self.references = 0


class FunctionStore:
    """The controller's copies."""

    def __init__(self) -> None:
        self._functions: dict[bytes, StoredFunction] = {}
        # All and only those without references, least recently used first.
        self._idle: OrderedDict[bytes, None] = OrderedDict()
        # Sum of the sizes of all.
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._functions)

    def add(self, message: Function, payload: Sequence[Any], digests: Sequence[bytes]) -> bool:
        """Keep a function (again); False when there is no room, because tasks refer to all that is here."""
        digest = message.digest
        if digest in self._functions:
            if digest in self._idle:
                self._idle.move_to_end(digest)
            return True
        stored = StoredFunction(message, payload, digests)
        while self._idle and (len(self._idle) >= MAX_IDLE or self.bytes + stored.size > MAX_BYTES):
            self._drop_oldest()
        if self._functions and self.bytes + stored.size > MAX_BYTES:
            return False
        self._functions[digest] = stored
        self._idle[digest] = None
        self.bytes += stored.size
        return True

    def get(self, digest: bytes) -> StoredFunction | None:
        """The function, or None when it must be asked for."""
        return self._functions.get(digest)

    def refer(self, digest: bytes) -> None:
        """Count a task that names a function which is here."""
        stored = self._functions[digest]
        if not stored.references:
            del self._idle[digest]
        stored.references += 1

    def release(self, digest: bytes) -> None:
        """A task that named the function has ended."""
        stored = self._functions[digest]
        stored.references -= 1
        if not stored.references:
            self._idle[digest] = None
            if len(self._idle) > MAX_IDLE:
                self._drop_oldest()

    def _drop_oldest(self) -> bytes:
        digest, _ = self._idle.popitem(last=False)
        self.bytes -= self._functions.pop(digest).size
        return digest


class DurableFunctions(FunctionStore):
    """Functions that are in the store as long as they are here."""

    def __init__(self, store: DurableStore) -> None:
        super().__init__()
        self._store = store

    def restore(self) -> None:
        """Take up those of an earlier controller, all of them: which of them tasks refer to is not known yet."""
        for digest, parts in self._store.functions().items():
            stored = self._functions[digest] = StoredFunction(_decode_function(parts[0]), parts[1:], ())
            self._idle[digest] = None
            self.bytes += stored.size

    def add(self, message: Function, payload: Sequence[Any], digests: Sequence[bytes]) -> bool:
        """See `FunctionStore`."""
        is_new = self.get(message.digest) is None
        has_room = super().add(message, payload, digests)
        if has_room and is_new:
            self._store.keep_function(message.digest, [_encode(message), *payload])
        return has_room

    def _drop_oldest(self) -> bytes:
        digest = super()._drop_oldest()
        self._store.drop_function(digest)
        return digest

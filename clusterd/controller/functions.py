"""Functions by digest: sent once by a client, once to each engine, and kept while anything refers to them.

Bounded in number and bytes; one that a task refers to is never dropped. A digest that is asked for and not here is asked of the client.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.core.wire.messages import Function

MAX_FUNCTIONS = 4096
MAX_BYTES = 256 * 1024 * 1024


class StoredFunction:
    """One function as it arrived."""

    __slots__ = ("digests", "message", "payload", "references", "size")

    def __init__(self, message: Function, payload: Sequence[Any], digests: Sequence[bytes]) -> None:
        self.message = message
        self.payload = payload
        self.digests = digests
        self.size = len(message.body) + sum(map(len, payload))
        # Tasks that have not ended and name this function.
        self.references = 0


class FunctionStore:
    """The controller's copies."""

    def __init__(self) -> None:
        # By digest, least recently used first.
        self._functions: OrderedDict[bytes, StoredFunction] = OrderedDict()
        # Sum of their sizes.
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._functions)

    def add(self, message: Function, payload: Sequence[Any], digests: Sequence[bytes]) -> None:
        """Keep a function (again)."""
        if message.digest in self._functions:
            self._functions.move_to_end(message.digest)
            return
        stored = StoredFunction(message, payload, digests)
        self._functions[message.digest] = stored
        self.bytes += stored.size
        self._shrink()

    def get(self, digest: bytes) -> StoredFunction | None:
        """The function, or None when it must be asked for."""
        return self._functions.get(digest)

    def refer(self, digest: bytes) -> bool:
        """Count a task that names the function; False when it is not here."""
        stored = self._functions.get(digest)
        if stored is None:
            return False
        stored.references += 1
        return True

    def release(self, digest: bytes) -> None:
        """A task that named the function has ended."""
        stored = self._functions.get(digest)
        if stored is not None:
            stored.references -= 1
            if not stored.references:
                # Last use is what counts for eviction, and this is the moment after it.
                self._functions.move_to_end(digest)

    def _shrink(self) -> None:
        while len(self._functions) > MAX_FUNCTIONS or self.bytes > MAX_BYTES:
            victim = next((digest for digest, stored in self._functions.items() if not stored.references), None)
            if victim is None or victim == next(reversed(self._functions)):
                return
            self.bytes -= self._functions.pop(victim).size

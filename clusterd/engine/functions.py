"""The functions that this engine holds, by digest: a bounded cache, least recently used out first.

Unpickling happens at the first call, inside the task, so that a missing module is that task's error. A function keeps
its state between calls (closures, mutable defaults), as one does in a session.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from clusterd.engine import links
from clusterd.engine.sources import register_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_ENTRIES = 1024
MAX_BYTES = 128 * 1024 * 1024


class HeldFunction:
    """One function. `call` is set by the first `load`; `links` are those of it and of what came with it."""

    __slots__ = ("_body", "_frames", "call", "links", "name", "size")

    def __init__(self, name: str, body: Any, frames: Sequence[Any]) -> None:
        self.name = name
        self._body = body
        self._frames = frames
        # The frames stay alive as long as arrays in the function's closure: they count for good.
        self.size = len(body) + sum(len(frame) for frame in frames)
        self.call: Callable[..., Any] | None = None
        self.links: list[links.Link] = []

    def load(self) -> Callable[..., Any]:
        """The function.

        Raises:
            Exception: whatever unpickling raises; the next call tries again.
        """
        if self.call is None:
            (call, sources), self.links = links.load(self._body, self._frames)
            register_sources(sources)
            self.call = call
            self._body = self._frames = ()
        return self.call


class Functions:
    """The cache.

    Args:
        max_entries: bound on their number.
        max_bytes: bound on the sum of their sizes; one function always fits.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._held: OrderedDict[bytes, HeldFunction] = OrderedDict()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        # Sum of the sizes of all in `_held`.
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, digest: bytes, name: str, body: Any, frames: Sequence[Any] = ()) -> None:
        """Hold a function; what is held already stays, with its state."""
        if digest in self._held:
            self._held.move_to_end(digest)
            return
        function = self._held[digest] = HeldFunction(name, body, frames)
        self._bytes += function.size
        while len(self._held) > 1 and (len(self._held) > self._max_entries or self._bytes > self._max_bytes):
            _, dropped = self._held.popitem(last=False)
            self._bytes -= dropped.size

    def get(self, digest: bytes) -> HeldFunction | None:
        """The function, or None when it is not (any more) held."""
        function = self._held.get(digest)
        if function is not None:
            self._held.move_to_end(digest)
        return function

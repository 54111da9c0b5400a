"""Functions in bytes: pickled once, named by digest, sent once per connection.

Importable functions go by reference, those of `__main__`, lambdas and closures by value. Invariants: an entry of the cache is used
only while its guard holds (guard.py); a packed function lives as long as a task that names it, so NeedFunction can be answered.
"""

from __future__ import annotations

import functools
import inspect
import linecache
import sys
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import cloudpickle

from clusterd.client.guard import Guard, reference, watch
from clusterd.core.wire import payload
from clusterd.core.wire.frames import place_body
from clusterd.core.wire.messages import Function

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType

MAX_CACHED = 512
# The text of a file up to this size goes along whole, so that frames of all its functions can be shown; of a larger one the
# function alone.
MAX_SOURCE = 16 * 1024
_PYTHON = "{}.{}".format(*sys.version_info)


class PackedFunction:
    """One function as it travels."""

    __slots__ = ("__weakref__", "digest", "frames", "message", "size")

    def __init__(self, message: Function, frames: Sequence[Any]) -> None:
        self.digest = message.digest
        self.message = message
        self.frames = frames
        self.size = len(message.body)


class _Entry:
    __slots__ = ("function", "guard", "packed")

    def __init__(self, function: Any, guard: Guard, packed: PackedFunction) -> None:
        self.function = function
        self.guard = guard
        self.packed = packed


class FunctionBook:
    """The functions of one client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By id of the function (which the entry keeps alive), least recently packed first.
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        # All and only packed functions that something refers to.
        self._by_digest: WeakValueDictionary[bytes, PackedFunction] = WeakValueDictionary()

    def pack(self, function: Callable[..., Any]) -> PackedFunction:
        """The function in bytes, from the cache where that is certain to be right.

        Raises:
            TaskNotSendable: it cannot be pickled.
            TypeError: it cannot be called.
        """
        entry = self._entries.get(id(function))
        if entry is not None and entry.function is function and entry.guard.holds():
            return entry.packed
        if not callable(function):
            raise TypeError(f"a function is needed, not {payload.describe(function)}")
        # Watched before and checked after: what changes while it is being pickled is noticed.
        guard = watch(function)
        packed = self._packed(function)
        with self._lock:
            packed = self._by_digest.setdefault(packed.digest, packed)
            if guard is not None and guard.holds():
                self._entries[id(function)] = _Entry(function, guard, packed)
                self._entries.move_to_end(id(function))
                if len(self._entries) > MAX_CACHED:
                    self._entries.popitem(last=False)
            else:
                self._entries.pop(id(function), None)
        return packed

    def by_digest(self, digest: bytes) -> PackedFunction | None:
        """A function that somebody still refers to."""
        return self._by_digest.get(digest)

    def renew_lock(self) -> None:
        """In a forked child: a lock that no vanished thread holds."""
        self._lock = threading.Lock()

    @staticmethod
    def _packed(function: Callable[..., Any]) -> PackedFunction:
        sources = {} if reference(function) is not None else sources_of(function)
        body, views = payload.pack_function(function, cloudpickle.dumps, sources)
        name = str(getattr(function, "__qualname__", type(function).__qualname__))
        python = _PYTHON if payload.has_code(body) else ""
        # A function is kept and sent again: what its buffers hold now must not change with the caller's arrays.
        frames = [view if view.readonly else bytes(view) for view in views]
        digest = payload.function_digest(name, python, body, frames)
        body, placed = place_body(body, frames)
        return PackedFunction(Function(digest, name, python, body, len(placed)), placed)


def sources_of(function: Any) -> dict[str, tuple[int, str]]:
    """Text of the file or cell that the function was written in, for tracebacks on engines that do not have it."""
    try:
        code = getattr(inspect.unwrap(function), "__code__", None)
    except ValueError:  # wrappers in a circle
        return {}
    return {} if code is None else dict(_source(code.co_filename, code))


@functools.lru_cache(MAX_CACHED)
def _source(name: str, code: CodeType) -> tuple[tuple[str, tuple[int, str]], ...]:
    # The name is in the key because code of two cells may be equal otherwise.
    lines = linecache.getlines(name)
    if sum(map(len, lines)) <= MAX_SOURCE:
        return ((name, (1, "".join(lines))),) if lines else ()
    try:
        block = inspect.getblock(lines[code.co_firstlineno - 1 :])
    except (SyntaxError, IndexError):  # the file was changed since it was imported
        return ()
    return ((name, (code.co_firstlineno, "".join(block)[:MAX_SOURCE])),)

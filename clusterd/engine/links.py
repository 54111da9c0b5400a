"""Ties functions that came by value to the namespace of the engine.

cloudpickle gives a function from a client's `__main__` a globals dict of its own, with the names that existed there. Names
that it uses but that were not there are looked up on the engine (`view.execute("x = 5"); view.apply(lambda: x)`), and names
that it declares `global` live on the engine. A link holds, for one such dict, which names these are: found once, from
the bytecode, nested code included. Most functions have none, get no link and cost nothing at a call.
"""

from __future__ import annotations

import builtins
import dis
import io
import pickle
from types import CodeType
from typing import TYPE_CHECKING, Any

from clusterd.core.wire import payload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FunctionType

_ABSENT = object()
_MAKER = b"_make_function"


def _opcodes(*names: str) -> frozenset[int]:
    return frozenset(dis.opmap[name] for name in names if name in dis.opmap)


# LOAD_NAME and LOAD_FROM_DICT_OR_GLOBALS: bodies of classes inside of functions.
_LOADS = _opcodes("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_STORES = _opcodes("STORE_GLOBAL", "DELETE_GLOBAL")
_LOAD_GLOBAL = dis.opmap["LOAD_GLOBAL"]


def global_names(code: CodeType) -> tuple[set[str], set[str]]:
    """(names read, names assigned or deleted) as globals by `code` and the code objects in it.

    Read from the bytecode itself: `dis.get_instructions` says the same in 40 times the time, and each new lambda of a
    client passes here.
    """
    loads: set[str] = set()
    stores: set[str] = set()
    pending = [code]
    while pending:
        current = pending.pop()
        names, raw, extended = current.co_names, current.co_code, 0
        for operation, argument in zip(raw[::2], raw[1::2], strict=True):
            if operation == dis.EXTENDED_ARG:
                extended = (extended | argument) << 8
                continue
            if operation in _LOADS:
                index = extended | argument
                # Since 3.11 the lowest bit of LOAD_GLOBAL's argument says whether a NULL is pushed for a call.
                loads.add(names[index >> 1 if operation == _LOAD_GLOBAL else index])
            elif operation in _STORES:
                stores.add(names[extended | argument])
            extended = 0
        pending += [constant for constant in current.co_consts if type(constant) is CodeType]
    return loads, stores


class Link:
    """One globals dict and the names in it that belong to the engine's namespace."""

    __slots__ = ("__weakref__", "_entered", "globals", "initial", "names", "stores")

    def __init__(self, global_dict: dict[str, Any], missing: set[str], stores: set[str]) -> None:
        self.globals = global_dict
        # All names that are taken from the namespace at a call.
        self.names = tuple(missing | stores)
        self.stores = tuple(stores)
        # Values that the client sent along for names that are assigned: they hold until the engine has its own.
        self.initial = {name: global_dict[name] for name in stores if name in global_dict}
        # What the assigned names were when the call began.
        self._entered: list[Any] = []

    def enter(self, namespace: dict[str, Any]) -> None:
        """Before a call: give the function what the engine has."""
        global_dict = self.globals
        for name in self.names:
            value = namespace.get(name, _ABSENT)
            if value is not _ABSENT:
                global_dict[name] = value
        if self.stores:
            self._entered = [global_dict.get(name, _ABSENT) for name in self.stores]

    def leave(self, namespace: dict[str, Any]) -> None:
        """After a call: give the engine what the function assigned or deleted, and let go of the engine's values.

        A function that stays in the cache would otherwise keep alive what `del data` is meant to free.
        """
        global_dict = self.globals
        if self.stores:
            for name, before in zip(self.stores, self._entered, strict=True):
                after = global_dict.get(name, _ABSENT)
                if after is _ABSENT:
                    namespace.pop(name, None)
                elif after is not before:
                    namespace[name] = after
            self._entered = []
        for name in self.names:
            global_dict.pop(name, None)
        global_dict.update(self.initial)


def make_links(functions: Sequence[FunctionType]) -> list[Link]:
    """The links that these functions need; most need none."""
    found: dict[int, tuple[dict[str, Any], set[str], set[str]]] = {}
    for function in functions:
        global_dict = function.__globals__
        loads, stores = global_names(function.__code__)
        # Functions that were pickled together share a dict, which is complete only now.
        missing = {name for name in loads if name not in global_dict and not hasattr(builtins, name)}
        if missing or stores:
            _, all_missing, all_stores = found.setdefault(id(global_dict), (global_dict, set(), set()))
            all_missing |= missing
            all_stores |= stores
    return [Link(*entry) for entry in found.values()]


class _Loader(pickle.Unpickler):
    """Notes each function that cloudpickle builds."""

    def __init__(self, body: Any, frames: Sequence[Any]) -> None:
        super().__init__(io.BytesIO(body), buffers=frames)
        self.functions: list[FunctionType] = []

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if name == "_make_function" and module.startswith("cloudpickle"):

            def make(*arguments: Any) -> FunctionType:
                function: FunctionType = found(*arguments)
                self.functions.append(function)
                return function

            return make
        return found


def load(body: Any, frames: Sequence[Any]) -> tuple[Any, list[Link]]:
    """`payload.unpack`, and the links of the functions in it.

    Raises:
        TaskNotSendable: code by value of another Python.
        Exception: whatever unpickling raises.
    """
    # A large body is a frame and not searched through as bytes: its pickle says the name of the maker near its functions,
    # and a frame has no method for it, so it takes the slower way, which costs little beside its size.
    if type(body) is bytes and _MAKER not in body:
        return payload.unpack(body, frames), []
    payload.check_release(body)
    loader = _Loader(body, frames)
    value = loader.load()
    return value, make_links(loader.functions) if loader.functions else []

"""Says whether a pickle of a function is still true: nothing that went into it has changed.

cloudpickle copies what a function refers to: globals, closure cells, defaults. A cached pickle may be used again only while each
of these is the same object and cannot have changed inside. What cannot be watched so (a captured list, an instance, a class
of `__main__`) has no guard and is pickled at each use. When in doubt it says no: that costs time, the contrary wrong results.
"""

from __future__ import annotations

import sys
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, Final

import cloudpickle

_ABSENT: Final = object()
_ATOMS: Final = frozenset(
    {type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented), range, slice}
)
# Functions deeper than this in each other's globals are pickled each time.
MAX_WATCHED = 200
# cloudpickle takes these from a function's globals, used or not.
_ALWAYS: Final = ("__package__", "__name__", "__path__", "__file__")


class Guard:
    """What one pickle depends on."""

    __slots__ = ("_cells", "_functions", "_names")

    def __init__(self) -> None:
        # (mapping, name, value that was there or _ABSENT).
        self._names: list[tuple[Any, str, Any]] = []
        # (cell, content).
        self._cells: list[tuple[Any, Any]] = []
        # (function, what `_traits` said).
        self._functions: list[tuple[FunctionType, tuple[Any, ...]]] = []

    def holds(self) -> bool:
        """True while everything is as it was."""
        for mapping, name, value in self._names:
            if mapping.get(name, _ABSENT) is not value:
                return False
        try:
            for cell, content in self._cells:
                if cell.cell_contents is not content:
                    return False
        except ValueError:  # the cell was emptied
            return False
        for function, traits in self._functions:
            # Before each call: written out, where a comparison of lists made for it would cost twice as much.
            code, defaults, doc, module, qualname, keywords = traits
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__doc__ is not doc
                or function.__module__ is not module
                or function.__qualname__ is not qualname
                or function.__dict__
                or not (keywords is function.__kwdefaults__ or _is_same(keywords, function.__kwdefaults__))
            ):
                return False
        return True


def watch(function: Any) -> Guard | None:
    """The guard of a function, or None when it cannot be watched."""
    guard = Guard()
    return guard if _Watcher(guard).is_constant(function) else None


def reference(value: Any) -> list[tuple[Any, str, Any]] | None:
    """How `value` is reached by its name, as (mapping, name, object) steps; None where its name does not lead to it.

    Such an object is pickled by reference; `__main__` and what was registered with cloudpickle go by value.
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or "<" in name:
        return None
    if is_by_value(module):
        return None
    found: Any = sys.modules.get(module, _ABSENT)
    steps: list[tuple[Any, str, Any]] = [(sys.modules, module, found)]
    if found is _ABSENT:
        return None
    for part in name.split("."):
        names = getattr(found, "__dict__", None)
        if names is None or part not in names:
            return None
        steps.append((names, part, names[part]))
        found = getattr(found, part)
    return steps if found is value else None


def is_by_value(module: str) -> bool:
    """True when the user asked cloudpickle to send this module, or a package that it is in, by value."""
    registered = cloudpickle.list_registry_pickle_by_value()
    return bool(registered) and any(module == name or module.startswith(f"{name}.") for name in registered)


class _Watcher:
    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._seen: set[int] = set()

    def is_constant(self, value: Any) -> bool:
        kind = type(value)
        if kind in _ATOMS:
            # Parts of a slice may be anything; slices of atoms are what one meets.
            return kind is not slice or all(self.is_constant(part) for part in (value.start, value.stop, value.step))
        if kind is tuple or kind is frozenset:
            return len(value) <= MAX_WATCHED and all(self.is_constant(item) for item in value)
        if kind is ModuleType:
            return self._is_constant_module(value)
        if isinstance(value, (FunctionType, BuiltinFunctionType, type)):
            steps = reference(value)
            if steps is not None:
                self._guard._names.extend(steps)  # noqa: SLF001 - the guard is made here
                return True
            return isinstance(value, FunctionType) and self._is_constant_function(value)
        return False

    def _is_constant_module(self, module: ModuleType) -> bool:
        name = module.__name__
        if name == "__main__" or is_by_value(name) or sys.modules.get(name) is not module:
            return False
        self._guard._names.append((sys.modules, name, module))  # noqa: SLF001
        return True

    def _is_constant_function(self, function: FunctionType) -> bool:
        if id(function) in self._seen:
            return True
        self._seen.add(id(function))
        if len(self._seen) > MAX_WATCHED or function.__dict__:
            return False
        guard, names = self._guard, _names_in(function.__code__)
        guard._functions.append((function, _traits(function)))  # noqa: SLF001
        values = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        try:
            for cell in function.__closure__ or ():
                guard._cells.append((cell, cell.cell_contents))  # noqa: SLF001
                values.append(cell.cell_contents)
        except ValueError:
            return False
        for name in names.union(_ALWAYS):
            value = function.__globals__.get(name, _ABSENT)
            guard._names.append((function.__globals__, name, value))  # noqa: SLF001
            if value is not _ABSENT and name not in _ALWAYS:
                values.append(value)
        return all(self.is_constant(value) for value in values)


def _traits(function: FunctionType) -> tuple[Any, ...]:
    # Of annotations nothing is watched: they are for people and type checkers. The dict of defaults can be changed in place.
    keywords = function.__kwdefaults__
    return (
        function.__code__,
        function.__defaults__,
        function.__doc__,
        function.__module__,
        function.__qualname__,
        None if keywords is None else dict(keywords),
    )


def _is_same(then: dict[str, Any] | None, now: dict[str, Any] | None) -> bool:
    """True when the names, in their order, are bound to the same objects."""
    if then is None or now is None:
        return then is now
    return list(then) == list(now) and all(now[name] is value for name, value in then.items())


def _names_in(code: CodeType) -> set[str]:
    """All names in the code and in code within it: globals, and attributes that merely happen to be called so."""
    found: set[str] = set()
    pending = [code]
    while pending:
        current = pending.pop()
        found.update(current.co_names)
        pending += [constant for constant in current.co_consts if type(constant) is CodeType]
    return found

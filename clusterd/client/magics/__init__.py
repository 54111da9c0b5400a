"""`%px` and its family in IPython and Jupyter: cells that run on the engines. `%load_ext clusterd`, or `client.activate()`, brings them.

    %px import numpy                    a line, on all engines
    %%px --targets 0:2 --name job       a cell, on some; `job` is its future
    %pxresult                           the output of the last one, once more
    %autopx                             every cell from now on, until it is said again
    %pxconfig --noblock                 what holds where a cell says nothing else

IPython is not imported here: the shell is handed over, or is the one that runs already. ipyparallel's magics have the same names: those
that were loaded or activated last are in force.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from clusterd.client.magics.commands import Magics
from clusterd.errors import ClusterdError

if TYPE_CHECKING:
    from clusterd.client.direct import DirectView

# By shell: all that were made for it, by suffix.
_magics: WeakKeyDictionary[Any, dict[str, Magics]] = WeakKeyDictionary()


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext clusterd`: put the magics in force; the engines are found at their first use, unless a view was activated."""
    _of(shell, "").register()


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext clusterd`: end %autopx; the names stay, and say so, because IPython has no way to take them back."""
    for magics in _magics.pop(shell, {}).values():
        magics.retire()


def activate(view: DirectView, suffix: str = "") -> None:
    """Put the magics in force for the engines of a view.

    Args:
        view: where cells run.
        suffix: of the names: `_gpu` makes `%px_gpu`, `%autopx_gpu` and so on, beside other ones.

    Raises:
        ClusterdError: this is no IPython.
        ValueError: the suffix cannot be part of a name.
    """
    if not f"px{suffix}".isidentifier():
        raise ValueError(f"{suffix!r} cannot be the end of a magic's name")
    magics = _of(_running_shell(), suffix)
    magics.view = view
    magics.register()


def _of(shell: Any, suffix: str) -> Magics:
    known = _magics.setdefault(shell, {})
    if suffix not in known:
        known[suffix] = Magics(shell, suffix)
    return known[suffix]


def _running_shell() -> Any:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None:
        raise ClusterdError(
            "magics need IPython or Jupyter, and this is neither", hint="In a script use client[:].execute(code)."
        )
    return shell

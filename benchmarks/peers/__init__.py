"""The systems that are compared, one file each; a class `Peer` in each does the same six things in its system's words.

`benchmarks.peers.measure` is the program that runs one round of one peer; the functions that it sends stand in `tasks`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.processes import Process

NAMES = ("ours", "process_pool", "loky", "ipyparallel", "dask")
TITLES = {
    "ours": "clusterd",
    "process_pool": "ProcessPoolExecutor",
    "loky": "loky",
    "ipyparallel": "ipyparallel",
    "dask": "Dask distributed",
}


class Future(Protocol):
    """As much of a future as is needed."""

    def result(self) -> Any: ...


class System(Protocol):
    """One way to run Python functions on other processes."""

    def start(self, workers: int) -> None:
        """Start from nothing; `measure` then asks until every worker has answered."""

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Future:
        """Hand in one task and return at once."""

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int | None) -> list[Any]:
        """Return the results in order; `chunk` items travel together, None leaves it to the system."""

    def role(self, process: Process) -> str:
        """Name what a process of the tree is: client, controller, engine, ... The measuring process itself is the client."""

    def stop(self) -> None:
        """End all that was started."""


def load(name: str) -> System:
    """Import a peer and make it; its imports are a part of what it takes to be ready."""
    return importlib.import_module(f"benchmarks.peers.{name}").Peer()

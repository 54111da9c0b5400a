"""loky, joblib's executor: spawned workers, cloudpickle, recovery from dead workers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import loky

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.peers import Future
    from benchmarks.processes import Process


class Peer:
    """The reusable executor, which is what its users use."""

    def start(self, workers: int) -> None:
        self.pool = loky.get_reusable_executor(workers, timeout=300)

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Future:
        return self.pool.submit(function, argument)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int | None) -> list[Any]:
        return list(self.pool.map(function, items, chunksize=chunk or 1))

    def role(self, process: Process) -> str:
        if process.pid == os.getpid():
            return "client"
        return "engine" if "popen_loky" in process.command else "tracker"

    def stop(self) -> None:
        self.pool.shutdown()

"""concurrent.futures.ProcessPoolExecutor: pipes on one machine, no scheduler, no network. The mark to hit."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.peers import Future
    from benchmarks.processes import Process


class Peer:
    """Four forked workers, as the executor comes on Linux up to Python 3.13."""

    def start(self, workers: int) -> None:
        self.pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Future:
        return self.pool.submit(function, argument)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int | None) -> list[Any]:
        return list(self.pool.map(function, items, chunksize=chunk or 1))

    def role(self, process: Process) -> str:
        return "client" if process.pid == os.getpid() else "engine"

    def stop(self) -> None:
        self.pool.shutdown()

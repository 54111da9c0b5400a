"""Dask distributed: a scheduler of dynamic task graphs; on one machine it starts workers behind nannies.

Its map has no chunks that run together, so chunks are made by hand, as its best practices advise.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import distributed

from benchmarks.peers import tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.peers import Future
    from benchmarks.processes import Process


class Peer:
    """A local cluster of single-threaded worker processes; its scheduler lives in the client's process."""

    def start(self, workers: int) -> None:
        self.cluster = distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        )
        self.client = distributed.Client(self.cluster)

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Future:
        # pure=False: otherwise a repeated call is answered from the scheduler's memory.
        return self.client.submit(function, argument, pure=False)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int | None) -> list[Any]:
        size = chunk or 1
        chunks = [items[start : start + size] for start in range(0, len(items), size)]
        results = self.client.gather(self.client.map(lambda part: tasks.run_chunk(function, part), chunks, pure=False))
        return [result for part in results for result in part]

    def role(self, process: Process) -> str:
        if process.pid == os.getpid():
            return "client and controller"
        # Workers and their nannies give themselves other titles than they were started with.
        return "tracker" if "resource_tracker" in process.command else "engine"

    def stop(self) -> None:
        self.client.close()
        self.cluster.close()

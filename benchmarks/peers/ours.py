"""clusterd: daemon, controller, agent and engines, started with `clusterctl start` as a person would."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from benchmarks.cluster import Cluster
from benchmarks.peers import tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.peers import Future
    from benchmarks.processes import Process


class Peer:
    """The shipped `local` profile, in directories of its own; tasks go through the load-balanced view."""

    def start(self, workers: int) -> None:
        self.cluster = Cluster()
        self.cluster.start(workers)
        import cloudpickle  # noqa: PLC0415 - after the start: its import then runs beside that of the engines

        # Engines start in their own work directory, where `benchmarks` cannot be imported.
        cloudpickle.register_pickle_by_value(tasks)
        self.client = self.cluster.client()
        self.client.wait_for_engines(workers, timeout=30)
        self.view = self.client.load_balanced_view()

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Future:
        return self.view.apply_async(function, argument)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int | None) -> list[Any]:
        chunks = {} if chunk is None else {"chunksize": chunk}
        return list(self.view.map(function, items, **chunks))

    def role(self, process: Process) -> str:
        return "client" if process.pid == os.getpid() else self.cluster.role(process)

    def stop(self) -> None:
        self.client.close()
        self.cluster.stop()

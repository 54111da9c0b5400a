"""ipyparallel: the predecessor. A hub with schedulers in eight processes, engines with a nanny each."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

import ipyparallel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.peers import Future
    from benchmarks.processes import Process


class Peer:
    """A cluster with its defaults, in a directory of its own; tasks go through the load-balanced view."""

    def start(self, workers: int) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="bench-ipp-")
        os.environ["IPYTHONDIR"] = self.directory.name
        self.cluster = ipyparallel.Cluster(n=workers, profile_dir=f"{self.directory.name}/profile_bench", log_level=40)
        self.client = self.cluster.start_and_connect_sync(activate=False)
        self.view = self.client.load_balanced_view()

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Future:
        return self.view.apply_async(function, argument)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int | None) -> list[Any]:
        return list(self.view.map_sync(function, items, chunksize=chunk or 1))

    def role(self, process: Process) -> str:
        if process.pid == os.getpid():
            return "client"
        if "ipyparallel.engine.nanny" in process.command:
            return "nanny"
        return "engine" if "ipyparallel.engine" in process.command else "controller"

    def stop(self) -> None:
        self.client.close()
        self.cluster.stop_cluster_sync()
        self.directory.cleanup()

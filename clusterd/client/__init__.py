"""The user's library: `clusterd.Client`, its views and its futures.

with clusterd.Client("local") as client:
    client.wait_for_engines(4)
    view = client.load_balanced_view()
    print(view.map_sync(len, ["some", "words"]))
"""

from __future__ import annotations

from clusterd.client.aggregate import AggregateFuture
from clusterd.client.cells import CellResult
from clusterd.client.client import Client
from clusterd.client.direct import DirectView
from clusterd.client.executor import ClusterExecutor
from clusterd.client.maps import MapFuture
from clusterd.client.options import Dependency
from clusterd.client.task import TaskFuture
from clusterd.client.view import LoadBalancedView

__all__ = [
    "AggregateFuture",
    "CellResult",
    "Client",
    "ClusterExecutor",
    "Dependency",
    "DirectView",
    "LoadBalancedView",
    "MapFuture",
    "TaskFuture",
]

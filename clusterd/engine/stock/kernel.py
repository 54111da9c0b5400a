"""What functions of stock clients find as `get_ipython().kernel`: a place for a Dask worker, comms, a log.

There is no kernel. `Client.become_dask` starts coroutines on the event loop of one, and expects it to turn while no task runs; so a loop
is made when it looks for its worker, and turns in a thread. An engine that is no Dask worker has neither.
"""

from __future__ import annotations

import importlib
import logging
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clusterd.engine.stock.replies import Identity


class Kernel:
    """See above.

    Attributes:
        distributed_worker: set by ipyparallel.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self.log = logging.getLogger("clusterd.engine")
        self.distributed_worker: Any = None
        # asyncio's, once somebody needs it.
        self._loop: Any = None

    @property
    def engine_id(self) -> int:
        """What clients call this engine."""
        return self._identity.id

    @property
    def ident(self) -> str:
        """Its uuid."""
        return self._identity.uuid

    @property
    def comm_manager(self) -> Any:
        """Of the package `comm`."""
        return importlib.import_module("comm").get_comm_manager()

    @property
    def dask_worker(self) -> Any:
        """What ipyparallel asks for before it starts a worker on the event loop of this thread."""
        import asyncio  # noqa: PLC0415 - no other engine needs it

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="clusterd event loop", daemon=True).start()
        # User code may have set another one in between.
        asyncio.set_event_loop(self._loop)
        return self.distributed_worker

    def wake(self) -> None:
        """A task is over: what it has put on the loop, from another thread than the loop's, begins."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(_nothing)


def _nothing() -> None:
    """Make the loop turn."""

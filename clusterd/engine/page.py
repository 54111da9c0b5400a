"""The engine's status page, mapped; and a page that nobody reads, for engines without an agent on their host."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from clusterd.core.model import page
from clusterd.core.model.ids import engine_hex
from clusterd.system import barrier, shared_page

if TYPE_CHECKING:
    import mmap
    from pathlib import Path


class StatusPage:
    """Owns the mapping.

    Args:
        runtime_dir: where its file is made (`units/engine-UUID.page`); None: in private memory.
        slot: number of the engine in its set.
        uuid: of the engine.
    """

    def __init__(self, runtime_dir: Path | None, slot: int, uuid: bytes) -> None:
        self._memory: mmap.mmap | None = None
        if runtime_dir is None:
            view = memoryview(bytearray(page.SIZE))
        else:
            self._memory = shared_page.create(path_of(runtime_dir, uuid), page.SIZE)
            view = memoryview(self._memory)
        header = page.PageHeader(slot, os.getpid(), uuid)
        self.writer = page.PageWriter(view, header, time.time(), fence=barrier.light)

    def close(self) -> None:
        """Unmap; the file is the agent's to remove."""
        self.writer.release()
        if self._memory is not None:
            self._memory.close()


def path_of(runtime_dir: Path, uuid: bytes) -> Path:
    """Where the page of an engine lies."""
    return runtime_dir / "units" / f"engine-{engine_hex(uuid)}.page"

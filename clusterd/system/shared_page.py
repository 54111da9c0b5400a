"""Maps the page of memory that two processes share: a small file in the runtime directory, through mmap.

Knows nothing of what is in it (`core/model/page.py` does). A file, not shm_open: its life is that of the runtime
directory, it has an owner and a mode, and the resource tracker of multiprocessing has no say in it.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["create", "open_existing"]


def create(path: Path, size: int) -> mmap.mmap:
    """Make the file (0600, zeroes; an old one is replaced, not reused) and map it for reading and writing."""
    path.unlink(missing_ok=True)  # whoever still maps the old one keeps it, and must not see our writes
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        os.truncate(descriptor, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def open_existing(path: Path, size: int, *, is_writable: bool = False) -> mmap.mmap:
    """Map an existing page for reading, or for writing too.

    Raises:
        OSError: there is none.
        ValueError: it is shorter than `size` (touching it would raise SIGBUS).
    """
    flags = os.O_RDWR if is_writable else os.O_RDONLY
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    try:
        if os.fstat(descriptor).st_size < size:
            raise ValueError(f"{path} is shorter than a page of {size} bytes")
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_WRITE if is_writable else mmap.ACCESS_READ)
    finally:
        os.close(descriptor)

"""Memory barriers between two processes that share a page: stores before one are visible before loads after it.

Python has none of its own, and even x86 lets a load pass an earlier store to another address. Taking and giving back an
uncontended lock is an atomic read-modify-write, a full barrier there (60 ns). Weaker machines (ARM) give it only acquire
and release; there the rare side calls `full`, which asks the kernel to order every running thread (membarrier(2)), so that
the frequent side can do with `light`.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import threading

__all__ = ["full", "light"]

_lock = threading.Lock()
_IS_STRONG = platform.machine().lower() in {"x86_64", "amd64", "i386", "i686"}
_MEMBARRIER = 283  # asm-generic/unistd.h: aarch64, riscv64, loongarch64
_CMD_GLOBAL = 1


def light() -> None:
    """The side that does this often (the engine, around each task)."""
    with _lock:
        pass


def full() -> None:
    """The side that does this rarely (the agent, at a recall); orders the other side, too."""
    with _lock:
        pass
    if not _IS_STRONG:
        # Fails on kernels with nohz_full processors; then the lock is all there is.
        _libc().syscall(_MEMBARRIER, _CMD_GLOBAL, 0)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)

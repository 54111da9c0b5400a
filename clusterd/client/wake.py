"""Wakes who turns the loop, or the I/O thread that stands aside: once for each sleep, however many tasks are submitted meanwhile.

The sleeper says that it is about to sleep, looks at its queues once more, then sleeps; who adds work rings only when somebody
sleeps. Either the sleeper sees the work or the worker sees the sleeper, because both first write and then read.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading

_ONE = (1).to_bytes(8, "little")


class Alarm:
    """A descriptor that becomes readable by `ring`; an eventfd where there are any, else a socket pair."""

    def __init__(self) -> None:
        # True while who turns the loop sleeps in its poll, or is about to.
        self.is_needed = False
        # True while the I/O thread stands aside, or is about to.
        self.is_awaited = False
        self._bell = threading.Event()
        self._lock = threading.Lock()
        self._is_closed = False
        self._pair: tuple[socket.socket, socket.socket] | None = None
        if hasattr(os, "eventfd"):
            self.descriptor = self._write = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self._pair = socket.socketpair()
            for end in self._pair:
                end.setblocking(False)
            self.descriptor, self._write = self._pair[0].fileno(), self._pair[1].fileno()

    def ring(self) -> None:
        """There is work: wake who polls, else the I/O thread; idempotent until they sleep again."""
        # The lock keeps a late ring from writing into whatever file got the number of the closed descriptor.
        with self._lock:
            if self._is_closed:
                return
            if self.is_needed:
                self._ring_poller()
            elif self.is_awaited:
                self.is_awaited = False
                self._bell.set()

    def rouse(self) -> None:
        """Have both look again: who polls and the I/O thread."""
        with self._lock:
            if self.is_needed and not self._is_closed:
                self._ring_poller()
            self.is_awaited = False
            self._bell.set()

    def _ring_poller(self) -> None:
        self.is_needed = False
        # Full means that it has been rung already.
        with contextlib.suppress(BlockingIOError):
            if self._pair is None:
                os.write(self._write, _ONE)
            else:
                self._pair[1].send(b"\0")

    def expect(self) -> None:
        """Say that the I/O thread is about to `sleep`; what it looks at from now on cannot be missed."""
        self._bell.clear()
        self.is_awaited = True

    def sleep(self, seconds: float) -> None:
        """Sleep until it rings, or `seconds` have passed."""
        self._bell.wait(seconds)

    def renew_lock(self) -> None:
        """In a forked child: a lock that no vanished thread holds."""
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Take what was rung."""
        with contextlib.suppress(BlockingIOError):
            if self._pair is None:
                os.read(self.descriptor, 8)
            else:
                self._pair[0].recv(4096)

    def close(self) -> None:
        """Give the descriptors back; only after the sleeper has ended."""
        with self._lock:
            self._is_closed = True
            if self._pair is None:
                os.close(self.descriptor)
            else:
                for end in self._pair:
                    end.close()

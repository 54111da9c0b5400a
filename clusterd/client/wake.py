"""Wakes the I/O thread: one write for each sleep, however many tasks are submitted meanwhile.

The sleeper says that it is about to sleep, looks at its queues once more, then polls; who adds work writes only when somebody
sleeps. Either the sleeper sees the work or the worker sees the sleeper, because both first write and then read.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading

_ONE = (1).to_bytes(8, "little")


class Alarm:
    """A descriptor that becomes readable by `ring`; an eventfd where there are any, else a socket pair."""

    def __init__(self) -> None:
        # True while who turns the loop sleeps, or is about to.
        self.is_needed = False
        # True while the I/O thread stands aside, and nobody may be turning the loop.
        self.is_awaited = False
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
        """Wake the sleeper; idempotent until it sleeps again."""
        # The lock keeps a late ring from writing into whatever file got the number of the closed descriptor.
        with self._lock:
            if not (self.is_needed or self.is_awaited) or self._is_closed:
                return
            self.is_needed = self.is_awaited = False
            # Full means that it has been rung already.
            with contextlib.suppress(BlockingIOError):
                if self._pair is None:
                    os.write(self._write, _ONE)
                else:
                    self._pair[1].send(b"\0")

    def sleep(self, seconds: float) -> bool:
        """Sleep until it rings; False when `seconds` have passed. It goes on ringing until cleared."""
        return bool(select.select([self.descriptor], [], [], seconds)[0])

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

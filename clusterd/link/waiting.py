"""Waiting for links and whatever else an owner polls."""

from __future__ import annotations

import select
from typing import Any


class Waiter:
    """Waits for the same descriptors and ZeroMQ sockets again and again; registers them only when they are others."""

    def __init__(self) -> None:
        self._poller: Any = None
        # What the poller polls.
        self._polled: list[tuple[Any, int]] | None = None

    def wait(self, pollables: list[tuple[Any, int]], timeout: float | None) -> list[tuple[Any, int]]:
        """Wait until one of them is ready or `timeout` seconds (None: for ever) have passed; what is ready, and how."""
        if pollables != self._polled:
            self._register(pollables)
        # Rounded up: a poll that returns just before its time would spin until then.
        ready: list[tuple[Any, int]] = self._poller.poll(None if timeout is None else int(timeout * 1000 + 0.999))
        return ready

    def _register(self, pollables: list[tuple[Any, int]]) -> None:
        # ZeroMQ's poll costs three times the system's, and Windows has no other.
        if hasattr(select, "poll") and all(isinstance(pollable, int) for pollable, _ in pollables):
            self._poller = select.poll()
        else:
            import zmq  # noqa: PLC0415 - loaded by the transport already, where there is a ZeroMQ socket

            self._poller = zmq.Poller()
        for pollable, flags in pollables:
            self._poller.register(pollable, flags)
        self._polled = list(pollables)


def poll_once(pollables: list[tuple[Any, int]], timeout: float | None) -> None:
    """Wait once, as `Waiter.wait`."""
    Waiter().wait(pollables, timeout)

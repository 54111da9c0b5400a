"""Waiting for links and whatever else an owner polls."""

from __future__ import annotations

import select
from typing import Any


def poll_once(pollables: list[tuple[Any, int]], timeout: float | None) -> None:
    """Wait until one of them is ready or `timeout` seconds (None: for ever) have passed."""
    # Rounded up: a poll that returns just before its time would spin until then.
    milliseconds = None if timeout is None else int(timeout * 1000 + 0.999)
    if all(isinstance(pollable, int) for pollable, _ in pollables):
        poller: Any = select.poll()
    else:
        import zmq  # noqa: PLC0415 - there is a ZeroMQ socket, so it is loaded

        poller = zmq.Poller()
    for pollable, flags in pollables:
        poller.register(pollable, flags)
    poller.poll(milliseconds)

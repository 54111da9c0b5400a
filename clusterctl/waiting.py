"""Waits until a wish has come true: long polls, so the daemon is asked only when something happened."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from clusterctl.output.progress import progress
from clusterctl.output.text import why_not
from clusterd.errors import NotConverged

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["wait_until_converged"]

# One poll: short enough that a daemon which was killed and started again is noticed.
POLL = 30.0


def wait_until_converged(target: Target, *, timeout: float, is_quiet: bool = False) -> dict[str, Any]:
    """Return the status once desired and observed agree.

    Args:
        target: whose cluster.
        timeout: seconds.
        is_quiet: show no progress.

    Ctrl-C ends the waiting, not the wish; the exit code says so.

    Raises:
        NotConverged: they do not agree in time, or cannot without help; the text says why.
        ControlError: the daemon went away.
    """
    client = target.client()
    deadline = time.monotonic() + timeout
    with progress(is_quiet=is_quiet) as show:
        status = client.get(target.path)
        while not status["is_converged"]:
            show(status)
            left = deadline - time.monotonic()
            if status["is_stuck"]:
                raise NotConverged(
                    f"{target.name} cannot become as wished without help:\n  {why_not(status)}",
                    hint=f"see clusterctl -p {target.name} logs; then: clusterctl -p {target.name} resume SET",
                )
            if left <= 0:
                raise NotConverged(
                    f"{target.name} is not as wished after {timeout:.0f} s:\n  {why_not(status)}",
                    hint=f"the wish stands: clusterctl -p {target.name} watch",
                )
            patience = min(left, POLL)
            query = f"?wait=change&since={status['seq']}&timeout={patience:.3f}"
            status = client.get(target.path + query, timeout=patience + client.timeout)
        show(status)
    return status

"""Waiting in tests: for a state, never for a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LIMIT = 30.0


def until(
    condition: Callable[[], Any], what: str, *, limit: float = LIMIT, about: Callable[[], object] = lambda: ""
) -> Any:
    """The first true value of `condition`; fails with `what` and whatever `about` tells when it never comes."""
    deadline = time.monotonic() + limit
    pause = 0.001
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {limit} s\n{about()}")
        # Yields the processor to whom we wait for; the state, not this pause, ends the loop.
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)

"""The functions that travel: as little as can be, because what is measured is everything around them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def nothing(value: Any) -> Any:
    """Return what was given."""
    return value


def who(seconds: float) -> int:
    """Stay busy for a moment, so that another worker gets the next task, and return this worker's pid."""
    time.sleep(seconds)
    return os.getpid()


def run_chunk(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    """Run a function on several items: the chunk of systems that have none of their own."""
    return [function(item) for item in items]


def give(size: int) -> bytes:
    """Return so many bytes."""
    return b"x" * size

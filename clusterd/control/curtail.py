"""What somebody with the right `view` alone is not shown: the last line that a process has printed, which reasons quote.

It may be of users' code, and hold anything. Taken out of the finished JSON, so that no route can forget it.
"""

from __future__ import annotations

import re
from typing import Final

from clusterd.control.authorize import ADMITTED

__all__ = ["curtailed", "sees_output"]

_OUTPUT: Final = re.compile(rb'; its (?:output|log) ends: (?:[^"\\]|\\.)*')
"""As the agent says it of engines, and the launchers of their processes; up to the end of the text."""


def sees_output() -> bool:
    """Say whether the present caller may see what users' code has printed."""
    return not ADMITTED.get().rights.isdisjoint({"operate", "connect"})


def curtailed(data: bytes) -> bytes:
    """Return JSON without the last lines of output that its texts quote."""
    return _OUTPUT.sub(b"", data)

"""The two clocks. Cores get time as an argument; the loops read it here and nowhere else.

`monotonic` is for deadlines and ages within one process: it never jumps. `wall` is for what people read and for what
must be compared after a restart or across processes; it may jump, so no deadline is ever computed from it.
"""

from __future__ import annotations

import time

__all__ = ["monotonic", "wall"]

monotonic = time.monotonic
"""Seconds since an arbitrary moment (on Linux: since boot, without time asleep)."""

wall = time.time
"""Seconds since 1970-01-01 UTC."""

"""Measurements of ours, each against a figure that was asked for; run by `python -m benchmarks.scenarios NAME`.

Each module has `measure(*, is_short: bool) -> dict[str, float]`, and says in its docstring what is measured and how.
"""

from __future__ import annotations

NAMES = ("start", "memory", "neighbours", "stock", "flood")
LIMITS = {"start": 180.0, "memory": 180.0, "neighbours": 180.0, "stock": 400.0, "flood": 900.0}
"""Seconds after which a scenario is ended and counts as failed."""
ROUNDS = {"start": 5, "memory": 1, "neighbours": 3, "stock": 3, "flood": 1}
"""How often a full run repeats it, where it has as many rounds of the peers."""

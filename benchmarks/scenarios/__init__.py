"""Measurements of ours, each against a figure that was asked for; run by `python -m benchmarks.scenarios NAME`.

Each module has `measure(*, is_short: bool) -> dict[str, float | str]`, and says in its docstring what is measured and how. A text
in the place of a figure is the reason why this machine cannot give it.
"""

from __future__ import annotations

NAMES = ("start", "memory", "neighbours", "stock", "stores", "durable", "records", "recovery", "fleet", "flood")
LIMITS = {
    "start": 180.0,
    "memory": 180.0,
    "neighbours": 180.0,
    "stock": 400.0,
    "stores": 400.0,
    "durable": 120.0,
    "records": 400.0,
    "recovery": 300.0,
    "fleet": 300.0,
    "flood": 900.0,
}
"""Seconds after which a scenario is ended and counts as failed."""
ROUNDS = {"start": 5, "neighbours": 3, "stock": 3}
"""How often a full run repeats it, where it has as many rounds of the peers; others once: they have rounds of their own, or take long."""

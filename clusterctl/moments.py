"""Times as people write them: `7d`, `12h`, `90` (seconds) for so long ago, or a date; as seconds since the epoch."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any, Final

import click

__all__ = ["AGO", "Ago"]

_UNITS: Final = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>[a-z]*)\Z")


class Ago(click.ParamType[float]):
    """A moment."""

    name = "AGO"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds since the epoch."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        found = _SPAN.match(text)
        if found is not None and found["unit"] in _UNITS:
            return time.time() - float(found["number"]) * _UNITS[found["unit"]]
        try:
            # Without a zone it is local time, as on the screen.
            return datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is no time: write 90s, 15m, 12h, 7d, 2w, or a date such as 2026-01-31T12:00", param, ctx
            )


AGO = Ago()

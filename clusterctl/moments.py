"""Times as people write them: `7d`, `12h`, `90` (seconds) for so long ago, or a date, as seconds since the epoch; and lengths of time."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any, Final

import click

__all__ = ["AGO", "SPAN", "Ago", "Since", "Span"]

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
        if of_today := _of_day(text):
            return of_today
        try:
            # Without a zone it is local time, as on the screen.
            return datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is no time: write 90s, 15m, 12h, 7d, 2w, 14:30, or a date such as 2026-01-31T12:00",
                param,
                ctx,
            )


class Span(click.ParamType[float]):
    """A length of time, of a week at the most."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        found = _SPAN.match(str(value).strip())
        if found is None or found["unit"] not in _UNITS:
            self.fail(f"{value!r} is no length of time: write 90s, 15m or 12h", param, ctx)
        seconds = float(found["number"]) * _UNITS[found["unit"]]
        if seconds > _UNITS["w"]:
            self.fail(f"{value!r} is more than a week", param, ctx)
        return seconds


class Since(Ago):
    """A moment, or the number of an event, which is returned as an int."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds since the epoch, or a number."""
        return int(value) if str(value).isdecimal() else super().convert(value, param, ctx)


def _of_day(text: str) -> float | None:
    """Return when it was that time of day last; None when it is none."""
    try:
        clock = time.strptime(text, "%H:%M")
    except ValueError:
        return None
    now = time.time()
    today = time.localtime(now)
    moment = time.mktime((*today[:3], clock.tm_hour, clock.tm_min, 0, 0, 0, -1))
    # What is still to come was yesterday.
    return (
        moment if moment <= now else time.mktime((*today[:2], today[2] - 1, clock.tm_hour, clock.tm_min, 0, 0, 0, -1))
    )


AGO = Ago()
SPAN = Span()

"""READS the values of loosely typed formats: JSON of several dialects, numbers as text, states as lists. Never raises but one.

Batch systems change the type of a field between releases (Slurm), guess it from its text (OpenPBS), or write every number in
quotes (LSF). A value of no use is taken as not given.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

__all__ = ["Unreadable", "load", "text", "whole"]

_WHOLE: Final = re.compile(r"\s*([+-]?[0-9]{1,18})\s*")


class Unreadable(Exception):
    """It is no JSON; the text says where and why."""


def load(document: str) -> Any:
    """Return the value of a JSON document; control characters in texts are let through, as the systems write them.

    Raises:
        Unreadable: it is none.
    """
    try:
        return json.loads(document, strict=False)
    except (ValueError, RecursionError) as error:  # numbers of 5,000 digits are ValueErrors, too
        raise Unreadable(f"no valid JSON: {error}") from None


def text(value: Any) -> str:
    """Return a text, empty for what is none: a name that was read as a number is not the name any more."""
    return value if isinstance(value, str) else ""


def whole(value: Any) -> int | None:
    """Return a whole number, also of a text and of Slurm's `{"set": true, "number": 7}`; None for what is none."""
    if isinstance(value, dict):
        return whole(value.get("number")) if value.get("set") is True else None
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() else None
    if isinstance(value, str):
        match = _WHOLE.fullmatch(value)
        return int(match[1]) if match else None
    return value if isinstance(value, int) else None

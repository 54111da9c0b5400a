"""Placeholders in the environment values of an engine set: `{local_rank}`, `{slot}`, `{set}`, `{n}`; `{{` is a brace.

Not `str.format`: its attribute and index access (`{slot.__class__}`) and its format language have no place in a file
that an administrator writes for other people's processes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PLACEHOLDERS", "expand", "mistakes"]

PLACEHOLDERS = ("local_rank", "slot", "set", "n")

# In this order: doubled braces first, so that "{{n}}" is the text "{n}". Every brace of a text is in exactly one match.
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def mistakes(template: str) -> Iterator[tuple[str, str]]:
    """Yield (what is wrong, the part that is) for each brace of `template` that means nothing."""
    for match in _TOKEN.finditer(template):
        name = match[1]
        if name is not None:
            if name not in PLACEHOLDERS:
                yield "unknown placeholder", match[0]
        elif len(match[0]) == 1:
            yield "a single brace", match[0]


def expand(template: str, *, local_rank: int, slot: int, engine_set: str, n: int) -> str:
    """Return `template` with its placeholders replaced; it must be free of `mistakes`, which are left as they are.

    Args:
        template: the value as the profile has it.
        local_rank: number of the engine among those of its set on this host, from 0.
        slot: number of the engine in its set.
        engine_set: name of the set.
        n: wanted number of engines of the set when the engine was started.
    """
    values = {"local_rank": str(local_rank), "slot": str(slot), "set": engine_set, "n": str(n)}

    def replace(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        return values.get(match[1] or "", match[0])

    return _TOKEN.sub(replace, template)

"""How one setting of a profile is described: what stands beside its type, bounds and default in `core.model.profile`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta

__all__ = [
    "AGE",
    "BYTES",
    "GIB",
    "MIB",
    "PATH",
    "POSITIVE",
    "SECONDS",
    "SIZE_PATTERN",
    "WEEK",
    "Applies",
    "form",
    "setting",
]

Applies = Literal["live", "set", "controller", "daemon"]
"""When a changed setting takes effect: at once, with the next engines of the set, or when that process restarts."""

MIB: Final = 1024**2
GIB: Final = 1024**3
WEEK: Final = 7 * 86400.0
SIZE_PATTERN: Final = r"^[0-9]{1,15} ?(B|[KMGT](iB)?)$"


def setting(
    description: str,
    applies: Applies,
    *,
    unit: str | None = None,
    later: tuple[str, ...] = (),
    example: Any = None,
) -> Meta:
    """Describe one setting.

    Args:
        description: one or two sentences for the person who edits the file.
        applies: what a change of it needs.
        unit: "bytes" lets the reader take `64 MiB` as well as a plain number.
        later: words of the design that this version does not serve: refused, but not as an unknown word.
        example: shown by `profile create` where the default alone would not tell how a value looks.
    """
    schema: dict[str, Any] = {}
    if unit == "bytes":
        schema = {"pattern": SIZE_PATTERN}
    if example is not None:
        schema["examples"] = [example]
    extra = {"applies": applies, "unit": unit, "later": later, "example": example}
    return Meta(description=description, extra=extra, extra_json_schema=schema or None)


def form(pattern: str, words: str, *, max_length: int | None = None) -> Meta:
    """Bound a text by a pattern, and say in words what it asks for: nobody should have to read the pattern."""
    return Meta(pattern=pattern, max_length=max_length, extra={"form": words})


# The types of values. Bounds sit on the innermost type: msgspec refuses them on a union.
SECONDS = Annotated[float, Meta(ge=0, le=WEEK)]
POSITIVE = Annotated[float, Meta(gt=0, le=WEEK)]
AGE = Annotated[float, Meta(ge=1, le=1e9)]
PATH = Annotated[str, Meta(min_length=1, max_length=4096)]
BYTES = Annotated[int, Meta(ge=MIB, le=1024 * GIB)]

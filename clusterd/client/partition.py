"""Splits a sequence into contiguous parts that differ by at most one item, and joins such parts again. numpy is used, never imported."""

from __future__ import annotations

import sys
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def split(sequence: Sequence[Any], parts: int) -> list[Any]:
    """The parts, in order; the first ones have the item more.

    Raises:
        TypeError: it has no length or cannot be sliced.
    """
    try:
        size = len(sequence)
        # range(n)[a:b] is a range: small on the wire, and what ipyparallel's users get is a list.
        sliced = list(sequence) if isinstance(sequence, range) else sequence
        whole, more = divmod(size, parts)
        bounds = [number * whole + min(number, more) for number in range(parts + 1)]
        return [sliced[start:stop] for start, stop in pairwise(bounds)]
    except (TypeError, KeyError) as error:
        raise TypeError(
            f"what is scattered needs a length and slices, a {type(sequence).__name__} has not both"
        ) from error


def join(parts: list[Any]) -> Any:
    """One array of arrays, one text of texts, one list of anything else."""
    if not parts:
        return []
    numpy = sys.modules.get("numpy")
    if numpy is not None and all(isinstance(part, numpy.ndarray) for part in parts):
        return numpy.concatenate(parts)
    for kind in (str, bytes):
        if all(type(part) is kind for part in parts):
            return kind().join(parts)
    if all(type(part) is tuple for part in parts):
        return tuple(chain.from_iterable(parts))
    # Parts that cannot be iterated were single items, flattened.
    lists = (part if hasattr(part, "__iter__") and not isinstance(part, str) else [part] for part in parts)
    return list(chain.from_iterable(lists))

"""DECIDES what a reload means: each changed setting, and what has to restart before the change is there.

Compares values as they are used (defaults filled in), not texts: a comment or a reordering changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from clusterd.profile.mistakes import dotted
from clusterd.profile.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import msgspec

    from clusterd.core.model.profile import Applies, Profile

__all__ = ["Change", "diff"]


class Change(NamedTuple):
    """One setting that differs between two profiles."""

    path: str
    """`engine_sets.engines.max`; the name of a set alone when the set was added or removed."""
    old: Any
    """As in the model; None for a set that was added."""
    new: Any
    """As in the model; None for a set that was removed."""
    applies: Applies
    """What has to happen: nothing (live), or a restart of the engines of the set, the controller or the daemon."""
    engine_set: str | None
    """The set that the setting belongs to, None for the others."""


def diff(old: Profile, new: Profile) -> list[Change]:
    """Return what has changed from one profile to another, in the order of the model.

    A set that was added or removed is one change and applies live: its engines are started, or drained and stopped.
    """
    changes = [change for change in _section(old, new, (), None) if change.path != "engine_sets"]
    for name in dict.fromkeys([*old.engine_sets, *new.engine_sets]):
        before, after = old.engine_sets.get(name), new.engine_sets.get(name)
        path = ("engine_sets", name)
        if before is None or after is None:
            changes.append(Change(dotted(path), before, after, "live", name))
        else:
            changes += _section(before, after, path, name)
    return changes


def _section(
    old: msgspec.Struct, new: msgspec.Struct, path: tuple[str, ...], engine_set: str | None
) -> Iterator[Change]:
    for name, setting in settings_of(type(old)).items():
        before, after = getattr(old, name), getattr(new, name)
        if setting.section is not None:
            yield from _section(before, after, (*path, name), engine_set)
        elif before != after:
            yield Change(dotted((*path, name)), before, after, setting.applies, engine_set)

"""The table of settings (clusterd.core.model.profile) as this package walks it.

Turns what `msgspec.inspect` says of the model into three kinds of shape: a section with settings, a collection, a
value. Nothing about a single setting stands here.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import inspect

from clusterd.core.model.profile import Applies, Profile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Setting", "Shape", "all_settings", "settings_of", "shape_of", "stand_in"]


class Shape(NamedTuple):
    """What a place in a profile may hold."""

    type: inspect.Type
    """The type with its bounds, freed of wrappers and of None."""
    is_nullable: bool
    extra: Mapping[str, Any]
    """What the table says beside type and bounds: applies, unit, later, example, form."""
    description: str


class Setting(NamedTuple):
    """One named setting of a section."""

    name: str
    shape: Shape
    is_required: bool
    default: Any
    """As in the model; None also where there is no default."""

    @property
    def section(self) -> type[msgspec.Struct] | None:
        """The section this setting opens, None for a value."""
        kind = self.shape.type
        return kind.cls if isinstance(kind, inspect.StructType) else None

    @property
    def named_sections(self) -> type[msgspec.Struct] | None:
        """The section that each value of this mapping is, None for anything else."""
        kind = self.shape.type
        values = shape_of(kind.value_type).type if isinstance(kind, inspect.DictType) else None
        return values.cls if isinstance(values, inspect.StructType) else None

    @property
    def applies(self) -> Applies:
        """What a change of it needs."""
        applies: Applies = self.shape.extra["applies"]
        return applies


def shape_of(declared: inspect.Type) -> Shape:
    """Unwrap a declared type."""
    description = ""
    is_nullable = False
    extra: dict[str, Any] = {}
    while True:
        if isinstance(declared, inspect.Metadata):
            # The outer wrapper is the setting's own, an inner one that of its type: the outer wins.
            extra = {**(declared.extra or {}), **extra}
            description = description or (declared.extra_json_schema or {}).get("description", "")
            declared = declared.type
        elif isinstance(declared, inspect.UnionType):
            is_nullable = True
            (declared,) = (member for member in declared.types if not isinstance(member, inspect.NoneType))
        else:
            return Shape(declared, is_nullable, extra, description)


@functools.cache
def settings_of(section: type[msgspec.Struct]) -> dict[str, Setting]:
    """Return the settings of a section by name, in the order of the model."""
    info = inspect.type_info(section)
    if not isinstance(info, inspect.StructType):  # for the type checker: a Struct has no other info
        raise TypeError(section)
    found = {}
    for item in info.fields:
        default = item.default
        if default is msgspec.NODEFAULT:
            default = None if item.default_factory is msgspec.NODEFAULT else item.default_factory()
        found[item.name] = Setting(item.name, shape_of(item.type), item.required, default)
    return found


def all_settings(section: type[msgspec.Struct] = Profile, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """Yield every setting with its path, depth first; `NAME` stands for the name of an engine set."""
    for name, setting in settings_of(section).items():
        path = f"{prefix}{name}"
        yield path, setting
        if setting.section is not None:
            yield from all_settings(setting.section, f"{path}.")
        if setting.named_sections is not None:
            yield from all_settings(setting.named_sections, f"{path}.NAME.")


def stand_in(shape: Shape) -> Any:
    """Return some valid value, for a required setting that is missing or wrong, so that the rest can be checked."""
    kind = shape.type
    if isinstance(kind, inspect.IntType):
        return kind.ge or 0
    if isinstance(kind, inspect.LiteralType):
        return kind.values[0]
    return {}

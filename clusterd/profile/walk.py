"""DECIDES: YAML nodes -> the model, by the table of settings; a wrong part is noted and replaced, never the end.

Whatever has a mistake gets its default (or a stand-in where it has none), so that one reading finds everything;
the result is only used when nothing was found.
"""

from __future__ import annotations

from typing import Any

import msgspec
import yaml
from msgspec import inspect

from clusterd.core.model.profile import DEFAULT_ENGINE_SET, Profile
from clusterd.profile.mistakes import Mistakes, Place, dotted, nearest, shown
from clusterd.profile.output import as_yaml
from clusterd.profile.settings import Setting, Shape, all_settings, settings_of, shape_of, stand_in
from clusterd.profile.text import is_refused, place_of
from clusterd.profile.values import Wrong, read_scalar, read_text, what_is

__all__ = ["Walk"]

_Path = tuple[str | int, ...]


class Walk:
    """One reading of one tree.

    Attributes:
        places: where each setting of the text stands: its value, or its name when nothing is written after it.
    """

    def __init__(self, mistakes: Mistakes) -> None:
        self.places: dict[_Path, Place] = {}
        self._mistakes = mistakes

    def profile(self, root: yaml.Node) -> Profile:
        """Return the profile of a tree; to be used only if there are no mistakes."""
        self.places[()] = place_of(root.start_mark)
        profile: Profile = self._section(root, Profile, (), Place(1, 1))
        return profile

    def place(self, *paths: _Path) -> Place:
        """Return where the first of some settings stands that is written, as at least one of them is."""
        return next(self.places[path] for path in paths if path in self.places)

    def _value(self, node: yaml.Node, shape: Shape, path: _Path, opened: Place) -> Any:
        """Return the value of a node, or UNSET when it has a mistake. `opened`: where the name of it stands."""
        place = place_of(node.start_mark)
        is_nothing = isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")
        # A null is placed by PyYAML after the colon, or where the next line begins: the name is easier to find.
        self.places[path] = opened if is_nothing and not node.value else place
        if is_refused(node):  # reported already, with the others of its kind
            self._mistakes.paths.add(path)
            return msgspec.UNSET
        kind = shape.type
        if isinstance(kind, inspect.StructType):
            return self._section(node, kind.cls, path, opened)
        if isinstance(kind, inspect.ListType) and (isinstance(node, yaml.SequenceNode) or is_nothing):
            return self._list(node, kind, path)
        if isinstance(kind, inspect.DictType) and (isinstance(node, yaml.MappingNode) or is_nothing):
            return self._dict(node, kind, path)
        if isinstance(node, yaml.ScalarNode):
            found = read_scalar(node, shape)
        else:
            wanted = {inspect.ListType: "a list", inspect.DictType: "a mapping"}.get(type(kind), "a single value")
            found = Wrong(f"expected {wanted}, found {what_is(node)}")
        if isinstance(found, Wrong):
            self._mistakes.add(self.places[path], path, f"{dotted(path)}: {found.message}", found.hint)
            return msgspec.UNSET
        return found

    def _section(self, node: yaml.Node, section: type[msgspec.Struct], path: _Path, opened: Place) -> Any:
        """Return a section. `controller:` with nothing after it is one whose settings all have their defaults."""
        settings = settings_of(section)
        values: dict[str, Any] = {}
        present: set[str] = set()
        if isinstance(node, yaml.MappingNode):
            for name, key, value in self._pairs(node, path):
                setting = settings.get(name)
                if setting is None:
                    self._unknown(name, place_of(key.start_mark), section, path)
                    continue
                present.add(name)
                read = self._value(value, setting.shape, (*path, name), place_of(key.start_mark))
                if read is not msgspec.UNSET:
                    values[name] = read
        elif not (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
            where = f"{dotted(path)}: " if path else ""
            names = ", ".join(list(settings)[:3])
            hint = f"settings are written `name: value`; here: {names}, ..."
            self._mistakes.add(self.places[path], path, f"{where}expected a mapping, found {what_is(node)}", hint)
            present.update(settings)
        for name, setting in settings.items():
            if setting.is_required and name not in values:
                if name not in present:
                    self._missing(setting, path, opened)
                values[name] = stand_in(setting.shape)
        return section(**values)

    def _list(self, node: yaml.Node, kind: inspect.ListType, path: _Path) -> list[Any] | Any:
        shape = shape_of(kind.item_type)
        items = node.value if isinstance(node, yaml.SequenceNode) else ()
        read = [self._value(item, shape, (*path, at), place_of(item.start_mark)) for at, item in enumerate(items)]
        return msgspec.UNSET if any(item is msgspec.UNSET for item in read) else read

    def _dict(self, node: yaml.Node, kind: inspect.DictType, path: _Path) -> dict[str, Any] | Any:
        pairs = list(self._pairs(node, path)) if isinstance(node, yaml.MappingNode) else []
        if len(pairs) < (kind.min_length or 0):
            example = f"add {DEFAULT_ENGINE_SET}: {{n: 4}}"
            self._mistakes.add(self.places[path], path, f"{dotted(path)}: must have at least one entry", example)
        names, values = shape_of(kind.key_type), shape_of(kind.value_type)
        read: dict[str, Any] = {}
        for name, key, value in pairs:
            place = place_of(key.start_mark)
            found = read_text(key, names)
            if isinstance(found, Wrong):
                self._mistakes.add(place, (*path, name), f"{dotted(path)}: {found.message}", found.hint)
            read[name] = self._value(value, values, (*path, name), place)
        # Sections are kept, mistaken or not, so that what depends on several settings is checked in them.
        return {name: value for name, value in read.items() if value is not msgspec.UNSET}

    def _pairs(self, node: yaml.MappingNode, path: _Path) -> list[tuple[str, yaml.ScalarNode, yaml.Node]]:
        """Return (name, node of the name, node of the value), without the pairs whose name cannot be one."""
        found: dict[str, tuple[str, yaml.ScalarNode, yaml.Node]] = {}
        where = f" in {dotted(path)}" if path else ""
        for key, value in node.value:
            place = place_of(key.start_mark)
            if is_refused(key):
                continue
            if not isinstance(key, yaml.ScalarNode):
                hint = "a text that begins with { or [ needs quotes"
                self._mistakes.add(place, (), f"the name of a setting{where} is {what_is(key)}", hint)
            elif key.tag.endswith(":merge"):
                hint = "write the settings out, or use an alias (*name) for a whole value"
                self._mistakes.add(place, (), f"merging with << is not supported{where}", hint)
            elif key.value in found:
                first = place_of(found[key.value][1].start_mark)
                self._mistakes.add(place, (), f"duplicate key {shown(key.value)}{where}", f"first on line {first.line}")
            else:
                found[key.value] = (key.value, key, value)
        return list(found.values())

    def _unknown(self, name: str, place: Place, section: type[msgspec.Struct], path: _Path) -> None:
        hint = ""
        near = nearest(name, settings_of(section))
        # "max" at the top level is no misspelling of anything there: it stands in the wrong section.
        homes = [home for home, setting in all_settings() if setting.name == name]
        homes.sort(key=lambda home: -home.count("."))  # of several the outermost is meant, and of those the last
        if homes:
            hint = (
                f"it belongs in {homes[-1].rpartition('.')[0]}" if "." in homes[-1] else "it belongs at the top level"
            )
        elif near:
            hint = f"did you mean '{near}'?"
        where = f" in {dotted(path)}" if path else ""
        self._mistakes.add(place, (), f"unknown key {shown(name)}{where}", hint)

    def _missing(self, setting: Setting, path: _Path, opened: Place) -> None:
        where = f"{dotted(path)}: " if path else ""
        example = setting.shape.extra["example"]
        hint = f"add `{setting.name}: {as_yaml(example)}`"
        self._mistakes.add(opened, (*path, setting.name), f"{where}{setting.name} is missing", hint)

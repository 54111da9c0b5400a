"""PERFORMS the first step: bytes -> YAML nodes, which know their line and column; never `yaml.load`.

No object is ever built from a tag. Everything is bounded: size, nesting, and the number of values that aliases
expand to. A text that is no YAML has one mistake, since nothing after it can be trusted; tabs, the exception,
are all reported.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml
from yaml.reader import Reader

from clusterd.profile.mistakes import Mistakes, Place, shown

if TYPE_CHECKING:
    from yaml._yaml import Mark as CMark
    from yaml.error import Mark as PyMark

    from clusterd.profile.mistakes import Mistakes

__all__ = ["MAX_BYTES", "MAX_NODES", "compose", "is_refused", "place_of"]

# A profile with every setting and its explanation has 10 kB; PyYAML reads about 200 kB in a second.
MAX_BYTES = 128 * 1024
# As many values as five hundred engine sets have; a billion-laughs file passes it within a few lines.
MAX_NODES = 10_000
# The deepest setting lies at 5.
MAX_DEPTH = 16

_CORE_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map"))
# PyYAML gives these to plain words by itself; where text is expected, a mistake says so in words of its own.
_IMPLICIT_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("timestamp", "merge", "value"))

# What YAML 1.1 takes for the end of a line; marks count these.
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")

_SYNTAX_HINTS = {
    "mapping values are not allowed here": "check the indentation; a value that contains ': ' needs quotes",
    "could not find expected ':'": "check the indentation; each setting is written `name: value`",
    "found undefined alias": "an alias (*name) needs an anchor (&name) before it; a text that begins with * needs quotes",
    "that cannot start any token": "a text that begins with this character needs quotes",
    "expected <block end>": "check the indentation: what belongs together begins in the same column",
    "found unexpected end of stream": "a quote or bracket is not closed",
    "but found another document": "a profile is one document: remove what follows '---'",
}


class _Refused(Exception):
    """A bound of ours is passed."""

    def __init__(self, problem: str, event: yaml.Event) -> None:
        super().__init__(problem)
        self.problem = problem
        self.place = place_of(event.start_mark)


class _Composer(yaml.SafeLoader):
    """Composes nodes and counts them the way a reader of the tree will see them: aliases expanded."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.expanded = 0
        # Expanded size of each complete node; one that is still being composed has none yet.
        self.sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            size = self.sizes.get(id(node))
            if size is None:
                raise _Refused("an alias refers to a value that contains it", event)
        else:
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise _Refused(f"nested more than {MAX_DEPTH} levels deep", event)
            before = self.expanded
            node = super().compose_node(parent, index)
            self.depth -= 1
            # What the children have is in the total already.
            self.sizes[id(node)] = self.expanded - before + 1
            size = 1
        self.expanded += size
        if self.expanded > MAX_NODES:
            raise _Refused(f"more than {MAX_NODES} values (aliases expanded)", event)
        return node


def place_of(mark: PyMark | CMark | None) -> Place:
    """Return the place of a mark, which counts from 0; nodes and events that PyYAML parsed always have one."""
    return Place(mark.line + 1, mark.column + 1) if mark is not None else Place(1, 1)


def is_refused(node: yaml.Node) -> bool:
    """Say whether the tag of a node is one that `compose` has reported."""
    if node.tag in _CORE_TAGS:
        return False
    return not (isinstance(node, yaml.ScalarNode) and node.tag in _IMPLICIT_TAGS)


def compose(data: bytes, mistakes: Mistakes) -> yaml.Node | None:
    """Return the root node of a YAML text, None when there is none; what is wrong is added to `mistakes`."""
    text = _decoded(data, mistakes)
    if text is None:
        return None
    composer = _Composer(text)
    try:
        root = composer.get_single_node()
    except _Refused as error:
        mistakes.add(error.place, (), error.problem)
    except yaml.MarkedYAMLError as error:
        _add_syntax_error(text, error, mistakes)
    except (ValueError, OverflowError):
        # PyYAML turns "\UFFFFFFFF" into a character, and the digits of %YAML into numbers, without looking first.
        mistakes.add(place_of(composer.get_mark()), (), "a number here is out of range for YAML")
    else:
        if root is None:
            mistakes.add(Place(1, 1), (), "the file is empty", "a profile begins with `version: 1`")
        else:
            _check_tags(root, mistakes)
        return root
    finally:
        composer.dispose()
    return None


def _decoded(data: bytes, mistakes: Mistakes) -> str | None:
    if len(data) > MAX_BYTES:
        mistakes.add(Place(1, 1), (), f"the file is too large: a profile has at most {MAX_BYTES} bytes")
        return None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        mistakes.add(Place(1, 1), (), "not UTF-8 but UTF-16", "save the file as UTF-8")
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        start = data.rfind(b"\n", 0, error.start) + 1
        place = Place(data.count(b"\n", 0, error.start) + 1, len(data[start : error.start].decode()) + 1)
        message = f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
        mistakes.add(place, (), message, "save the file as UTF-8")
        return None
    # Editors of Windows put it there. PyYAML skips it, but would count it as a column.
    text = text.removeprefix("\ufeff")
    for match in Reader.NON_PRINTABLE.finditer(text):
        before = text[: match.start()]
        place = Place(before.count("\n") + 1, match.start() - before.rfind("\n"))
        mistakes.add(place, (), f"character U+{ord(match[0]):04X} is not allowed in YAML", "remove it")
    return None if mistakes.found else text


def _add_syntax_error(text: str, error: yaml.MarkedYAMLError, mistakes: Mistakes) -> None:
    problem = error.problem or "not YAML"
    mark = error.problem_mark or error.context_mark
    place = place_of(mark)
    if "'\\t'" in problem:
        _add_tabs(text, place, mistakes)
        return
    hint = next((hint for words, hint in _SYNTAX_HINTS.items() if words in problem), "")
    if "but found another document" in problem:
        context, problem = None, "a second document begins here"
    else:
        context = error.context
    mistakes.add(place, (), f"not valid YAML: {context + ': ' if context else ''}{problem}", hint)


def _add_tabs(text: str, place: Place, mistakes: Mistakes) -> None:
    """Report the tab that stopped the reading and each line after it that is indented with one."""
    lines = _LINE_BREAK.split(text)
    is_indentation = not lines[place.line - 1][: place.column - 1].strip(" ")
    mistakes.add(
        place,
        (),
        "tab used for indentation" if is_indentation else "tab between words",
        "YAML is indented with spaces" if is_indentation else "use a space",
    )
    for number, line in enumerate(lines[place.line :], start=place.line + 1):
        match = re.match(r" *\t\s*(?=[^\s#])", line)
        if match is not None:
            mistakes.add(
                Place(number, line.index("\t") + 1), (), "tab used for indentation", "YAML is indented with spaces"
            )


def _check_tags(root: yaml.Node, mistakes: Mistakes) -> None:
    """Report each tag that asks for anything but text, numbers, lists and mappings; each node once."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if is_refused(node):
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            mistakes.add(
                place_of(node.start_mark), (), f"tag {shown(tag)} is not allowed", "a profile is data: remove the tag"
            )
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                waiting += (key, value)

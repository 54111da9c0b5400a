"""DECIDES what a single YAML word means for a setting, and what to write where it means nothing.

YAML 1.1, which PyYAML reads, takes `on` for true, `010` for 8 and `1:30` for 90; YAML 1.2, which editors read, does
not. So a value is taken only where both agree, and otherwise the message says what was read and what to write.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from msgspec import inspect

from clusterd.core.model.profile import SIZE_PATTERN
from clusterd.profile.mistakes import nearest, shown

if TYPE_CHECKING:
    from clusterd.profile.settings import Shape

__all__ = ["Wrong", "read_scalar", "read_text", "size_text", "what_is"]

_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"[-+]?[0-9]{1,18}(\.[0-9]{0,18})?([eE][-+]?[0-9]{1,3})?")
_WITH_UNIT = re.compile(r"([0-9]{1,9}) ?(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?)")
_SIZE = re.compile(SIZE_PATTERN)
_POWERS = {"B": 0, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4}
# Control characters have no use in any setting, end up in terminals and logs, and NUL ends an argv or environment
# string; a lone surrogate cannot be encoded.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

_KINDS: dict[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.FloatType: "a number of seconds",
    inspect.ListType: "a list",
    inspect.DictType: "a mapping",
}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Wrong(NamedTuple):
    """Why a word is not taken; `message` continues the name of the setting."""

    message: str
    hint: str = ""


def what_is(node: yaml.Node) -> str:
    """Return what a reader of YAML 1.1 sees in a node, for `expected ..., found ...`."""
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if not isinstance(node, yaml.ScalarNode):
        return "a mapping"
    kind = node.tag.rpartition(":")[2]
    word = shown(node.value)
    if kind == "null":
        return f"nothing ({node.value})" if node.value else "nothing"
    words = {"int": "the number", "float": "the number", "bool": "the boolean", "timestamp": "the date"}
    if kind in words:
        return f"{words[kind]} {word[1:-1]}"
    return f"the text {word}"


def read_scalar(node: yaml.ScalarNode, shape: Shape) -> Any:
    """Return the value of a word for a setting, or `Wrong`."""
    kind = shape.type
    if node.tag == "tag:yaml.org,2002:null":
        return None if shape.is_nullable else Wrong(f"expected {_wanted(kind, shape)}, found {what_is(node)}")
    if isinstance(kind, inspect.StrType):
        return read_text(node, shape)
    if isinstance(kind, inspect.BoolType):
        return _read_bool(node)
    if isinstance(kind, inspect.LiteralType):
        return _read_word(node, kind, shape)
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return _read_number(node, kind, shape)
    return Wrong(f"expected {_wanted(kind, shape)}, found {what_is(node)}", _collection_hint(node, kind))


def read_text(node: yaml.ScalarNode, shape: Shape) -> str | Wrong:
    """Return the text of a word where text is wanted, or `Wrong`."""
    kind = shape.type
    text: str = node.value
    if node.tag != "tag:yaml.org,2002:str":
        return _not_text(node, shape)
    unfit = _UNFIT.search(text)
    if unfit is not None:
        return Wrong(f"the character U+{ord(unfit[0]):04X} is not allowed")
    if isinstance(kind, inspect.StrType):
        if kind.min_length is not None and len(text) < kind.min_length:
            return Wrong("must not be empty", "remove the line to have the default")
        if kind.max_length is not None and len(text) > kind.max_length:
            return Wrong(f"has {len(text)} characters; at most {kind.max_length} are allowed")
        # fullmatch: `$` would let a line break at the end through.
        if kind.pattern is not None and not re.fullmatch(kind.pattern, text):
            return Wrong(f"{shown(text)} is not {shape.extra['form']}")
    return text


def _not_text(node: yaml.ScalarNode, shape: Shape) -> Wrong:
    """Say what YAML makes of a word that was probably meant as text."""
    kind = shape.type
    text: str = node.value
    found = what_is(node)
    number = _yaml_number(text) if node.tag.endswith((":int", ":float")) else None
    if number is not None and _plain(number) != text:
        found = f"{text}, which YAML reads as the number {_plain(number)}"
    elif node.tag.endswith(":bool") and text.lower() not in ("true", "false"):
        found = f"{text}, which YAML reads as {str(text.lower() in ('yes', 'on')).lower()}"
    pattern = kind.pattern if isinstance(kind, inspect.StrType) else None
    # No quotes help where the text would be refused for its form.
    is_taken = len(text) <= 40 and (pattern is None or re.fullmatch(pattern, text))
    return Wrong(f"expected {_wanted(kind, shape)}, found {found}", f'write "{text}" in quotes' if is_taken else "")


def _read_bool(node: yaml.ScalarNode) -> bool | Wrong:
    text = node.value.lower()
    if node.tag == "tag:yaml.org,2002:bool" and text in ("true", "false"):
        return bool(text == "true")
    words = {"yes": "true", "on": "true", "1": "true", "no": "false", "off": "false", "0": "false"}
    hints = {word: f"write {meant}" for word, meant in words.items()} | dict.fromkeys(
        ("true", "false"), "remove the quotes"
    )
    return Wrong(f"expected true or false, found {shown(node.value)}", hints.get(text, ""))


def _read_word(node: yaml.ScalarNode, kind: inspect.LiteralType, shape: Shape) -> Any:
    text: str = node.value
    valid = {str(value): value for value in kind.values}
    if all(isinstance(value, int) for value in valid.values()):
        if node.tag == "tag:yaml.org,2002:int" and text in valid:
            return valid[text]
        known = ", ".join(valid)
        hint = "remove the quotes" if text in valid else f"this clusterd knows: {known}"
        return Wrong(f"expected {known}, found {what_is(node)}", hint)
    # As written: `on` and `off`, which YAML 1.1 takes for booleans and YAML 1.2 for text, can mean nothing else here.
    if text in valid:
        return valid[text]
    if text in shape.extra.get("later", ()):
        return Wrong(f"{shown(text)} is not in this version of clusterd", f"it has: {', '.join(valid)}")
    switch = {"true": "on", "yes": "on", "false": "off", "no": "off"}.get(text.lower(), "")
    near = switch if switch in valid else nearest(text, valid)
    return Wrong(
        f"expected {_wanted(kind, shape)}, found {shown(text)}",
        f"did you mean '{near}'?" if near else "",
    )


def _read_number(node: yaml.ScalarNode, kind: inspect.IntType | inspect.FloatType, shape: Shape) -> Any:
    text: str = node.value
    is_float = isinstance(kind, inspect.FloatType)
    is_size = shape.extra.get("unit") == "bytes"
    wanted = _wanted(kind, shape)
    value: float
    if node.tag == "tag:yaml.org,2002:int" and _DECIMAL.fullmatch(text):
        value = float(text) if is_float else int(text)
    elif is_float and node.tag == "tag:yaml.org,2002:float" and _NUMBER.fullmatch(text):
        value = float(text)
    elif is_size and node.tag == "tag:yaml.org,2002:str" and _SIZE.fullmatch(text):
        digits, unit = re.fullmatch(r"([0-9]+) ?(\w+)", text).groups()  # type: ignore[union-attr]
        # `4G` is what systemd and Slurm take for 4 GiB.
        value = int(digits) * 1024 ** _POWERS[unit if unit.endswith("B") else f"{unit}iB"]
    else:
        return Wrong(f"expected {wanted}, found {what_is(node)}", _number_hint(node, is_float=is_float))
    say = size_text if is_size else _plain
    if kind.ge is not None and value < kind.ge:
        return Wrong(f"must be at least {say(kind.ge)}, found {text}")
    if kind.gt is not None and value <= kind.gt:
        return Wrong(f"must be more than {say(kind.gt)}, found {text}")
    if kind.le is not None and value > kind.le:
        return Wrong(f"must be at most {say(kind.le)}, found {text}")
    return value


def size_text(size: float) -> str:
    """Return a number of bytes as a profile has it: `64 MiB`."""
    power = max(power for power in _POWERS.values() if power == 0 or (size and size % 1024**power == 0))
    unit = next(unit for unit in _POWERS if _POWERS[unit] == power)
    return f"{int(size) // 1024**power} {unit}"


def _number_hint(node: yaml.ScalarNode, *, is_float: bool) -> str:
    text: str = node.value
    if node.style in ("'", '"') and _DECIMAL.fullmatch(text):
        return "remove the quotes"
    unit = _WITH_UNIT.fullmatch(text)
    if unit is not None and is_float:
        return f"seconds have no unit: write {int(unit[1]) * _SECONDS[unit[2][0]]}"
    number = _yaml_number(text)
    if number is None or not (is_float or float(number).is_integer()):
        return ""
    return f"write {_plain(number if is_float else int(number))}"


def _yaml_number(text: str) -> float | None:
    """Return what YAML 1.1 takes a word for, None when it is no finite number of a sensible length."""
    if len(text) > 40:
        return None
    plain = text.replace("_", "")
    sign = -1 if plain.startswith("-") else 1
    digits = plain.lstrip("+-")
    try:
        if ":" in digits:  # sexagesimal: 1:30 is 90
            total = 0.0
            for part in digits.split(":"):
                total = total * 60 + float(part)
            value: float = total
        elif re.fullmatch(r"0[xb][0-9a-fA-F]+", digits):
            value = int(digits[2:], 16 if digits[1] == "x" else 2)
        elif re.fullmatch(r"0[0-7]+", digits):
            value = int(digits, 8)
        else:
            value = float(digits)
    except (ValueError, OverflowError):
        return None
    return sign * value if math.isfinite(value) and abs(value) < 1e15 else None


def _plain(number: float) -> str:
    """Return a number the way both versions of YAML, and people, write it."""
    return str(int(number)) if float(number).is_integer() and abs(number) < 1e15 else str(number)


def _wanted(kind: inspect.Type, shape: Shape) -> str:
    if isinstance(kind, inspect.IntType):
        return "a size such as 64 MiB" if shape.extra.get("unit") == "bytes" else "a whole number"
    if isinstance(kind, inspect.StrType):
        return str(shape.extra.get("form", "text"))
    if isinstance(kind, inspect.LiteralType):
        *others, last = map(str, kind.values)
        return f"{', '.join(others)} or {last}" if others else last
    return _KINDS[type(kind)]


def _collection_hint(node: yaml.ScalarNode, kind: inspect.Type) -> str:
    if isinstance(kind, inspect.ListType) and re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", node.value):
        return f"write [{node.value}]"
    return ""

"""RENDERS job templates as sites have them: `{n}`, `{profile_dir}`, `{queue}`, `{n//4}`, `{min(n, 64)}`; `{{` is a brace.

Written for the templates of ipyparallel, which mean the same here; what those took from eval is refused by name, line and
column, all mistakes of a template at once. The text around the fields is never touched. Pure: no file, no environment.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from clusterd.errors import ProfileError
from clusterd.launchers.expression import Expression, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterd.launchers.arithmetic import Value

__all__ = ["InvalidTemplate", "Template", "TemplateMistake"]

MAX_LENGTH: Final = 1024 * 1024
"""Characters of a template, and of what is rendered: job scripts have a few kB; Slurm refuses more than 4 MB."""
_LIMIT: Final = 100
# Not splitlines(): a form feed is no new line to an editor.
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
# `{n:04d}`: ipyparallel's had all formats of Python; a width is what sites use it for.
_FORMAT: Final = re.compile(r"0?[0-9]{0,3}[ds]?")


class TemplateMistake(NamedTuple):
    """One thing that is wrong, and where; line and column count from 1, columns in characters."""

    line: int
    column: int
    message: str
    hint: str = ""

    def rendered(self, source: str) -> str:
        """Return `SOURCE:LINE:COLUMN: message (hint)`."""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{source}:{self.line}:{self.column}: {self.message}{hint}"


class InvalidTemplate(ProfileError):
    """A template cannot be rendered.

    Attributes:
        source: the file or setting, as it is named in messages.
        mistakes: all of them (the first hundred), in the order of the text.
    """

    def __init__(self, source: str, mistakes: list[TemplateMistake]) -> None:
        self.source = source
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(mistake.rendered(source) for mistake in mistakes))


class _Field(NamedTuple):
    """One `{...}`; `line` and `column` are those of the expression's first character."""

    expression: Expression
    format: str
    line: int
    column: int


class Template:
    """A template, checked.

    Args:
        text: the template.
        source: what to call it in messages: the file's name.

    Raises:
        InvalidTemplate: with all mistakes that can be seen without values.
    """

    def __init__(self, text: str, source: str = "template") -> None:
        self.source = source
        mistakes: list[TemplateMistake] = []
        if len(text) > MAX_LENGTH:
            raise InvalidTemplate(source, [TemplateMistake(1, 1, f"longer than {MAX_LENGTH} characters")])
        self._parts = list(_parts(text, mistakes))
        if mistakes:
            raise InvalidTemplate(source, mistakes[:_LIMIT])

    @property
    def names(self) -> frozenset[str]:
        """The settings that it asks for."""
        return frozenset().union(*(part.expression.names for part in self._parts if isinstance(part, _Field)))

    def render(self, values: Mapping[str, Value]) -> str:
        """Return the text.

        Args:
            values: of the settings by name. None is one that is not set: it may be tested, not printed.

        Raises:
            InvalidTemplate: with all fields that have no value.
        """
        texts: list[str] = []
        mistakes: list[TemplateMistake] = []
        length = 0
        for part in self._parts:
            if isinstance(part, str):
                text = part
            else:
                try:
                    text = _formatted(part.expression.evaluate(values), part.format)
                except Refused as refused:
                    mistakes.append(_mistake(part.line, part.column, refused))
                    if len(mistakes) >= _LIMIT:
                        break
                    continue
                if length + len(text) > MAX_LENGTH:
                    mistakes.append(TemplateMistake(part.line, part.column, f"more than {MAX_LENGTH} characters"))
                    break
            texts.append(text)
            length += len(text)
        if mistakes:
            raise InvalidTemplate(self.source, mistakes)
        return "".join(texts)


def _formatted(value: Value, form: str) -> str:
    if value is None:
        raise Refused(0, "this is not set", "set it in the profile, or write a default: {queue or 'batch'}")
    if isinstance(value, float) and value.is_integer():
        # `nodes={n/4}` was a whole number when these templates were written, and a scheduler takes no 4.0.
        value = int(value)
    try:
        return format(value, form)
    except ValueError:
        raise Refused(0, f"{value!r} cannot be written as `{form}`") from None


def _mistake(line: int, column: int, refused: Refused) -> TemplateMistake:
    return TemplateMistake(line, column + refused.column, refused.message, refused.hint)


def _parts(text: str, mistakes: list[TemplateMistake]) -> Iterator[str | _Field]:
    """Yield texts and fields in turn, each mistake noted; a line with a mistake is left at its field's end."""
    for number, line in enumerate(_LINE.findall(text), 1):
        position = 0
        while (brace := _next_brace(line, position)) >= 0:
            if brace > position:
                yield line[position:brace]
            if line.startswith(("{{", "}}"), brace):
                yield line[brace]
                position = brace + 2
            elif line[brace] == "}":
                mistakes.append(TemplateMistake(number, brace + 1, "a single }", "write }} for a brace"))
                position = brace + 1
            else:
                end, colon = _end_of_field(line, brace + 1)
                if end < 0:
                    hint = "write {{ for a brace; a field ends on its line"
                    mistakes.append(TemplateMistake(number, brace + 1, "a { that is not closed", hint))
                    position = len(line)
                    break
                if (field := _field(line, brace + 1, end, colon, number, mistakes)) is not None:
                    yield field
                position = end + 1
        if position < len(line):
            yield line[position:]
        if len(mistakes) >= _LIMIT:
            return


def _next_brace(line: str, start: int) -> int:
    found = [place for place in (line.find("{", start), line.find("}", start)) if place >= 0]
    return min(found, default=-1)


def _end_of_field(line: str, start: int) -> tuple[int, int]:
    """Return where the closing brace stands and where the format begins (its colon), -1 for what is not there."""
    quote = ""
    colon = -1
    for place in range(start, len(line)):
        character = line[place]
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "}":
            return place, colon
        elif character == ":" and colon < 0:
            colon = place
    return -1, -1


def _field(line: str, start: int, end: int, colon: int, number: int, mistakes: list[TemplateMistake]) -> _Field | None:
    stop = end if colon < 0 else colon
    form = "" if colon < 0 else line[colon + 1 : end]
    if not line[start:stop].strip():
        mistakes.append(TemplateMistake(number, start, "an empty field", "write {{}} for braces"))
        return None
    if not _FORMAT.fullmatch(form):
        hint = "a width, such as {n:4} or {n:04d}; a shell's ${VAR:-x} is written ${{VAR:-x}}"
        mistakes.append(TemplateMistake(number, colon + 2, f"`{form[:40]}` is no format", hint))
        return None
    try:
        return _Field(Expression(line[start:stop]), form, number, start + 1)
    except Refused as refused:
        mistakes.append(_mistake(number, start + 1, refused))
        return None

r"""Writes what the manual pages say of the code: `python packaging/generate.py`, after commands, settings or exit codes changed.

A page is written by hand, except for regions between `.\" begin NAME` and `.\" end NAME`: those are made from clusterctl's commands,
the table of exit codes and the model of profiles. `tests/unit/docs` fails when a region is not what it would be made to now.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import inspect

from clusterctl import exit_codes
from clusterctl.main import VERBS, cli
from clusterd.core.model.profile import Profile
from clusterd.profile.output import as_yaml
from clusterd.profile.settings import settings_of
from clusterd.profile.values import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import msgspec

    from clusterd.profile.settings import Setting

MANUAL = Path(__file__).parent / "man"
_APPLIES = {
    "live": "",
    "set": "A change is for engines that start after it.",
    "controller": "A change needs a restart of the controller.",
    "daemon": "A change needs a restart of the daemon.",
}


def pages() -> dict[Path, str]:
    """Return every manual page as it should be."""
    return {path: page(path.read_text(encoding="utf-8")) for path in sorted(MANUAL.glob("*.[1-9]"))}


def page(text: str) -> str:
    """Return a page with its regions made anew."""
    region = re.compile(
        r'^\.\\" begin (?P<name>[a-z-]+)\n(?P<body>.*?)^\.\\" end (?P=name)\n', re.MULTILINE | re.DOTALL
    )

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        body = "".join(f"{line}\n" for line in _REGIONS[name]())
        return f'.\\" begin {name}\n{body}.\\" end {name}\n'

    return region.sub(fill, text)


# --- text as roff ---


def plain(text: str) -> str:
    """Return text in which nothing means anything to roff; words in backquotes become bold."""
    parts = text.split("`")
    escaped = [_escape(part, is_literal=index % 2 == 1) for index, part in enumerate(parts)]
    line = "".join(f"\\fB{part}\\fR" if index % 2 else part for index, part in enumerate(escaped))
    return f"\\&{line}" if line[:1] in {".", "'"} else line


def _escape(text: str, *, is_literal: bool) -> str:
    text = text.replace("\\", "\\e")
    # A minus that people copy into a terminal must stay one; a hyphen within a word may be any.
    pattern = "-" if is_literal else r"(?<![A-Za-z])-|-(?=[-\d])"
    return re.sub(pattern, r"\\-", text)


def _sentences(text: str) -> Iterator[str]:
    # man(7): a new sentence begins a new line, so that roff sets its space.
    for sentence in re.split(r"(?<=[.]) (?=[A-Z`])", " ".join(text.split())):
        yield plain(sentence)


# --- clusterctl(1) ---


def commands() -> Iterator[str]:
    """Yield the section on every command of clusterctl."""
    root = click.Context(cli, info_name="clusterctl")
    for verb in VERBS:
        command = cli.get_command(root, verb)
        assert command is not None  # noqa: S101 - VERBS is what get_command reads
        yield from _command(click.Context(command, info_name=verb, parent=root))


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    if isinstance(command, click.Group) and not command.invoke_without_command:
        for name in command.list_commands(context):
            yield from _command(_child(command, context, name))
        return
    words = context.command_path.split()[1:]
    arguments = [
        parameter.make_metavar(context) for parameter in command.params if isinstance(parameter, click.Argument)
    ]
    usage = " ".join([*(f"\\fB{word}\\fR" for word in words), *map(_metavar, arguments)])
    yield f".SS {usage}"
    for index, paragraph in enumerate(re.split(r"\n\s*\n", command.help or "")):
        if paragraph.strip():
            if index:
                yield ".PP"
            yield from _sentences(paragraph)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield from _option(parameter, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from _command(_child(command, context, name))


def _child(group: click.Group, context: click.Context, name: str) -> click.Context:
    command = group.get_command(context, name)
    assert command is not None  # noqa: S101 - it was listed
    return click.Context(command, info_name=name, parent=context)


def _metavar(text: str) -> str:
    return re.sub(r"[A-Za-z]+", lambda match: f"\\fI{match[0]}\\fR", text)


def _option(option: click.Option, context: click.Context) -> Iterator[str]:
    names = [name.replace("-", "\\-") for name in [*option.opts, *option.secondary_opts]]
    value = "" if option.is_flag else f" \\fI{option.make_metavar(context)}\\fR"
    yield ".TP"
    yield ", ".join(f"\\fB{name}\\fR" for name in names) + value
    text = option.help or ""
    if option.show_default and option.default is not None:
        default = f"{option.default:g}" if isinstance(option.default, float) else str(option.default)
        text += f" Default: {default}."
    yield from _sentences(text)


def exit_status() -> Iterator[str]:
    """Yield the table of exit codes."""
    for number, meaning in exit_codes.MEANINGS.items():
        yield from (".TP", f"\\fB{number}\\fR", *_sentences(meaning))


# --- clusterd-profile(5) ---


def settings() -> Iterator[str]:
    """Yield every setting there is."""
    yield from _section(Profile, "")


def _section(section: type[msgspec.Struct], path: str) -> Iterator[str]:
    inner: list[tuple[type[msgspec.Struct], str]] = []
    for name, setting in settings_of(section).items():
        below = setting.section or setting.named_sections
        if below is not None:
            inner.append((below, f"{path}{name}." if setting.named_sections is None else f"{path}{name}.NAME."))
            continue
        yield from (".TP", f"\\fB{name}\\fR: {_kind(setting)}")
        yield from _sentences(setting.shape.description)
        yield from _notes(setting)
    for below, prefix in inner:
        yield f".SS {plain(prefix.removesuffix('.'))}"
        yield from _sentences(below.__doc__ or "")
        yield from _section(below, prefix)


def _kind(setting: Setting) -> str:
    kind, is_bytes = setting.shape.type, setting.shape.extra["unit"] == "bytes"
    words = {
        inspect.BoolType: "true or false",
        inspect.FloatType: "seconds",
        inspect.IntType: "size" if is_bytes else "number",
        inspect.StrType: "text",
        inspect.ListType: "list of texts",
        inspect.DictType: "mapping of names to texts",
    }
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(f"\\fB{value}\\fR" for value in kind.values)
    return f"{words[type(kind)]}{_bounds(kind, is_bytes=is_bytes)}"


def _bounds(kind: inspect.Type, *, is_bytes: bool) -> str:
    if not isinstance(kind, inspect.IntType | inspect.FloatType):
        return ""
    shown: Callable[[float], str] = (
        (lambda number: size_text(int(number))) if is_bytes else (lambda number: f"{number:g}")
    )
    low = f"above {shown(kind.gt)}" if kind.gt is not None else "" if kind.ge is None else f"from {shown(kind.ge)}"
    high = "" if kind.le is None else f"to {int(kind.le) if not is_bytes else shown(kind.le)}"
    return ", " + " ".join(filter(None, (low, high))) if low or high else ""


def _notes(setting: Setting) -> Iterator[str]:
    if setting.is_required:
        yield "It must be there."
    else:
        default = setting.default
        text = (
            size_text(default) if setting.shape.extra["unit"] == "bytes" and default is not None else as_yaml(default)
        )
        yield f"Default: {plain(f'`{text}`')}."
    example = setting.shape.extra["example"]
    if example is not None and example != setting.default:
        yield f"Example: {plain(f'`{as_yaml(example)}`')}."
    if applies := _APPLIES[setting.applies]:
        yield applies


_REGIONS: dict[str, Callable[[], Iterator[str]]] = {
    "commands": commands,
    "exit-status": exit_status,
    "settings": settings,
}


def main() -> int:
    """Write the pages that are not as they should be."""
    for path, text in pages().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

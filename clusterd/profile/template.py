"""A first file: every setting with its explanation, commented out where it has its default.

`# ` explains, a bare `#` before a name is a setting that is commented out: taking all of those away gives a profile
that means the same. What the profile it is made from sets differently stands there live. An existing file is never
replaced: it is written beside and linked into place, which fails when the name is taken.
"""

from __future__ import annotations

import os
import secrets
import textwrap
from typing import TYPE_CHECKING, Any

from msgspec import inspect

from clusterd.core.model.profile import DEFAULT_ENGINE_SET, EngineSet, Profile
from clusterd.errors import ProfileError
from clusterd.profile.lookup import check_name, find, writable_directory
from clusterd.profile.output import as_yaml
from clusterd.profile.reading import parse, read_bytes, with_absolute_scripts
from clusterd.profile.settings import Setting, settings_of
from clusterd.profile.values import size_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import msgspec

__all__ = ["create", "template"]

_WIDTH = 118


def create(name: str, base: str, *, is_privileged: bool = False, environ: Mapping[str, str] | None = None) -> Path:
    """Write a new profile and return its file.

    Args:
        name: of the new profile.
        base: name of the profile whose values it begins with.
        is_privileged: for a daemon that runs as root: it goes to /etc.
        environ: instead of os.environ.

    Raises:
        ProfileError: a name is no good, `base` cannot be used, or the file exists.
    """
    check_name(name)
    source = find(base, is_privileged=is_privileged, environ=environ)
    profile = parse(read_bytes(source, is_privileged=is_privileged), str(source))
    text = template(with_absolute_scripts(profile, source.parent.absolute()), name=name, base=base)
    directory = writable_directory(is_privileged=is_privileged, environ=environ)
    path = directory / f"{name}.yaml"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        _write_new(path, text)
    except FileExistsError:
        hint = f"edit it, choose another name, or remove it first: rm {path}"
        raise ProfileError(f"{path} exists, and is not replaced", hint=hint) from None
    except OSError as error:
        raise ProfileError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def template(profile: Profile, *, name: str, base: str) -> str:
    """Return the text of a profile that means the same as `profile` and shows every setting."""
    head = (
        f"# Profile {name}, made from {base}.",
        "#",
        "# Every setting there is. One with a # right before it has the default that is shown: take the # away to",
        "# change it. Seconds are numbers; sizes are bytes or, for example, 64 MiB.",
        f"# After a change: clusterctl profile check {name}; clusterctl -p {name} reload",
        "",
    )
    lines = [*head, *_section(profile, "")]
    return "\n".join(lines) + "\n"


def _section(section: msgspec.Struct, indent: str) -> Iterator[str]:
    for name, setting in settings_of(type(section)).items():
        value = getattr(section, name)
        if setting.named_sections is not None:
            yield from _engine_sets(setting, value, indent)
            continue
        yield from _explained(setting, indent)
        if setting.section is not None:
            # Live, although it may hold nothing but comments: a line within is uncommented alone.
            yield f"{indent}{name}:"
            yield from _section(value, indent + "  ")
            continue
        is_live = setting.is_required or value != setting.default
        yield f"{indent}{'' if is_live else '#'}{name}: {_written(setting, value)}"
        if indent == "":
            yield ""


def _engine_sets(setting: Setting, sets: Mapping[str, EngineSet], indent: str) -> Iterator[str]:
    yield ""
    yield from _explained(setting, indent)
    yield f"{indent}{setting.name}:"
    for name, engine_set in (sets or {DEFAULT_ENGINE_SET: EngineSet(n=0)}).items():
        yield f"{indent}  {as_yaml(name)}:"
        yield from _section(engine_set, indent + "    ")


def _explained(setting: Setting, indent: str) -> Iterator[str]:
    text = setting.shape.description
    kind = setting.shape.type
    if isinstance(kind, inspect.LiteralType) and len(kind.values) > 1:
        text += f" One of: {', '.join(map(str, kind.values))}."
    example = setting.shape.extra["example"]
    if example is not None and not setting.is_required:
        text += f" Example: {as_yaml(example)}"
    for line in textwrap.wrap(text, _WIDTH - len(indent) - 2, break_long_words=False, break_on_hyphens=False):
        yield f"{indent}# {line}"


def _written(setting: Setting, value: Any) -> str:
    if setting.shape.extra["unit"] == "bytes" and value is not None:
        return size_text(value)
    return as_yaml(value)


def _write_new(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
            file.flush()
            os.fsync(file.fileno())
        # link, unlike rename, refuses a name that is taken.
        os.link(temporary, path)
    finally:
        temporary.unlink()

"""`clusterctl profile`: list, show, check, create profiles, and print their schema.

Works on files, without a daemon. The only module of clusterctl that may import clusterd.profile (and, inside of
functions, with it PyYAML). Reports a wrong profile itself: its lines begin with FILE:LINE:COLUMN, for editors.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clusterctl import exit_codes
from clusterctl.options import as_json
from clusterd.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterd.core.model.profile import Profile

__all__ = ["profile"]

# Version of the shapes that --json prints; raised when one of them loses or changes something.
_JSON_VERSION = 1


def _is_privileged() -> bool:
    """Root sees, and creates, the profiles that a daemon started by it would read."""
    return os.geteuid() == 0


def _print_json(**values: Any) -> None:
    click.echo(json.dumps({"version": _JSON_VERSION, **values}, indent=2, ensure_ascii=False))


def _problem(error: ProfileError) -> dict[str, Any]:
    """Return an error for --json; `mistakes` is empty when the file could not be read at all."""
    mistakes = getattr(error, "mistakes", ())
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "mistakes": [mistake._asdict() for mistake in mistakes],
    }


@contextlib.contextmanager
def _reported(*, is_json: bool) -> Iterator[None]:
    """Turn an error of a profile into text, or JSON, and its exit code."""
    try:
        yield
    except ProfileError as error:
        if is_json:
            _print_json(error=_problem(error))
        else:
            click.echo(str(error), err=True)
        raise click.exceptions.Exit(exit_codes.of(error.code)) from None


def _default_name(context: click.Context) -> str:
    """Return what -p, then CLUSTERD_PROFILE, then the rule says: without a name the profile is `default`."""
    chosen = context.find_root().params.get("profile")
    return chosen or os.environ.get("CLUSTERD_PROFILE") or "default"


@click.group()
def profile() -> None:
    """List, show, check and create profiles."""


@profile.command("list")
@as_json
def list_(*, is_json: bool) -> None:
    """List the profiles that can be started, and the files they are in."""
    from clusterd.profile import listing  # noqa: PLC0415 - PyYAML

    found = listing(is_privileged=_is_privileged())
    if is_json:
        shown = [
            {
                "name": item.name,
                "path": str(item.path),
                "description": item.profile.description if item.profile else None,
                "error": _problem(item.error) if item.error else None,
            }
            for item in found
        ]
        _print_json(profiles=shown)
        return
    width = max((len(item.name) for item in found), default=0)
    for item in found:
        about = (
            item.profile.description if item.profile else "cannot be used, see: clusterctl profile check " + item.name
        )
        click.echo(f"{item.name:<{width}}  {about}\n{'':<{width}}  {item.path}")


@profile.command()
@click.argument("name", required=False)
@as_json
@click.pass_context
def show(context: click.Context, name: str | None, *, is_json: bool) -> None:
    """Print every setting of a profile as it is in effect: defaults filled in, paths expanded."""
    from clusterd.profile import as_builtins, effective_yaml, find, read  # noqa: PLC0415 - PyYAML

    with _reported(is_json=is_json):
        path = find(name or _default_name(context), is_privileged=_is_privileged())
        found = read(path, is_privileged=_is_privileged())
    if is_json:
        _print_json(path=str(path), profile=as_builtins(found))
    else:
        click.echo(f"# {path}\n{effective_yaml(found)}", nl=False)


@profile.command()
@click.argument("file")
@as_json
def check(file: str, *, is_json: bool) -> None:
    """Say everything that is wrong with FILE: a path, the name of a profile, or - for the standard input."""
    from clusterd.profile import doubts, unknown_names  # noqa: PLC0415 - PyYAML

    with _reported(is_json=is_json):
        source, found = _read_anything(file)
    name = Path(source).stem if file != "-" else "default"
    warnings = [*doubts(found, name), *unknown_names(found)]
    if is_json:
        _print_json(path=source, warnings=warnings)
        return
    for warning in warnings:
        click.echo(f"{source}: warning: {warning}", err=True)
    sets = ", ".join(f"{name} (n {engine_set.n})" for name, engine_set in found.engine_sets.items())
    click.echo(f"{source}: good: {sets}")


def _read_anything(file: str) -> tuple[str, Profile]:
    from clusterd.profile import expanded, find, home_of, parse, read  # noqa: PLC0415 - PyYAML

    if file == "-":
        source = "<stdin>"
        found = parse(sys.stdin.buffer.read(), source)
        return source, expanded(found, directory=Path.cwd(), home=home_of(found))
    path = Path(file)
    # A word without a dot or slash that is no file is a name: that is how every other command takes it.
    if not path.exists() and "/" not in file and not file.endswith((".yaml", ".yml")):
        path = find(file, is_privileged=_is_privileged())
        return str(path), read(path, is_privileged=_is_privileged())
    # A file on its way to /etc may belong to anybody yet.
    return str(path), read(path)


@profile.command()
def schema() -> None:
    """Print the JSON Schema of profiles, for editors."""
    from clusterd.profile import json_schema  # noqa: PLC0415 - PyYAML

    click.echo(json.dumps(json_schema(), indent=2))


@profile.command()
@click.argument("name")
@click.option("--from", "base", default="local", show_default=True, help="The profile whose values it begins with.")
@as_json
def create(name: str, base: str, *, is_json: bool) -> None:
    """Write a new profile that shows every setting, with its explanation and default. Never replaces a file."""
    from clusterd.profile import create as create_profile  # noqa: PLC0415 - PyYAML

    with _reported(is_json=is_json):
        path = create_profile(name, base, is_privileged=_is_privileged())
    if is_json:
        _print_json(path=str(path))
    else:
        click.echo(f"{path}\nedit it, then: clusterctl -p {name} start")

"""Prints what a verb found out: JSON in the API's shape when asked for, else the lines for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["print_answer", "print_object"]


def print_answer(content: dict[str, Any], lines: Iterable[str], *, is_json: bool) -> None:
    """Print `content` as one JSON object, or `lines`."""
    if is_json:
        print_object(content)
        return
    for line in lines:
        click.echo(line)


def print_object(content: dict[str, Any]) -> None:
    """Print one JSON object on one line, the version first."""
    click.echo(json.dumps({"version": 1, **content}))

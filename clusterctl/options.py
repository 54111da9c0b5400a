"""Options that several verbs share, each written once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["as_json", "planning", "request_timeout", "waiting"]

_F = TypeVar("_F", bound="Callable[..., Any]")


def as_json(function: _F) -> _F:
    """Add --json: one JSON object (one a line for what is followed) on stdout, errors too."""
    return click.option("--json", "is_json", is_flag=True, help="Answer as JSON, in a stable, versioned shape.")(
        function
    )


def planning(function: _F) -> _F:
    """Add --plan."""
    return click.option(
        "--plan",
        "is_plan",
        is_flag=True,
        help="Change nothing; print which engines and tasks would be touched, and whose they are.",
    )(function)


def waiting(default: float) -> Callable[[_F], _F]:
    """Add --wait/--no-wait and --timeout.

    Args:
        default: seconds.
    """

    def decorate(function: _F) -> _F:
        function = click.option(
            "--timeout",
            type=click.FloatRange(min=0),
            default=default,
            show_default=True,
            metavar="S",
            help="Seconds to wait for it to come true.",
        )(function)
        return click.option(
            "--wait/--no-wait", "is_waiting", default=True, help="Wait until it has come true (the default), or do not."
        )(function)

    return decorate


def request_timeout(function: _F) -> _F:
    """Add --timeout for a verb that only asks."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0.01),
        default=10.0,
        show_default=True,
        metavar="S",
        help="Seconds that the daemon has to answer.",
    )(function)

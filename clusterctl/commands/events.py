"""`clusterctl events`: what happened, in order, as the daemon saw it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from clusterctl.moments import Since
from clusterctl.options import as_json
from clusterctl.output.answer import print_object
from clusterctl.output.text import event_line

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["events"]


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as things happen, until Ctrl-C.")
@click.option(
    "--since",
    type=Since(),
    metavar="WHEN",
    help="Only later ones: 10m, 2h, 14:30, 2026-01-31, or the number of an event.",
)
@as_json
@click.pass_obj
def events(target: Target, *, follow: bool, since: float | None, is_json: bool) -> None:
    """Show what happened (the last few thousand events), also before the daemon was started anew."""
    is_number = isinstance(since, int)
    query = {"since": since or None} if is_number else {"after": since}
    for event in target.client().stream(f"{target.path}/events", follow=follow or None, **query):
        if is_json:
            print_object(event)
        else:
            click.echo(event_line(event))

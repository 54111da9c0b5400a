"""`clusterctl events`: what happened, in order, as the daemon saw it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from clusterctl.options import as_json
from clusterctl.output.answer import print_object
from clusterctl.output.text import event_line

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["events"]


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as things happen, until Ctrl-C.")
@click.option("--since", type=click.IntRange(min=0), default=0, metavar="SEQ", help="Only events after this number.")
@as_json
@click.pass_obj
def events(target: Target, *, follow: bool, since: int, is_json: bool) -> None:
    """Show what happened since the daemon started (the last thousand or so)."""
    for event in target.client().stream(f"{target.path}/events", follow=follow or None, since=since or None):
        if is_json:
            print_object(event)
        else:
            click.echo(event_line(event))

"""`clusterctl logs`: output of the processes, from the files that they hold themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from clusterctl.options import as_json
from clusterctl.output.answer import print_object

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["logs"]


@click.command()
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on as lines are written, until Ctrl-C.")
@click.option(
    "--tail", type=click.IntRange(min=0), default=20, show_default=True, metavar="N", help="Last lines of each."
)
@as_json
@click.pass_obj
def logs(target: Target, *, sources: tuple[str, ...], follow: bool, tail: int, is_json: bool) -> None:
    """Show logs: of everything, or of SOURCE, which is engines/3, SET, controller, daemon or agent."""
    stream = target.client().stream(
        f"{target.path}/logs", source=",".join(sources) or None, follow=follow or None, tail=tail
    )
    # A single engine, controller or daemon needs no name before each line.
    is_one = len(sources) == 1 and ("/" in sources[0] or sources[0] in {"controller", "daemon"})
    for item in stream:
        if is_json:
            print_object(item)
        else:
            click.echo(item["line"] if is_one else f"{item['source']}: {item['line']}")

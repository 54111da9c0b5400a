"""`clusterctl status`: what is wished, what is there, how old that knowledge is, and why the two differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from clusterctl.options import as_json, request_timeout
from clusterctl.output.answer import print_answer
from clusterctl.output.text import orphan_lines, status_lines

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["status"]


@click.command()
@click.option(
    "--orphans", "is_orphans", is_flag=True, help="List what runs and is unclaimed instead; `clusterctl gc` ends it."
)
@request_timeout
@as_json
@click.pass_obj
def status(target: Target, *, is_orphans: bool, timeout: float, is_json: bool) -> None:
    """Show the state of the cluster."""
    if is_orphans:
        found = target.client(timeout=timeout).get(f"{target.path}/orphans")
        print_answer(found, orphan_lines(found["orphans"]), is_json=is_json)
        return
    answer = target.client(timeout=timeout).get(target.path)
    print_answer(answer, [] if is_json else status_lines(answer), is_json=is_json)

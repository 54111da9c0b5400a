"""`clusterctl explain`: the story of one engine, set, agent or controller, and where it went wrong first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from clusterctl.options import as_json
from clusterctl.output.answer import print_answer
from clusterctl.output.stories import story_lines

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["explain"]


@click.command()
@click.argument("subject", metavar="WHAT")
@as_json
@click.pass_obj
def explain(target: Target, *, subject: str, is_json: bool) -> None:
    """Tell the story of WHAT, step by step, and name the first step that was not as it should be.

    WHAT is engines/3, 3 (slot 3 of the default set), id:7, a set, agent, agent/SET or controller.
    """
    answer = target.client().get(f"{target.path}/explain", subject=subject)
    print_answer(answer, [] if is_json else story_lines(answer), is_json=is_json)

"""`clusterctl resume SET [SLOT...]`: after the cause of a crash loop is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from clusterctl.options import as_json, waiting
from clusterctl.output.answer import print_answer
from clusterctl.output.text import status_lines
from clusterctl.waiting import wait_until_converged

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["resume"]


@click.command()
@click.argument("engine_set", metavar="SET", default="engines")
@click.argument("slots", metavar="[SLOT]...", type=click.IntRange(min=0), nargs=-1)
@waiting(60.0)
@as_json
@click.pass_obj
def resume(
    target: Target, *, engine_set: str, slots: tuple[int, ...], is_waiting: bool, timeout: float, is_json: bool
) -> None:
    """Try again what was given up in SET (or `controller`): all of it, or these slots."""
    body = {"slots": list(slots)} if slots else {}
    answer = target.client().post(f"{target.path}/sets/{engine_set}/resume", body)
    lines = [f"{engine_set}: trying again"]
    if is_waiting:
        answer = wait_until_converged(target, timeout=timeout, is_quiet=is_json)
        lines = status_lines(answer)
    print_answer(answer, lines, is_json=is_json)

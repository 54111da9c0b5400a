"""`clusterctl scale SET N`: the wish is recorded at once; with --wait it has come true when it returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from clusterctl.options import as_json, planning, waiting
from clusterctl.output.answer import print_answer
from clusterctl.output.plans import plan_lines
from clusterctl.output.text import set_line
from clusterctl.waiting import wait_until_converged

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["scale"]


@click.command()
@click.argument("engine_set", metavar="SET")
@click.argument("count", metavar="N", type=click.IntRange(min=0))
@click.option(
    "--drain-timeout",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Seconds for tasks on engines that go; by default what the profile says.",
)
@planning
@waiting(120.0)
@as_json
@click.pass_obj
def scale(
    target: Target,
    *,
    engine_set: str,
    count: int,
    drain_timeout: float | None,
    is_plan: bool,
    is_waiting: bool,
    timeout: float,
    is_json: bool,
) -> None:
    """Set the number of engines of SET to N. Idle and youngest engines go first."""
    body = {"n": count, "drain_timeout": drain_timeout, "plan": is_plan}
    answer = target.client().put(f"{target.path}/sets/{engine_set}", body)
    if is_plan:
        print_answer(answer, [] if is_json else plan_lines(answer), is_json=is_json)
        return
    lines = [f"{engine_set}: {count} wished"]
    if is_waiting:
        answer = wait_until_converged(target, timeout=timeout, is_quiet=is_json)
        entry = answer["engine_sets"][engine_set]
        lines = [f"{engine_set}: {entry['observed']} of {entry['desired']}; {set_line(entry)}"]
    print_answer(answer, lines, is_json=is_json)

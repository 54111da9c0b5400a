"""`clusterctl drain TARGET...`: what engines run ends as usual, then they go."""

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

__all__ = ["drain"]


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option("--replace", "is_replaced", is_flag=True, help="Start a new engine in the place of each.")
@click.option(
    "--drain-timeout",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Seconds for what they run; by default what the profile says.",
)
@planning
@waiting(120.0)
@as_json
@click.pass_obj
def drain(
    target: Target,
    *,
    targets: tuple[str, ...],
    is_replaced: bool,
    drain_timeout: float | None,
    is_plan: bool,
    is_waiting: bool,
    timeout: float,
    is_json: bool,
) -> None:
    """Give engines no new tasks; each ends when it has none left, and its set's number goes down by one.

    What waits for any engine goes elsewhere; what was sent to these alone is run before they go.

    TARGET is engines/3, SET (all of its engines), 3 (slot 3 of the default set), or id:7 (by the number that clients use).
    """
    body = {"targets": list(targets), "replace": is_replaced, "drain_timeout": drain_timeout, "plan": is_plan}
    answer = target.client().post(f"{target.path}/drain", body)
    if is_plan:
        print_answer(answer, [] if is_json else plan_lines(answer), is_json=is_json)
        return
    units = list(answer["touched"]["sets"])
    lines = [f"draining: {', '.join(targets)}"]
    if is_waiting:
        answer = {**wait_until_converged(target, timeout=timeout, is_quiet=is_json), "touched": answer["touched"]}
        sets = [(unit, answer["engine_sets"][unit]) for unit in units]
        lines = [f"{unit}: {entry['observed']} of {entry['desired']}; {set_line(entry)}" for unit, entry in sets]
    print_answer(answer, lines, is_json=is_json)

"""`clusterctl restart [WHAT]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from clusterctl.options import as_json, planning, waiting
from clusterctl.output.answer import print_answer
from clusterctl.output.plans import plan_lines
from clusterctl.output.text import status_lines
from clusterctl.waiting import wait_until_converged

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["restart"]


@click.command()
@click.argument("what", default="all")
@planning
@waiting(120.0)
@as_json
@click.pass_obj
def restart(target: Target, *, what: str, is_plan: bool, is_waiting: bool, timeout: float, is_json: bool) -> None:
    """Restart WHAT: `all` (the default), `controller`, or an engine set.

    With the controller alone, engines and clients stay and attach again. Engines that restart lose their namespaces.
    """
    answer = target.client().post(f"{target.path}/restart", {"what": what, "plan": is_plan})
    if is_plan:
        print_answer(answer, [] if is_json else plan_lines(answer), is_json=is_json)
        return
    lines = [f"{target.name}: restarting {what}"]
    if is_waiting:
        answer = wait_until_converged(target, timeout=timeout, is_quiet=is_json)
        lines = status_lines(answer)
    print_answer(answer, lines, is_json=is_json)

"""`clusterctl stop`: nothing runs when it returns, and of a daemon that `start` brought up nothing is left but its state."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import click

from clusterctl.options import as_json, planning, waiting
from clusterctl.output.answer import print_answer
from clusterctl.output.plans import plan_lines
from clusterctl.waiting import wait_until_converged
from clusterd.errors import NotConverged

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["stop"]


@click.command()
@click.option(
    "--kill-after",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Seconds before what has not ended is killed; by default what the profile says.",
)
@click.option(
    "--daemon/--no-daemon", "ends_daemon", default=None, help="End the daemon too; by default if `start` began it."
)
@planning
@waiting(60.0)
@as_json
@click.pass_obj
def stop(
    target: Target,
    *,
    kill_after: float | None,
    ends_daemon: bool | None,
    is_plan: bool,
    is_waiting: bool,
    timeout: float,
    is_json: bool,
) -> None:
    """Stop engines and controller. Running tasks are lost; the wish to run nothing is remembered."""
    client = target.client()
    if is_plan:
        answer = client.post(f"{target.path}/stop", {"daemon": ends_daemon, "plan": True})
        print_answer(answer, [] if is_json else plan_lines(answer), is_json=is_json)
        return
    client.get("/v1/version")
    # Opened before anything is asked for, so that the pid cannot have come to mean another process.
    daemon = os.pidfd_open(client.pid) if client.pid else -1
    try:
        answer = client.post(f"{target.path}/stop", {"timeout": kill_after, "daemon": ends_daemon})
        if not is_waiting:
            lines = [f"{target.name}: stopping"]
        elif answer["ends_daemon"]:
            _await_end(daemon, target.name, client.pid, timeout)
            lines = [f"{target.name}: stopped; its daemon has ended"]
        else:
            answer = {**wait_until_converged(target, timeout=timeout, is_quiet=is_json), "ends_daemon": False}
            lines = [f"{target.name}: stopped"]
    finally:
        if daemon >= 0:
            os.close(daemon)
    print_answer(answer, lines, is_json=is_json)


def _await_end(daemon: int, name: str, pid: int | None, timeout: float) -> None:
    poll = select.poll()
    poll.register(daemon, select.POLLIN)
    if not poll.poll(timeout * 1000):
        raise NotConverged(
            f"{name} has not ended within {timeout:g} s",
            hint=f"what is left: clusterctl -p {name} status; the daemon is process {pid}",
        )

"""`clusterctl start`: the cluster runs when it returns. A daemon is brought up where none serves the profile, and this is said."""

from __future__ import annotations

import time
from typing import Any

import click

from clusterctl.options import as_json, waiting
from clusterctl.output.answer import print_answer
from clusterctl.output.text import status_lines
from clusterctl.target import DEFAULT_PROFILE, Target
from clusterctl.waiting import wait_until_converged
from clusterd.errors import DaemonNotRunning, LockHeld

__all__ = ["start"]


@click.command()
@click.option("-n", "count", type=click.IntRange(min=0), metavar="N", help="Engines in the default set.")
@click.option("--no-spawn", is_flag=True, help="Refuse where no daemon serves the profile, instead of starting one.")
@waiting(60.0)
@as_json
@click.pass_obj
def start(
    target: Target, *, count: int | None, no_spawn: bool, is_waiting: bool, timeout: float, is_json: bool
) -> None:
    """Start the cluster.

    Without -p, and where no daemon runs and CLUSTERD_PROFILE is not set, this is the profile `default`.
    """
    if target.name_or_none is None:
        target = Target(DEFAULT_PROFILE)
    began = time.monotonic()
    answer, spawned = _command(target, count, no_spawn=no_spawn, timeout=timeout)
    if spawned is not None and not is_json:
        click.echo(f"no daemon served {target.name}: started one (process {spawned}); `clusterctl stop` ends it, too")
    if is_waiting:
        left = max(0.0, timeout - (time.monotonic() - began))
        answer = wait_until_converged(target, timeout=left, is_quiet=is_json)
        lines = status_lines(answer)
    else:
        lines = [f"{target.name}: starting"]
    print_answer({**answer, "spawned": spawned}, lines, is_json=is_json)


def _command(target: Target, count: int | None, *, no_spawn: bool, timeout: float) -> tuple[dict[str, Any], int | None]:
    """Return the daemon's answer, and its pid if it was started here."""
    client = target.client()
    body = {} if count is None else {"n": count}
    try:
        return client.post(f"{target.path}/start", body), None
    except DaemonNotRunning:
        if no_spawn:
            raise DaemonNotRunning(
                f"no daemon serves {target.name}, and --no-spawn forbids to start one",
                hint=f"systemctl start clusterd@{target.name}, or leave --no-spawn out",
            ) from None
    from clusterd.control.client.spawn import spawn_daemon  # noqa: PLC0415 - subprocess, only where it is needed

    arguments = ["--start", *([] if count is None else ["--engines", str(count)])]
    try:
        pid = spawn_daemon(target.name, arguments, timeout=timeout)
    except LockHeld:
        # Somebody else started one in the same moment: it is ours as well.
        _await_listener(target, timeout)
        return target.client().post(f"{target.path}/start", body), None
    return {"cluster": target.name}, pid


def _await_listener(target: Target, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not target.client().is_listening():
        if time.monotonic() >= deadline:
            raise DaemonNotRunning(
                f"the daemon of {target.name} is being started by somebody else, and does not listen"
            )
        time.sleep(0.02)  # the one place where nothing tells: the daemon is another's child

"""`clusterctl watch`: a view that moves on a terminal, a line for each change elsewhere. Ends with Ctrl-C or the daemon."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from clusterctl.options import as_json
from clusterctl.output.answer import print_object
from clusterctl.output.text import moment, status_lines, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterctl.target import Target

__all__ = ["watch"]


@click.command()
@as_json
@click.pass_obj
def watch(target: Target, *, is_json: bool) -> None:
    """Follow the state of the cluster."""
    if is_json or not sys.stdout.isatty():
        _lines(target, is_json=is_json)
    else:
        _live(target)


def _statuses(target: Target, patience: float) -> Iterator[dict[str, Any]]:
    """Yield the status now, then whenever something happened, or after `patience` seconds."""
    client = target.client()
    status = client.get(target.path)
    while True:
        yield status
        query = f"?wait=change&since={status['seq']}&timeout={patience:g}"
        status = client.get(target.path + query, timeout=patience + client.timeout)


def _lines(target: Target, *, is_json: bool) -> None:
    import time  # noqa: PLC0415 - for this branch

    last = ""
    for status in _statuses(target, 30.0):
        line = summary(status)
        if line == last:
            continue
        last = line
        if is_json:
            print_object(status)
        else:
            click.echo(f"{moment(time.time())} {line}")
        sys.stdout.flush()


def _live(target: Target) -> None:
    from rich.live import Live  # noqa: PLC0415 - on a terminal only
    from rich.text import Text  # noqa: PLC0415

    # Ages and task counts change without an event: once a second is as fast as people read.
    with Live(auto_refresh=False) as live:
        for status in _statuses(target, 1.0):
            live.update(Text("\n".join(status_lines(status))), refresh=True)

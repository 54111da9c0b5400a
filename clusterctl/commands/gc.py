"""`clusterctl gc`: ends what runs and is nobody's. Nothing is ended that was not shown before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from clusterctl import exit_codes
from clusterctl.options import as_json
from clusterctl.output.answer import print_answer
from clusterctl.output.text import orphan_lines
from clusterd.errors import ControlError

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["gc"]

# Longer than any stop_timeout that makes sense, plus the time that a killed process has to vanish.
PATIENCE = 120.0


@click.command()
@click.option("-y", "--yes", "is_sure", is_flag=True, help="Do not ask.")
@as_json
@click.pass_obj
def gc(target: Target, *, is_sure: bool, is_json: bool) -> int:
    """End the processes that `status --orphans` lists: those of this profile that the daemon has not adopted."""
    client = target.client()
    found = client.get(f"{target.path}/orphans")["orphans"]
    if not found:
        print_answer({"done": [], "failed": {}}, [f"{target.name}: nothing runs unclaimed"], is_json=is_json)
        return exit_codes.DONE
    if not is_sure:
        if is_json:
            raise ControlError("with --json nobody is asked", code="usage", hint="say --yes; first: status --orphans")
        for line in orphan_lines(found):
            click.echo(line)
        click.confirm(f"End {len(found)} processes?" if len(found) > 1 else "End it?", abort=True)
    names = [stray["name"] for stray in found]
    answer = client.post(f"{target.path}/gc", {"names": names}, timeout=PATIENCE)
    lines = [f"ended: {name}" for name in answer["done"]]
    lines += [f"{name}: {reason}" for name, reason in answer["failed"].items()]
    print_answer(answer, lines, is_json=is_json)
    return exit_codes.REFUSED if answer["failed"] else exit_codes.DONE

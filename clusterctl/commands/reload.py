"""`clusterctl reload`: the profile is read again; when it is wrong every mistake is shown, and the old one stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from clusterctl.options import as_json
from clusterctl.output.answer import print_answer

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["reload"]


@click.command()
@as_json
@click.pass_obj
def reload(target: Target, *, is_json: bool) -> None:
    """Read the profile again."""
    answer = target.client().post(f"{target.path}/reload")
    lines = [f"{change['setting']}: {change['effect']}" for change in answer["changes"]] or ["nothing has changed"]
    print_answer(answer, lines, is_json=is_json)

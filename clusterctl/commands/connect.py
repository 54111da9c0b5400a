"""`clusterctl connect`: what to type in Python, here and on another host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from clusterctl.options import as_json
from clusterctl.output.answer import print_answer

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["connect"]


@click.command()
@as_json
@click.pass_obj
def connect(target: Target, *, is_json: bool) -> None:
    """Print how to connect from Python."""
    answer = target.client().get(f"{target.path}/connection")
    lines = ["import clusterd", f'client = clusterd.Client("{answer["profile"]}")']
    file = answer["client_file"]
    if not answer["is_ready"]:
        lines.append(f"# {file} is not there yet: the controller is {answer['controller']}")
    elif answer["is_local_only"]:
        lines.append(f"# on this host only ({answer['url']}); the connection file is {file}")
    else:
        lines.append(f"# on another host, with a copy of {file} (it holds a key: mode 0600):")
        lines.append('# client = clusterd.Client("path/to/ipcontroller-client.json")')
    print_answer(answer, lines, is_json=is_json)

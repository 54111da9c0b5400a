"""`clusterctl rotate-key`: new keys in all files; the answer names who still uses the old ones, and until when they may."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from clusterctl.moments import SPAN
from clusterctl.options import as_json
from clusterctl.output.answer import print_answer
from clusterctl.output.text import key_lines, moment

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["rotate_key"]


@click.command()
@click.option(
    "--grace",
    type=SPAN,
    default="60s",
    show_default=True,
    metavar="TIME",
    help="How long the old keys are accepted beside the new ones.",
)
@click.option(
    "--now", is_flag=True, help="Refuse the old keys at once, also those of a change whose grace is not over."
)
@as_json
@click.pass_obj
def rotate_key(target: Target, *, grace: float, now: bool, is_json: bool) -> None:
    """Change the keys of the cluster: after a connection file was seen by others, or as a matter of routine.

    Nothing that runs is lost. Engines, agents and clients of clusterd read their connection file again and go on; who has a
    copy of it (on another host, say) must renew the copy within the grace. ipyparallel's engines and clients read their file
    once: they go on until the grace is over, get no answer afterwards, and have to be started again.

    The HMAC keys of clients, engines and ipyparallel are changed. The CURVE pair (`stock: curve`, and links between hosts) is
    changed with --now only, because a port has one pair at a time. It admits nobody to work, but who has the old file and
    reaches the ports can listen to what ipyparallel's tasks print: so after a leak, use --now. If controller-secrets.json
    itself was read by others: stop the cluster, remove that file, and start the cluster again.
    """
    answer = target.client(timeout=30.0).post(f"{target.path}/rotate-key", {"grace": 0.0 if now else grace})
    lines = [f"{target.name}: the keys were changed at {moment(answer['changed_at'])}"]
    if answer["where"] == "files":
        lines[0] += ", in the files: no controller runs"
    lines += [f"  written: {file}" for file in answer["files"]]
    if answer["ipython_file"]:
        lines.append(f"  written: {answer['ipython_file']}")
    lines += [f"  {line}" for line in key_lines(answer, time.time())]
    print_answer(answer, lines, is_json=is_json)

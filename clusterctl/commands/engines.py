"""`clusterctl engines [list | interrupt | stop | kill | restart TARGET...]`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from clusterctl import exit_codes
from clusterctl.options import as_json
from clusterctl.output.answer import print_answer
from clusterctl.output.text import engine_table

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["engines"]

_HELP = {
    "interrupt": "Raise KeyboardInterrupt in what the engines run; their namespaces stay.",
    "stop": "End the engines politely; the set is refilled as its restart policy says.",
    "kill": "End the engines at once (SIGKILL); the set is refilled.",
    "restart": "End the engines and start new ones in their places; ends a crash loop, too.",
}
_TARGETS = """

    TARGET is engines/3, SET (all of its engines), 3 (slot 3 of the default set), or id:7 (by the number that clients use).
"""


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def engines(context: click.Context, *, is_json: bool) -> None:
    """List engines, or act on some of them."""
    if context.invoked_subcommand is None:
        _list(context.obj, is_json=is_json)


@engines.command("list")
@as_json
@click.pass_obj
def list_(target: Target, *, is_json: bool) -> None:
    """List the engines: slot, id, state and process."""
    _list(target, is_json=is_json)


def _list(target: Target, *, is_json: bool) -> None:
    answer = target.client().get(f"{target.path}/engines")
    print_answer(answer, engine_table(answer["engines"], time.time()), is_json=is_json)


def _add(command: str, text: str) -> None:
    @engines.command(command, help=text + _TARGETS, short_help=text)
    @click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
    @as_json
    @click.pass_obj
    def act(target: Target, *, targets: tuple[str, ...], is_json: bool) -> int:
        answer = target.client(timeout=30.0).post(f"{target.path}/engines/{command}", {"targets": list(targets)})
        failed = [f"{engine}: {reason}" for engine, reason in answer["failed"].items()]
        done = [f"{command}: {', '.join(answer['done'])}"] if answer["done"] else []
        print_answer(answer, done + failed, is_json=is_json)
        return exit_codes.REFUSED if failed else exit_codes.DONE


for _command, _text in _HELP.items():
    _add(_command, _text)

"""`clusterctl help TOPIC`."""

from __future__ import annotations

import click

from clusterctl import exit_codes
from clusterctl.output.text import columns

__all__ = ["help"]


@click.command()
@click.argument("topic", required=False)
@click.pass_context
def help(context: click.Context, *, topic: str | None) -> None:  # noqa: A001 - the verb's name
    """Explain TOPIC: `exit-codes`, or a command."""
    root = context.find_root()
    if topic is None:
        click.echo(root.get_help())
    elif topic == "exit-codes":
        for line in columns((str(number), meaning) for number, meaning in exit_codes.MEANINGS.items()):
            click.echo(line)
    else:
        group = root.command
        command = group.get_command(root, topic) if isinstance(group, click.Group) else None
        if command is None:
            raise click.UsageError(f"there is no topic {topic!r}; there are: exit-codes, and every command")
        with click.Context(command, info_name=topic, parent=root) as child:
            click.echo(command.get_help(child))

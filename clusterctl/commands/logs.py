"""`clusterctl logs`: output of the processes, from the files that they hold themselves; of several as it comes, a colour for each."""

from __future__ import annotations

import os
import sys
import zlib
from typing import TYPE_CHECKING, Final

import click

from clusterctl.moments import AGO
from clusterctl.options import as_json
from clusterctl.output.answer import print_object

if TYPE_CHECKING:
    from clusterctl.target import Target

__all__ = ["logs"]

# Readable on dark and on light ground; neighbours differ.
COLOURS: Final = (
    "cyan", "yellow", "green", "magenta", "blue", "red",
    "bright_cyan", "bright_yellow", "bright_green", "bright_magenta", "bright_blue", "bright_red",
)  # fmt: skip
TAIL: Final = 20
TAIL_SINCE: Final = 10_000
"""Lines of each source with --since: all, unless one runs wild."""


@click.command()
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on as lines are written, until Ctrl-C.")
@click.option(
    "--tail", type=click.IntRange(min=0, max=100_000), metavar="N", help=f"Last lines of each; by default {TAIL}."
)
@click.option(
    "--since",
    type=AGO,
    metavar="WHEN",
    help="Leave out what was written before: 10m, 2h, 14:30, 2026-01-31. What users print has no time: of a file written"
    " since then all last lines are shown.",
)
@as_json
@click.pass_obj
def logs(
    target: Target, *, sources: tuple[str, ...], follow: bool, tail: int | None, since: float | None, is_json: bool
) -> None:
    """Show logs: of everything, or of SOURCE, which is engines/3, SET, engines (of all sets), controller, daemon or agent.

    On a terminal each source has a colour, unless NO_COLOR is set.
    """
    if tail is None:
        tail = TAIL if since is None else TAIL_SINCE
    stream = target.client().stream(
        f"{target.path}/logs", source=",".join(sources) or None, follow=follow or None, tail=tail, after=since
    )
    # A single engine, controller or daemon needs no name before each line.
    is_one = len(sources) == 1 and ("/" in sources[0] or sources[0] in {"controller", "daemon"})
    name_of = _coloured if _is_colourful() else _plain
    for item in stream:
        if is_json:
            print_object(item)
        else:
            click.echo(item["line"] if is_one else f"{name_of(item['source'])}: {item['line']}")


def _is_colourful() -> bool:
    # https://no-color.org
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _plain(source: str) -> str:
    return source


def _coloured(source: str) -> str:
    number = source.rpartition("/")[2]
    index = int(number) if number.isdecimal() else zlib.crc32(source.encode())
    return click.style(source, fg=COLOURS[index % len(COLOURS)])

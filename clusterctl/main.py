"""The command line: one group whose verbs are imported when they are called, and the one place where errors become exit codes.

Nothing is imported here that `clusterctl --help` does not need: help for the list of verbs stands in the table, not in them.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from clusterctl import exit_codes
from clusterctl.target import Target
from clusterd import __version__
from clusterd.errors import ClusterdError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cli", "main"]

VERBS: dict[str, str] = {
    "start": "Start the cluster; bring up a daemon where none serves the profile.",
    "stop": "Stop engines and controller, and the daemon that `start` brought up.",
    "restart": "Restart everything, the controller, or an engine set.",
    "status": "Show what is wished, what is there, and why they differ.",
    "scale": "Set the number of engines of a set.",
    "drain": "Let engines finish what they run, then end them.",
    "resume": "Try again what was given up after a crash loop.",
    "engines": "List, interrupt, stop, kill or restart engines.",
    "tasks": "Show what ran, where, for how long, and with which outcome.",
    "gc": "End processes of this profile that nobody claims.",
    "logs": "Show the output of engines, controller, daemon and agents.",
    "events": "Show what happened, as the daemon saw it.",
    "explain": "Tell the story of an engine, a set, an agent or the controller.",
    "report": "Write an archive for a ticket, without secrets.",
    "watch": "Follow the state of the cluster.",
    "reload": "Read the profile again; a wrong one changes nothing.",
    "rotate-key": "Change the keys of the cluster; nothing that runs is lost.",
    "connect": "Print how to connect from Python; let ipyparallel find the cluster.",
    "profile": "List, show, check and create profiles.",
    "help": "Explain a topic: exit-codes.",
}
"""Verb -> its line in the list; the command itself is `clusterctl.commands.VERB:VERB`."""


class _Verbs(click.Group):
    """A group that imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        word = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"clusterctl.commands.{word}"), word)
        command.short_help = VERBS[cmd_name]  # shells show it beside the word
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS:
            raise click.UsageError(_no_such_verb(args[0]), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Without -p: the only daemon that runs, else $CLUSTERD_PROFILE; `start` takes the profile `default` where there is"
    " neither. Exit codes: clusterctl help exit-codes.",
)
@click.option("-p", "--profile", metavar="NAME", help="Which profile's daemon is meant.")
@click.version_option(__version__, prog_name="clusterctl")
@click.pass_context
def cli(ctx: click.Context, profile: str | None) -> None:
    """Operate clusterd clusters."""
    ctx.obj = Target(profile)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return what the process is to end with."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_json = "--json" in words
    try:
        result: Any = cli.main(args=words, prog_name="clusterctl", standalone_mode=False)
        sys.stdout.flush()
        status = result if isinstance(result, int) else exit_codes.DONE
    except click.ClickException as error:
        status = _report_json("usage", error.format_message(), "") if is_json else _show(error)
    except click.Abort:
        click.echo("interrupted", err=True)
        status = exit_codes.INTERRUPTED
    except ClusterdError as error:
        status = _report_json(error.code, error.message, error.hint) if is_json else _report(error)
    except (BrokenPipeError, SystemExit) as error:
        # `clusterctl logs | head`: the reader has what it wants. click makes SystemExit(1) of it, and puts a wrapper around
        # stdout; what is still buffered would be complained about once more at exit.
        if isinstance(error, SystemExit) and not type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = exit_codes.DONE
    return status


def _show(error: click.ClickException) -> int:
    error.show()
    return error.exit_code


def _report(error: ClusterdError) -> int:
    click.echo(f"clusterctl: {error.message}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
    return exit_codes.of(error.code)


def _report_json(code: str, message: str, hint: str) -> int:
    click.echo(json.dumps({"version": 1, "error": {"code": code, "message": message, "hint": hint}}))
    return exit_codes.of(code)


def _no_such_verb(word: str) -> str:
    import difflib  # noqa: PLC0415 - 5 ms, only for the mistaken

    near = difflib.get_close_matches(word, VERBS, n=1)
    return f"there is no command {word!r}" + (f"; did you mean `{near[0]}`?" if near else "")

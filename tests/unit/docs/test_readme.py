"""README says what is there: its links, commands, exit codes and profile. `tests/e2e/test_readme.py` does what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from clusterctl import exit_codes
from clusterctl.main import cli
from clusterd.profile import find, parse

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
COMMANDS = [shlex.split(line, comments=True) for line in re.findall(r"^ {4}(clusterctl .*)", README, re.MULTILINE)]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name):
    targets = re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text())
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_is_one(words):
    context = cli.make_context("clusterctl", list(words[1:]))
    rest = [*context._protected_args, *context.args] if hasattr(context, "_protected_args") else context.args
    command = cli
    while isinstance(command, click.Group) and rest:
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
        rest = [*getattr(context, "_protected_args", []), *context.args]


def test_exit_codes_are_those_of_the_command():
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE)
    assert {int(number): meaning for number, meaning in rows} == exit_codes.MEANINGS


def test_the_profile_that_is_shown_is_the_one_that_is_shipped():
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert parse(text.encode(), "README.md") == parse(find("local").read_bytes(), "local.yaml")


def test_make_has_the_targets_that_are_named():
    makefile = (ROOT / "Makefile").read_text()
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text()
        for target in re.findall(r"(?:^ {4}|`)make (?:[A-Z]+=\S+ )?([a-z-]+)", text, re.MULTILINE):
            assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE), target

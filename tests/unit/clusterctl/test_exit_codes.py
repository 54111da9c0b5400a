from __future__ import annotations

import json

import pytest

from clusterctl import exit_codes
from clusterctl.main import VERBS, cli, main
from clusterd import errors


def test_every_code_that_is_used_has_a_meaning():
    assert set(exit_codes.BY_ERROR.values()) <= set(exit_codes.MEANINGS)
    assert exit_codes.of("something new") == exit_codes.FAILED


def test_every_control_error_has_an_exit_code_of_its_own():
    classes = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.ControlError)]
    assert {cls.code for cls in classes} <= set(exit_codes.BY_ERROR)


def test_the_table_is_printed(capsys):
    assert main(["help", "exit-codes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[0]) for line in lines] == list(exit_codes.MEANINGS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_in_the_list_exists_and_has_help(verb, capsys):
    assert main([verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: clusterctl {verb}")
    command = cli.get_command(None, verb)
    assert command.name == verb


def test_help_of_a_verb_by_topic(capsys):
    assert main(["help", "scale"]) == 0
    assert "SET" in capsys.readouterr().out
    assert main(["help", "nothing"]) == exit_codes.USAGE


def test_usage_is_two_also_as_json(capsys):
    assert main(["sclae"]) == exit_codes.USAGE
    assert "did you mean `scale`?" in capsys.readouterr().err
    assert main(["scale", "engines", "x", "--json"]) == exit_codes.USAGE
    answer = json.loads(capsys.readouterr().out)
    assert answer["version"] == 1
    assert answer["error"]["code"] == "usage"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("clusterctl, version 0.")

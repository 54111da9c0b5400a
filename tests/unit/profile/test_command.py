"""`clusterctl profile` as it is called."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from clusterctl.commands.profile import profile
from clusterctl.main import main
from clusterd.profile import read
from clusterd.profile.trust import SHIPPED


def run(*arguments: str, stdin: bytes | None = None):
    return CliRunner().invoke(profile, list(arguments), input=stdin)


def test_list(isolated):
    run("create", "lab")
    (isolated.config / "profiles" / "bad.yaml").write_text("version: 2")
    result = run("list")
    assert result.exit_code == 0
    assert f"lab      Engines on this machine\n         {isolated.config}/profiles/lab.yaml\n" in result.stdout
    assert "bad      cannot be used, see: clusterctl profile check bad\n" in result.stdout
    assert "default  " in result.stdout


def test_list_json(isolated):
    run("create", "lab")
    (isolated.config / "profiles" / "bad.yaml").write_text("version: 2")
    found = json.loads(run("list", "--json").stdout)
    assert found["version"] == 1
    by_name = {item["name"]: item for item in found["profiles"]}
    assert by_name["lab"] == {
        "name": "lab",
        "path": f"{isolated.config}/profiles/lab.yaml",
        "description": "Engines on this machine",
        "error": None,
    }
    assert by_name["bad"]["error"]["mistakes"][1]["message"].startswith("version: expected 1")


def test_show_is_a_profile_that_means_the_same():
    result = run("show", "local")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"# {SHIPPED}/local.yaml\nversion: 1\n")
    shown = json.loads(run("show", "local", "--json").stdout)
    assert yaml.safe_load(result.stdout) == shown["profile"]
    assert shown["path"] == f"{SHIPPED}/local.yaml"


def test_show_without_a_name_shows_the_one_that_commands_mean(monkeypatch):
    assert "default.yaml" in run("show").stdout
    monkeypatch.setenv("CLUSTERD_PROFILE", "local")
    assert "local.yaml" in run("show").stdout


def test_show_what_there_is_not():
    result = run("show", "nowhere")
    assert (result.exit_code, result.stdout) == (7, "")
    assert result.stderr.startswith("there is no profile nowhere\n")
    failed = json.loads(run("show", "nowhere", "--json").stdout)
    assert failed["error"]["code"] == "profile"


def test_check_says_all_mistakes(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("version: 1\nengine_sets: {engines: {n: -1, maxx: 4}}\n")
    result = run("check", str(file))
    assert (result.exit_code, result.stdout) == (7, "")
    assert result.stderr == (
        f"{file}:2:28: engine_sets.engines.n: must be at least 0, found -1\n"
        f"{file}:2:32: unknown key 'maxx' in engine_sets.engines (did you mean 'max'?)\n"
    )
    failed = json.loads(run("check", str(file), "--json").stdout)
    assert failed["error"]["mistakes"][1] == {
        "line": 2,
        "column": 32,
        "path": "",
        "message": "unknown key 'maxx' in engine_sets.engines",
        "hint": "did you mean 'max'?",
    }


@pytest.mark.parametrize("arguments", [("local",), (str(SHIPPED / "local.yaml"),)])
def test_check_takes_a_name_or_a_file(arguments):
    result = run("check", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{SHIPPED}/local.yaml: good: engines (n 4)\n"


def test_check_reads_the_standard_input():
    result = run("check", "-", stdin=b"version: 1\nengine_sets: {a: {n: 1, work_dir: /no/dir}}\n")
    assert result.exit_code == 0
    assert result.stdout == "<stdin>: good: a (n 1)\n"
    assert result.stderr == "<stdin>: warning: engine_sets.a.work_dir: /no/dir is not a directory on this host\n"
    assert run("check", "-", stdin=b"\xff").exit_code == 7


def test_check_of_a_file_that_is_not_there():
    result = run("check", "/no/such.yaml")
    assert result.exit_code == 7
    assert result.stderr == "/no/such.yaml: cannot be read: No such file or directory\n"


def test_schema():
    schema = json.loads(run("schema").stdout)
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load((SHIPPED / "local.yaml").read_text()))


def test_create_and_never_twice(isolated):
    result = run("create", "lab", "--from", "local")
    path = isolated.config / "profiles" / "lab.yaml"
    assert result.stdout == f"{path}\nedit it, then: clusterctl -p lab start\n"
    assert read(path) == read(SHIPPED / "local.yaml")
    again = run("create", "lab", "--json")
    assert again.exit_code == 7
    assert json.loads(again.stdout)["error"]["message"] == f"{path} exists, and is not replaced"


def test_importing_the_command_loads_neither_yaml_nor_the_reader():
    code = "import sys, clusterctl.commands.profile; print([m for m in ('yaml', 'clusterd.profile', 'msgspec') if m in sys.modules])"
    root = Path(__file__).parents[3]
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout == "[]\n"


def test_through_the_front_door(capsys, tmp_path):
    """-p chooses what `show` shows; a wrong profile is reported by file, line and column, with its own exit code."""
    assert main(["-p", "local", "profile", "show"]) == 0
    assert capsys.readouterr().out.startswith(f"# {SHIPPED}/local.yaml\n")
    file = tmp_path / "x.yaml"
    file.write_text("")
    assert main(["profile", "check", str(file)]) == 7
    assert capsys.readouterr().err == f"{file}:1:1: the file is empty (a profile begins with `version: 1`)\n"

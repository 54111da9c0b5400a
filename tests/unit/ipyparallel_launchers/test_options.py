"""What the launchers tell our programs, in their words."""

from __future__ import annotations

import json
import sys

import pytest

from clusterd.controller.options import parse
from clusterd.core.model.launch import AgentSpec, decode

pytest.importorskip("ipyparallel")

from ipyparallel.cluster.launcher import LauncherError

from clusterd.ipyparallel.controller import ClusterdControllerLauncher, in_our_words
from clusterd.ipyparallel.engines import ClusterdEngineSetLauncher


def translated(*words: str) -> tuple[list[str], list[str]]:
    left_out: list[str] = []
    return list(in_our_words(words, left_out)), left_out


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (["--ip=*", "--location=login1"], ["--ip=*", "--location=login1"]),
        (["--ip", "*", "--reuse"], ["--ip=*", "--reuse"]),
        (["--ping=500"], ["--ping=500"]),
        (["--HeartMonitor.period=500"], ["--ping=500"]),
        (["--nodb"], ["--database=none"]),
        (["--sqlitedb"], ["--database=sqlite"]),
        (["--scheme=lru"], ["--task-scheme=lru"]),
        (["--TaskScheduler.scheme_name=pure"], ["--task-scheme=pure"]),
        (["--IPController.enable_curve=True"], ["--stock=curve"]),
        (["--restore"], ["--reuse"]),
        (["--log-level=10", "--debug", "--quiet"], []),
    ],
)
def test_options_that_have_a_meaning_here(theirs, ours):
    assert translated(*theirs) == (ours, [])


def test_what_has_none_is_left_out_and_named():
    assert translated("--ssh=me@there", "--ip=*", "--Hub.x=1") == (["--ip=*"], ["--ssh=me@there", "--Hub.x=1"])


def test_every_option_that_is_passed_on_is_one_of_ours(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    known = capsys.readouterr().out
    theirs = ["--nodb", "--restore", "--scheme=lru", "--HeartMonitor.period=1", "--IPController.enable_curve=True"]
    for option in translated(*theirs)[0]:
        assert option.partition("=")[0] in known


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.delenv("IPP_ENABLE_CURVE", raising=False)
    launcher = ClusterdControllerLauncher(profile_dir=str(tmp_path), cluster_id="x-1", controller_args=["--ip=*"])
    where = ["--profile-dir", str(tmp_path), "--cluster-id", "x-1", "--cluster", "x-1"]
    assert launcher.find_args() == [sys.executable, "-m", "clusterd", "controller", *where, "--ip=*"]
    monkeypatch.setenv("IPP_ENABLE_CURVE", "1")
    assert launcher.find_args()[-1] == "--stock=curve"
    launcher.controller_args = ["--stock=on"]
    assert launcher.find_args()[-1] == "--stock=on"
    plain = ClusterdControllerLauncher(profile_dir=str(tmp_path))
    assert plain.cluster_args == ["--profile-dir", str(tmp_path)]


def engines(isolated, told, **options) -> ClusterdEngineSetLauncher:
    """A launcher that is told of its controller as `Cluster` does it, and would start a program that does nothing."""
    environment = {"IPP_CONNECTION_INFO": json.dumps(told), "MINE": "1"}
    directory = str(isolated.home / "profile")
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    return ClusterdEngineSetLauncher(
        profile_dir=directory,
        cluster_id="x-1",
        engine_set_id="7",
        environment=environment,
        program=command,
        **options,
    )


def test_engines_need_a_controller_of_ours(isolated):
    launcher = engines(isolated, {"registration": 1, "key": "secret"})
    with pytest.raises(LauncherError, match="engines of clusterd need clusterd's controller") as caught:
        launcher.start(2)
    assert "secret" not in str(caught.value)
    assert list(isolated.temporary.iterdir()) == []


def test_what_an_agent_is_told(isolated):
    native = {
        "format": 1,
        "data": "tcp://there:1",
        "control": "tcp://there:2",
        "key": "00",
        "cluster": "x",
        "controller": "",
    }
    launcher = engines(isolated, {"clusterd": native}, preload=["math"], restart="never", stop_seconds_until_kill=10)
    launcher.runtime_dir = str(isolated.runtime)
    launcher._write_spec(3)
    spec = decode((isolated.runtime / "spec.json").read_bytes(), AgentSpec, "spec")
    assert (spec.cluster, spec.engine_set, spec.slots) == ("x", "engines-7", (0, 1, 2))
    assert (spec.preload, spec.restart.policy, spec.stop_timeout, spec.is_alone) == (["math"], "never", 6.0, True)
    # The controller is elsewhere: what was told is in a file of its own, and nowhere else.
    copy = isolated.runtime / "engine.json"
    assert spec.connection_file == str(copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert launcher.get_env()["MINE"] == "1"
    assert "IPP_CONNECTION_INFO" not in launcher.get_env()

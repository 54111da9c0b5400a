"""The systemd units: what systemd itself finds wrong with them, and the settings that the daemon depends on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clusterd.daemon.main as daemon
from clusterd.__main__ import main

UNITS = Path(__file__).parents[3] / "systemd"
SYSTEM, USER = UNITS / "clusterd@.service", UNITS / "user" / "clusterd@.service"


def service(path):
    """Setting -> value; of those that stand there several times, all values."""
    section, settings = "", {}
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            settings[name] = f"{settings[name]}\n{value}" if name in settings else value
    return settings


@pytest.fixture
def installed(tmp_path, isolated):
    """A function that gives the directory of the units, system's or user's, with a program that is there."""

    def install(directory):
        for path in directory.glob("clusterd*"):
            # It looks whether the program is there; which one that is, the package decides.
            text = path.read_text().replace("ExecStart=clusterd", f"ExecStart={sys.executable} -m clusterd")
            (tmp_path / path.name.replace("@", "@lab")).write_text(text)
            (tmp_path / path.name).write_text(text)
        return tmp_path

    return install


def analyze(place, *words):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(
        [program, *words],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{place}:"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("directory", [UNITS, UNITS / "user"], ids=["system", "user"])
def test_systemd_has_nothing_to_complain_about(directory, installed):
    place = installed(directory)
    units = sorted(str(path) for path in place.glob("clusterd*") if not path.name.startswith("clusterd@."))
    scope = ["--user"] if directory.name == "user" else []
    done = analyze(place, "verify", "--man=no", *scope, *units)
    # It loads what the unit wants, too: only what it says of ours counts.
    assert [line for line in done.stderr.splitlines() if "clusterd" in line] == []
    assert done.returncode == 0, done.stderr


def test_what_stays_open_is_explained(installed):
    done = analyze(installed(UNITS), "security", "--offline=yes", "--no-pager", str(UNITS / SYSTEM.name))
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze is older than 250")
    open_lines = [line for line in done.stdout.splitlines() if line.startswith("✗")]
    comments = "\n".join(line for line in SYSTEM.read_text().splitlines() if line.startswith("#"))
    for line in open_lines:
        name = re.match(r"✗ ([A-Za-z]+)", line)[1]
        assert f"{name}=" in comments, f"open, and no word about it: {line}"
    assert len(open_lines) > 5
    exposure = float(re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)[1])
    assert exposure < 4.5, done.stdout


@pytest.mark.parametrize("path", [SYSTEM, USER], ids=["system", "user"])
def test_what_the_daemon_depends_on(path, capsys):
    settings = service(path)
    assert settings["Type"] == "notify"
    # Nothing that is to live is in the daemon's group, so what is left there is ended.
    assert settings["KillMode"] == "mixed"
    scope = "user" if path is USER else "system"
    assert settings["Environment"] == f"CLUSTERD_MANAGER={scope} CLUSTERD_UNIT=%n"
    assert settings["RestartPreventExitStatus"].split() == ["2", str(daemon.LOCKED), str(daemon.CONFIG)]
    assert float(settings["WatchdogSec"]) >= 30
    word, *options = settings["ExecStart"].split()[1:]
    with pytest.raises(SystemExit) as ended:
        main([word, "--help"])
    assert ended.value.code == 0
    known = capsys.readouterr().out
    assert all(option in known for option in options if option.startswith("--"))


def test_the_directories_of_an_instance_are_left_to_the_daemon():
    # `RuntimeDirectory=clusterd/%i` would be given back to root, with all in it, at each start: see `run_as`.
    settings = service(SYSTEM)
    assert settings["RuntimeDirectory"] == settings["StateDirectory"] == "clusterd"
    assert settings["RuntimeDirectoryPreserve"] == "yes"
    assert "User" not in settings


def test_the_pages_that_the_units_name_exist():
    for path in (SYSTEM, USER):
        for name, section in re.findall(r"man:([\w-]+)\((\d)\)", path.read_text()):
            assert (UNITS.parent / "packaging" / "man" / f"{name}.{section}").exists()

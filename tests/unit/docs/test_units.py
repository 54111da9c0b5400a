"""The systemd units: what systemd itself finds wrong with them, and the settings that the daemon depends on."""

from __future__ import annotations

import configparser
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
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read(path)
    return parser["Service"]


@pytest.mark.parametrize("path", [SYSTEM, USER], ids=["system", "user"])
def test_systemd_has_nothing_to_complain_about(path, tmp_path, isolated):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    # It looks whether the program is there; which one that is, the package decides.
    unit = tmp_path / "clusterd@.service"
    unit.write_text(path.read_text().replace("ExecStart=clusterd", f"ExecStart={sys.executable} -m clusterd"))
    done = subprocess.run(
        [program, "verify", "--man=no", *(["--user"] if path is USER else []), str(unit)],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    # It loads what the unit wants, too: only what it says of ours counts.
    assert [line for line in done.stderr.splitlines() if "clusterd" in line] == []
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [SYSTEM, USER], ids=["system", "user"])
def test_what_the_daemon_depends_on(path, capsys):
    settings = service(path)
    assert settings["Type"] == "notify"
    assert settings["KillMode"] == "process"
    assert settings["OOMPolicy"] == "continue"
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

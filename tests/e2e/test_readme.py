"""README's five minutes, word for word: a newcomer's profile, start, scale, a notebook, a look, a change, the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clusterctl.exit_codes import INTERRUPTED, NO_DAEMON

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "README.md").read_text().partition("## Five minutes\n")[2].partition("\n## ")[0]
COMMANDS = re.findall(r"^ {4}(clusterctl [^#\n]*[^# \n])", SECTION, re.MULTILINE)
(NOTEBOOK,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture
def newcomer(isolated):
    """The environment of a person who has only just activated `.venv`: here, whichever the tests run in."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "CLUSTERD_CONFIG_DIR": str(isolated.home / ".config" / "clusterd"),
    }
    yield {"env": environment, "cwd": isolated.home, "text": True}
    left = subprocess.run(
        ["clusterctl", "-p", "lab", "stop"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert left.returncode == NO_DAEMON, "README's last command ends it"


def run(newcomer, *words, given=None):
    done = subprocess.run(
        words,
        **newcomer,
        input=given or "",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (words, done.stdout)
    return done.stdout


def first_line(newcomer, *words):
    """What a command says first that goes on until Ctrl-C."""
    process = subprocess.Popen(words, **newcomer, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    with process:
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == INTERRUPTED
    return line


def test_five_minutes(newcomer, isolated):
    said = {}
    for command in COMMANDS:
        words = command.split()
        if command == "clusterctl logs engines/3":
            # The notebook is between `scale` and `logs`.
            said["notebook"] = run(newcomer, sys.executable, "-", given=notebook_that_shows())
        said[command] = (first_line if command == "clusterctl watch" else run)(newcomer, *words)
    assert said["clusterctl profile create lab --from local"].startswith(
        f"{isolated.home}/.config/clusterd/profiles/lab.yaml\n"
    )
    assert "lab.yaml: good: engines (n 4)" in said["clusterctl profile check lab"]
    assert "no daemon served lab: started one" in said["clusterctl -p lab start"]
    assert re.search(r"engines +4 of 4 ", said["clusterctl status"])
    assert len(said["clusterctl engines"].splitlines()) == 5
    assert said["clusterctl scale engines 16"].startswith("engines: 16 of 16")
    assert said["notebook"].splitlines() == [
        repr([n**2 for n in range(1000)]),
        repr([6] * 15),
        "7",
    ]  # engine 3 was drained
    assert "as wished: running: engines 16/16" in said["clusterctl events --since 10m"]
    assert "lab: running; controller running; engines 15/15" in said["clusterctl watch"]
    assert said["clusterctl reload"] == "nothing has changed\n"
    assert said["clusterctl stop"] == "lab: stopped; its daemon has ended\n"


def notebook_that_shows():
    """The cell, with each expression that a notebook would show printed."""
    shown = ("list(view.map", 'everyone["total"]  #', "future.result()")
    lines = []
    for line in NOTEBOOK.splitlines():
        is_shown = line.startswith(shown)
        lines.append(f"print({line.partition('  #')[0]})" if is_shown else line)
    assert sum(line.startswith("print(") for line in lines) == len(shown)
    return "\n".join([*lines, "client.close()"])

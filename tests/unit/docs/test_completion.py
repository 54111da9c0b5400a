"""The completion files work in their shells: each completes the verbs that clusterctl has now."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clusterctl.main import VERBS

FILES = Path(__file__).parents[3] / "packaging" / "completion"
PROGRAM = (
    f"#!/bin/sh\nexec {sys.executable} -c 'import sys; from clusterctl.main import main; sys.exit(main())' \"$@\"\n"
)


@pytest.fixture
def shell(tmp_path):
    """Run a script in a shell that finds clusterctl by PATH; without that shell the test is skipped."""
    program = tmp_path / "bin" / "clusterctl"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)

    def run(name, script, *arguments):
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not installed")
        done = subprocess.run(
            [path, *arguments, "-c", script],
            env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(FILES.parents[1])},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def in_bash(words):
    return f"""
        source {FILES / "clusterctl.bash"}
        COMP_WORDS=({" ".join(words)})
        COMP_CWORD={len(words) - 1}
        _clusterctl clusterctl
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """


def test_bash_completes_every_verb(shell):
    assert set(shell("bash", in_bash(["clusterctl", "''"]), "--norc")) == set(VERBS)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["clusterctl", "st"], ["start", "stop", "status"]),
        (["clusterctl", "-p", "lab", "rel"], ["reload"]),
        (["clusterctl", "engines", "re"], ["restart"]),
        (["clusterctl", "scale", "engines", "4", "--no"], ["--no-wait"]),
        (["clusterctl", "nonsense", "x"], [""]),
    ],
    ids=" ".join,
)
def test_bash_completes_words_and_options(shell, words, completed):
    assert shell("bash", in_bash(words), "--norc") == completed


def test_fish_completes_every_verb(shell):
    script = f"source {FILES / 'clusterctl.fish'}; complete --do-complete 'clusterctl '"
    lines = shell("fish", script, "--no-config")
    told = dict(line.split("\t") for line in lines if not line.startswith("-"))
    assert told == VERBS


def test_zsh_completes_every_verb(shell):
    # The completion system works on a terminal only: stand-ins for the two functions that show words, and for its variables.
    script = f"""
        compadd() {{ shift 3; print -l -- "${{(@P)1}}"; }}
        _describe() {{ print -l -- "${{(@P)3}}"; }}
        words=(clusterctl "")
        CURRENT=2
        source {FILES / "_clusterctl"}
    """
    lines = shell("zsh", script, "-f")
    assert lines == [f"{verb}:{text}" for verb, text in VERBS.items()]

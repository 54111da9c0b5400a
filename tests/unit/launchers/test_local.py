from __future__ import annotations

import json
import os
import signal
import stat
import sys
import textwrap

import pytest

from clusterd.errors import LaunchError
from clusterd.launchers import local, registry
from clusterd.launchers.base import Program
from clusterd.launchers.local import LocalLauncher, command, environment, why_it_ended
from clusterd.system import process


@pytest.fixture
def log(isolated):
    return isolated.temporary / "agent-engines.log"


def program(log, **fields):
    return Program(
        launch="0123abcd-1", title="the agent of c/engines", word="agent", spec="/s.json", log=str(log), **fields
    )


def wrapper(isolated, body):
    """Make an executable that stands for the interpreter, so that the test sees what it is given."""
    path = isolated.temporary / "python"
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(body)}")
    path.chmod(0o755)
    return str(path)


def wait(identity):
    _, status = os.waitpid(identity.pid, 0)
    return os.waitstatus_to_exitcode(status)


def test_the_command_is_the_interpreter_itself(log):
    assert command(program(log)) == [sys.executable, "-P", "-m", "clusterd", "agent", "--spec", "/s.json"]


def test_setup_lines_run_in_a_shell_that_becomes_the_interpreter(log):
    argv = command(program(log, python="python3", setup=["module load x", "export A='b c'"]))
    assert argv[:3] == ["/bin/sh", "-c", 'module load x\nexport A=\'b c\'\nexec "$0" "$@"']
    assert argv[3] == "python3"


@pytest.mark.parametrize(
    ("python", "problem"),
    [
        ("/nonexistent/python", "/nonexistent/python does not exist"),
        ("python9.99", "there is no python9.99 in PATH"),
        ("/etc", "/etc is a directory"),
        ("/etc/passwd", "/etc/passwd is not executable"),
    ],
)
def test_an_interpreter_that_cannot_be_is_told_before_anything_starts(log, python, problem):
    with pytest.raises(LaunchError, match=problem):
        LocalLauncher().start(program(log, python=python))
    assert not log.exists() or log.read_text() == ""


def test_the_daemons_own_python_and_service_do_not_leak(log):
    own = {
        "PATH": "/bin",
        "PYTHONPATH": "/daemon",
        "VIRTUAL_ENV": "/v",
        "NOTIFY_SOCKET": "/n",
        "WATCHDOG_USEC": "1",
        "LANG": "C",
    }
    assert environment(own, program(log, python="/opt/python")) == {"PATH": "/bin", "LANG": "C"}
    assert environment(own, program(log, setup=["conda activate x"])) == {"PATH": "/bin", "LANG": "C"}
    # The same interpreter needs the same variables.
    assert environment(own, program(log))["PYTHONPATH"] == "/daemon"
    assert environment(own, program(log, env={"LANG": "de"}))["LANG"] == "de"


def test_a_process_stands_alone(isolated, log):
    python = wrapper(
        isolated,
        """
        import json, os, sys
        fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
        print(json.dumps({
            "argv": sys.argv[1:], "pid": os.getpid(), "sid": os.getsid(0), "cwd": os.getcwd(),
            "stdin": os.readlink("/proc/self/fd/0"), "fds": [fd for fd in fds if fd < 3 or os.path.exists(f"/proc/self/fd/{fd}")],
        }), flush=True)
        print("to stderr", file=sys.stderr, flush=True)
        """,
    )
    identity = LocalLauncher().start(program(log, python=python))
    assert wait(identity) == 0
    first, second = log.read_text().splitlines()
    told = json.loads(first)
    assert told["argv"] == ["-P", "-m", "clusterd", "agent", "--spec", "/s.json"]
    assert told["pid"] == told["sid"] == identity.pid
    assert (told["cwd"], told["stdin"]) == ("/", "/dev/null")
    assert told["fds"] == [0, 1, 2]
    assert second == "to stderr"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_the_pid_behind_setup_lines_is_the_programs_own(isolated, log):
    python = wrapper(isolated, "import os, time; print(os.environ['A'], flush=True); time.sleep(60)")
    identity = LocalLauncher().start(program(log, python=python, setup=["export A=ready"]))
    assert process.is_same_and_alive(identity)
    os.kill(identity.pid, signal.SIGTERM)
    assert wait(identity) == -signal.SIGTERM


def test_a_log_that_has_grown_is_put_aside(log, monkeypatch):
    monkeypatch.setattr(local, "LOG_MAX", 10)
    log.write_text("more than ten bytes\n")
    os.close(local.open_log(log))
    assert log.read_text() == ""
    assert log.with_name(log.name + ".1").read_text() == "more than ten bytes\n"


@pytest.mark.parametrize(
    ("status", "content", "told"),
    [
        (0, "bye\n", "ended with exit status 0"),
        (1, "first\nValueError: no\n\n", "ended with exit status 1; its log ends: ValueError: no"),
        (1, "", "ended with exit status 1"),
        (-9, "x\n", "was killed by SIGKILL"),
        (None, "x\n", "ended (how is not known: an earlier daemon had started it)"),
        (
            1,
            "/opt/lab/bin/python: No module named clusterd\n",
            "ended with exit status 1: clusterd is not installed there; install it: /opt/lab/bin/python -m pip install clusterd",
        ),
    ],
)
def test_ends_are_told_with_the_last_words(log, status, content, told):
    log.write_text(content)
    assert why_it_ended(status, log) == told


def test_a_python_without_clusterd_is_told_with_the_command_that_helps(log, isolated):
    # -S and -I: this interpreter, without what is installed beside it.
    python = isolated.temporary / "bare"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    python.chmod(0o755)
    identity = LocalLauncher().start(program(log, python=str(python)))
    assert "pip install clusterd" in why_it_ended(wait(identity), log)


def test_launchers_are_made_by_name():
    assert isinstance(registry.make("local"), LocalLauncher)
    with pytest.raises(LaunchError, match="there are: local"):
        registry.make("pbs")

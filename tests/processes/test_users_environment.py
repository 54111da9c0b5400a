"""Engines in the users' environment: another interpreter, six packages, and nothing that only the daemon needs.

The environments are real, made once a run with pip. Where pip reaches no index they cannot be made, and the tests are skipped
with pip's own words.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clusterd
from clusterd.errors import TaskNotSendable
from tests.processes.cluster import Cluster
from tests.waiting import until

pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).parents[2]
ALLOWED = ("pyzmq", "msgspec", "ipython", "cloudpickle", "psutil", "setproctitle")
"""What ARCHITECTURE.md section 3 promises that agent and engine get by with."""
ABSENT = ("aiohttp", "click", "numpy", "rich", "sdnotify", "yaml")
HERE = sys.version_info[:2]
# At import: later HOME is that of a test.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}

PROFILE = """\
version: 1
engine_sets:
  engines:
    launcher: local
    n: 2
    max: 4
    work_dir: /tmp
    stop_timeout: 3
    start_timeout: 20
"""


def make_environment(directory, interpreter=sys.executable):
    """Return the interpreter of a new environment with the allowed packages and this clusterd."""
    run(interpreter, "-m", "venv", directory)
    python = str(directory / "bin" / "python")
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    try:
        run(*install, "--only-binary", ":all:", *ALLOWED)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"pip could not install {', '.join(ALLOWED)}: {error.stderr.strip().splitlines()[-1]}")
    run(*install, "--no-deps", ROOT)
    return python


def run(*words):
    return subprocess.run(
        list(map(str, words)),
        env=ENVIRONMENT,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )


@pytest.fixture(scope="session")
def users_python(tmp_path_factory):
    return make_environment(tmp_path_factory.mktemp("users") / "env")


@pytest.fixture(scope="session")
def other_python(tmp_path_factory):
    """The interpreter of an environment with another minor release."""
    found = another_minor()
    if found is None:
        pytest.skip(f"no other Python than {HERE[0]}.{HERE[1]}, from 3.11 on, with venv on this machine")
    return make_environment(tmp_path_factory.mktemp("other") / "env", found)


def another_minor():
    names = [f"python3.{minor}" for minor in range(14, 10, -1) if (3, minor) != HERE]
    candidates = [path for name in names if (path := shutil.which(name))]
    candidates += [path for name in names for path in sorted(PYENV.glob(f"versions/3.*/bin/{name}"))]
    for candidate in candidates:
        try:
            # A shim of pyenv may be there for a release that is not; Debian's may lack ensurepip.
            told = run(candidate, "-c", "import sys, venv, ensurepip; print(*sys.version_info[:2])").stdout.split()
        except (OSError, subprocess.CalledProcessError):
            continue
        if tuple(map(int, told)) != HERE:
            return candidate
    return None


@pytest.fixture
def cluster(isolated):
    """Make the cluster of a profile, with these settings of its engine set."""
    made = []

    def make(*settings):
        made.append(Cluster(isolated, PROFILE + "".join(f"    {line}\n" for line in settings)))
        return made[-1]

    yield make
    for one in made:
        one.__exit__()


def test_engines_compute_with_six_packages(cluster, users_python, isolated):
    here = cluster(f"python: {users_python}", "preload: [numpy, json]")
    here.ctl("start")
    with clusterd.Client(here.name) as client:
        client.wait_for_engines(2, timeout=30)
        view = client[:]

        def look(names):
            present = [name for name in names if importlib.util.find_spec(name)]
            return sys.executable, present, clusterd.__file__

        for executable, present, source in view.apply_sync(look, ABSENT):
            assert executable == users_python
            assert present == []
            # The environment's own, not what happens to lie in the daemon's directory or path.
            assert source.startswith(str(Path(users_python).parents[1]))
        view.execute("import json; total = sum(map(int, json.loads('[1, 2, 3]')))").result()
        assert view.pull("total").result() == [6, 6]
        assert list(client.load_balanced_view().map(lambda n: n**2, range(50))) == [n**2 for n in range(50)]
        with pytest.raises(ZeroDivisionError):
            client[0].apply_sync(lambda: 1 / 0)
        # As a notebook of long ago would: the error is that of the engine's environment, and names the module.
        with pytest.raises(ModuleNotFoundError, match="numpy"):
            client[0].execute("import numpy").result()
    log = (here.state / "log" / "agent-engines.log").read_text()
    assert "numpy" in log  # a preload that is missing is a warning, and the other one was done
    assert "json" not in log
    here.ctl("engines", "restart", "engines")
    here.converged()


def test_setup_lines_run_before_the_interpreter(cluster, users_python):
    directory = Path(users_python).parent
    here = cluster("setup:", "  - export FROM_SETUP=yes", f"  - PATH={directory}:$PATH", "python: python")
    here.ctl("start")
    with clusterd.Client(here.name) as client:
        client.wait_for_engines(2, timeout=30)

        def look():
            return os.environ.get("FROM_SETUP"), sys.executable

        assert client[:].apply_sync(look) == [("yes", users_python)] * 2


def test_a_setup_line_that_fails_is_told(cluster, users_python):
    here = cluster("setup:", "  - set -e", "  - module-that-is-not-here load python", f"python: {users_python}")
    done = here.ctl("start", "--timeout", "15", status=6)
    assert "module-that-is-not-here" in done.stdout + done.stderr


def test_an_interpreter_without_clusterd_is_told_with_the_command_that_helps(cluster, isolated):
    bare = isolated.root / "bare"
    run(sys.executable, "-m", "venv", "--without-pip", bare)
    python = bare / "bin" / "python"
    here = cluster(f"python: {python}")
    done = here.ctl("start", "--timeout", "15", status=6)
    assert f"clusterd is not installed there; install it: {python} -m pip install clusterd" in done.stdout + done.stderr
    # Everything else is as it should be, and goes on being asked for.
    status = here.json("status")
    assert status["controller"]["state"] == "running"
    assert status["engine_sets"]["engines"]["observed"] == 0


def test_an_interpreter_that_is_not_there(cluster):
    here = cluster("python: /opt/nowhere/bin/python")
    done = here.ctl("start", "--timeout", "15", status=6)
    assert "/opt/nowhere/bin/python does not exist" in done.stdout + done.stderr


def test_an_engine_by_hand_in_the_users_environment(users_python, isolated):
    """The controller is ours, the engine is theirs: as on another host."""
    directory = isolated.root / "p"
    log = isolated.root / "log"
    file = directory / "security" / "ipcontroller-engine.json"
    with log.open("wb") as output:
        controller = subprocess.Popen(
            [sys.executable, "-m", "clusterd", "controller", "--profile-dir", str(directory)], stderr=output
        )
        engine = subprocess.Popen(
            [str(Path(users_python).with_name("clusterd")), "engine", "--file", str(file)],
            env={**os.environ, "PYTHONPATH": ""},
            cwd="/",
            stderr=output,
        )
    try:
        until(lambda: file.exists() or controller.poll() is not None, "the file", about=log.read_text)
        with clusterd.Client(directory) as client:
            assert client.wait_for_engines(1, timeout=30), log.read_text()
            assert client[0].apply_sync(os.getpid) == engine.pid
    finally:
        for process in (engine, controller):
            process.terminate()
            assert process.wait(10) == 0, log.read_text()


def test_another_minor_release_gets_no_functions_by_value(cluster, other_python):
    here = cluster(f"python: {other_python}")
    here.ctl("start")
    with clusterd.Client(here.name) as client:
        client.wait_for_engines(2, timeout=30)
        theirs = client.engines[0].python
        ours = f"{HERE[0]}.{HERE[1]}"
        assert theirs != ours
        with pytest.raises(TaskNotSendable) as caught:
            client[0].apply_sync(lambda: "bytecode of another release may crash the interpreter")
        assert ours in str(caught.value)
        assert theirs in str(caught.value)
        assert "`python:` in the profile" in str(caught.value)
        # What is found by its name on both sides works, and so do text and data.
        assert client[0].apply_sync(divmod, 7, 2) == (3, 1)
        client[:].execute("import sys; release = '%d.%d' % sys.version_info[:2]").result()
        assert client[:].pull("release").result() == [theirs, theirs]
        client[:].push({"numbers": [1, 2, 3]}).result()
        assert client[:].apply_sync(len, "four") == [4, 4]

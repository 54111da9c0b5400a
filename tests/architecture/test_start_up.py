"""What starts in a blink stays so, and what must import on Windows does: asked of real interpreters."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.architecture import rules
from tests.architecture.sources import ROOT, is_within, modules

needs_clusterctl = pytest.mark.skipif("clusterctl.main" not in modules(), reason="there is no clusterctl yet")

HEAVY = {
    "aiohttp": "70 ms; only the daemon serves HTTP",
    "asyncio": "25 ms; one request over a Unix socket needs no loop",
    "zmq": "25 ms; the data plane's",
    "IPython": "300 ms; the engines'",
    "cloudpickle": "30 ms; the client library's",
    "yaml": "15 ms; `profile` commands alone",
    "rich": "40 ms; only on a terminal",
    "psutil": "15 ms; the daemon watches processes, not clusterctl",
    "numpy": "never ours to import",
    "multiprocessing": "10 ms",
    "unittest": "10 ms",
    "pydoc": "10 ms",
    "http.client": "15 ms, for email's parser; a request is a few lines of text",
    "ssl": "10 ms; the control socket has no TLS",
}


def imported_by(*argv: str, **environment: str) -> set[str]:
    """Run a program with -X importtime and return the modules that it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *argv],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    lines = [
        line for line in done.stderr.splitlines() if line.startswith("import time:") and "imported package" not in line
    ]
    assert lines, done.stderr
    return {line.rpartition("|")[2].strip() for line in lines}


def heavy(imported: set[str]) -> dict[str, str]:
    return {name: reason for name, reason in HEAVY.items() if any(is_within(module, name) for module in imported)}


@needs_clusterctl
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["status"], ["-p", "nobody", "status"], ["scale", "--help"]], ids=" ".join
)
def test_clusterctl_starts_in_a_blink(arguments):
    imported = imported_by("-c", "import sys; from clusterctl.main import main; sys.exit(main())", *arguments)
    assert "clusterctl.main" in imported
    assert heavy(imported) == {}


def test_import_clusterd_costs_nothing():
    imported = imported_by("-c", "import clusterd; clusterd.__version__")
    standard = imported_by("-c", "from __future__ import annotations; from typing import TYPE_CHECKING, Any")
    assert imported - standard == {"clusterd"}


WINDOWS = ("clusterd.core", "clusterd.client", "clusterd.engine")

BLOCKED = """
import importlib, json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked!r}:
            raise ImportError(name + " does not exist on Windows")
        return None

# The standard library's own modules ask for some of these and go on without: they are loaded first.
import asyncio, subprocess, tempfile, shutil, pathlib, getpass, logging, multiprocessing, zmq, msgspec
for optional in ("IPython", "cloudpickle", "psutil", "setproctitle"):
    importlib.import_module(optional)
for name in {blocked!r}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Blocker())
failed = {{}}
for name in {names!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = str(error)
print(json.dumps(failed))
"""


@pytest.mark.parametrize("package", WINDOWS)
def test_a_package_imports_without_unix(package):
    names = [name for name in sorted(modules()) if is_within(name, package) and not name.endswith("__main__")]
    if not names:
        pytest.skip(f"{package} is not written yet")
    if package != "clusterd.core" and not all(
        importlib.util.find_spec(name) for name in ("IPython", "cloudpickle", "setproctitle")
    ):
        pytest.skip("clusterd's dependencies are not installed")
    program = BLOCKED.format(blocked=sorted(rules.UNIX_ONLY), names=names)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == {}

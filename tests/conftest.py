"""Every test runs alone: directories of its own, and nothing of it left when it ends.

`isolated` gives each test a home and the three CLUSTERD_ directories, short enough for a Unix socket below any of them (107
bytes), then checks for leftovers: threads and child processes always; for the tests that start real processes also those
that left the tree, descriptors and files. A test that leaves something behind fails, by name of what it left.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests import cells, leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator

STRICT = {"processes", "api", "e2e", "contract", "compat", "batch", "systemd"}
"""Folders of tests whose subject is real processes and sockets."""


class Places(NamedTuple):
    """The directories of one test; all are below `root`, which goes when the test ends."""

    root: Path
    home: Path
    runtime: Path
    state: Path
    config: Path
    temporary: Path

    @classmethod
    def make(cls) -> Places:
        # Not tmp_path: /tmp/pytest-of-NAME/pytest-123/test_with_a_long_name0 leaves too little of 107 bytes.
        root = Path(tempfile.mkdtemp(prefix="cd-", dir="/tmp"))
        places = cls(root, *(root / name for name in ("h", "r", "s", "c", "t")))
        for place in places[1:]:
            place.mkdir(mode=0o700)
        return places

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "CLUSTERD_RUNTIME_DIR": str(self.runtime),
            "CLUSTERD_STATE_DIR": str(self.state),
            "CLUSTERD_CONFIG_DIR": str(self.config),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_STATE_HOME": str(self.home / ".local" / "state"),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "IPYTHONDIR": str(self.home / ".ipython"),
            "TMPDIR": str(self.temporary),
            # Where root is all there is (CI), engines of tests are root's.
            "CLUSTERD_ALLOW_ROOT": "1",
        }


# What would make a test depend on who runs it, where.
UNSET = (
    "CLUSTERD_PROFILE",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "INVOCATION_ID",
    "IPYTHON_STARTUP",
    "PYTHONSTARTUP",
)


def _enter(places: Places, patch: pytest.MonkeyPatch) -> None:
    for name, value in places.environment().items():
        patch.setenv(name, value)
    for name in UNSET:
        patch.delenv(name, raising=False)
    # tempfile remembers the directory it found first.
    patch.setattr(tempfile, "tempdir", None)


@pytest.fixture(scope="session", autouse=True)
def _isolated_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what lives longer than a test (module fixtures, subprocesses at import) out of the person's own directories."""
    # pytest makes the parent of every tmp_path when it is first asked: it must not lie in the directory of one test.
    tmp_path_factory.getbasetemp()
    places = Places.make()
    patch = pytest.MonkeyPatch()
    _enter(places, patch)
    yield
    patch.undo()
    shutil.rmtree(places.root, ignore_errors=True)


@pytest.fixture(autouse=True)
def isolated(request: pytest.FixtureRequest, _isolated_run: None) -> Iterator[Places]:
    """Give the test its own directories (also as the fixture's value) and fail it for whatever it leaves behind."""
    strict = any(part in STRICT for part in request.path.relative_to(request.config.rootpath).parts)
    before = leftovers.look()
    places = Places.make()
    patch = pytest.MonkeyPatch()
    _enter(places, patch)
    yield places
    found = leftovers.find(before, strict=strict)
    if strict:
        found += [f"file {path}" for path in sorted(places.temporary.iterdir())]
    patch.undo()
    shutil.rmtree(places.root, ignore_errors=True)
    if found:
        pytest.fail("left behind:\n  " + "\n  ".join(found), pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in cells.summary():
        terminalreporter.write_line(line)


def pytest_report_header() -> str:
    return f"cpus: {len(os.sched_getaffinity(0))}"

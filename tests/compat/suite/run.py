"""Runs modules of ipyparallel's own tests, each in a pytest process of its own with a limit, and reads what came of each test.

The process runs in .venv-compat. What it leaves behind is found (`tests.leftovers`), ended and counted: a leak is a finding.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests import leftovers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.compat.suite.pairs import Pair

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PYTHON = ROOT / ".venv-compat" / "bin" / "python"

MODULES = (
    "test_executor",
    "test_remotefunction",
    "test_dependency",
    "test_joblib",
    "test_lbview",
    "test_client",
    "test_asyncresult",
    "test_view",
    "test_view_broadcast",
    "test_magics",
    "test_label",
    "test_apps",
    "test_cluster",
)
"""The modules that have tests which apply; the others are about the client library or about services."""

CLASSES = "wire,shell,cli"
MODULE_LIMIT = 300.0
GRACE = 30.0
BAD = {"failed", "error"}


@dataclass
class Test:
    """What came of one stock test."""

    outcome: str
    kind: str
    seconds: float
    message: str = ""
    again: str = ""

    @property
    def final(self) -> str:
        """The outcome; a failure that passed when it was run again, alone, is `flaky`: the machine is shared."""
        return "flaky" if self.outcome in BAD and self.again == "passed" else self.outcome


@dataclass
class ModuleRun:
    """One stock module, run with one pair."""

    module: str
    seconds: float
    is_timed_out: bool
    left: list[str]
    started: dict[str, int]
    tests: dict[str, Test] = field(default_factory=dict)

    def bad(self) -> list[str]:
        """Return the names of the tests that did not pass at first."""
        return [name for name, test in self.tests.items() if test.outcome in BAD]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModuleRun:
        data = json.loads(text)
        return cls(**{**data, "tests": {name: Test(**test) for name, test in data["tests"].items()}})


def run_module(
    module: str, pair: Pair, out: Path, *, only: Iterable[str] = (), limit: float = MODULE_LIMIT, again: int = 8
) -> ModuleRun:
    """Run a stock module with a pair.

    Args:
        module: of MODULES.
        pair: what to run it against.
        out: directory for logs.
        only: names of tests (test_x.py::Class::test); empty: all that apply.
        limit: seconds, after which pytest is interrupted.
        again: failures, where they are not more than this, are run once more, alone; 0: never.
    """
    out.mkdir(parents=True, exist_ok=True)
    # Short: Unix sockets lie below it.
    place = Path(tempfile.mkdtemp(prefix="cdc-", dir="/tmp"))
    before = leftovers.look()
    started = time.monotonic()
    try:
        is_timed_out = run_pytest(module, pair, place, out / f"{module}.log", list(only), limit)
    finally:
        seconds = time.monotonic() - started
        # The helper of an engine that crashed while its controller was being ended tries for 5 s to report it.
        left = leftovers.find(before, strict=True, patience=10.0)
    found = ModuleRun(module, round(seconds, 1), is_timed_out, left, starts(place / "started"))
    found.tests = read_report(place / "report.xml") or read_log(out / f"{module}.log")
    shutil.rmtree(place, ignore_errors=True)
    bad = found.bad()
    if bad and len(bad) <= again and not is_timed_out:
        second = run_module(module, pair, out / "again", only=bad, limit=limit, again=0)
        for name in bad:
            found.tests[name].again = second.tests[name].outcome if name in second.tests else "missing"
        found.seconds = round(found.seconds + second.seconds, 1)
    return found


def run_pytest(module: str, pair: Pair, place: Path, log: Path, only: list[str], limit: float) -> bool:
    """Run pytest; say whether it had to be ended."""
    command = [
        *(
            PYTHON,
            "-m",
            "pytest",
            "-c",
            HERE / "pytest.ini",
            "--rootdir",
            place,
            "-p",
            "no:cacheprovider",
            "-p",
            "foreign",
        ),
        *("-v", "--durations", "10", "-o", "junit_family=xunit2", "-o", "junit_duration_report=total"),
        *("--junitxml", place / "report.xml", "--compat-class", CLASSES, "--pyargs", f"ipyparallel.tests.{module}"),
    ]
    if only:
        (place / "only").write_text("\n".join(only))
        command += ["--compat-only", place / "only"]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("IPYTHON", "IPP_", "CLUSTERD_"))
    }
    environment |= pair.environment()
    environment |= {
        "PYTHONPATH": str(HERE / "plugin"),
        "COMPAT_STARTED": str(place / "started"),
        "HOME": str(place),
        "TMPDIR": str(place),
        "CLUSTERD_RUNTIME_DIR": str(place / "r"),
        "CLUSTERD_STATE_DIR": str(place / "s"),
        "CLUSTERD_CONFIG_DIR": str(place / "c"),
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            # An interrupt lets pytest write its report.
            process.send_signal(signal.SIGINT)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            return True
        except BaseException:
            process.kill()
            process.wait()
            raise
    return False


def starts(log: Path) -> dict[str, int]:
    """Return how many controllers and engines the shim has become."""
    lines = log.read_text().splitlines() if log.exists() else []
    return dict(Counter(json.loads(line)["kind"] for line in lines))


def read_report(path: Path) -> dict[str, Test]:
    """Return the tests of pytest's XML report; none where it wrote none."""
    tests: dict[str, Test] = {}
    if not path.exists():
        return tests
    for case in ET.parse(path).getroot().iter("testcase"):  # noqa: S314 - pytest's own report, written a moment ago
        properties = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
        name = properties.get("compat_name") or f"{case.get('classname')}::{case.get('name')}"
        elements = {entry.tag: entry for entry in case if entry.tag in {"failure", "error", "skipped"}}
        outcome = "passed"
        if "failure" in elements:
            outcome = "failed"
        elif "error" in elements:
            outcome = "error"
        elif "skipped" in elements:
            outcome = "xfailed" if elements["skipped"].get("type") == "pytest.xfail" else "skipped"
        message = next((entry.get("message") or "" for entry in elements.values()), "")
        # A test that fails and then fails in its teardown stands there twice, and counts once.
        if name not in tests or tests[name].outcome == "passed":
            seconds = round(float(case.get("time") or 0), 2)
            tests[name] = Test(outcome, properties.get("compat_class") or "", seconds, message[:400])
    return tests


def read_log(path: Path) -> dict[str, Test]:
    """Return the tests from what pytest said, where it was killed before its report."""
    words = {"PASSED": "passed", "FAILED": "failed", "ERROR": "error", "SKIPPED": "skipped", "XFAIL": "xfailed"}
    found = re.findall(r"(test_\w+\.py::\S+) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)", path.read_text(errors="replace"))
    return {name: Test(words[word], "", 0.0) for name, word in found}

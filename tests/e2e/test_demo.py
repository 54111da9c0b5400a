"""What a newcomer does first: `make demo`'s own script, with fewer files, must reach its end and leave nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (ROOT / "clusterctl" / "main.py").exists(), reason="there is no clusterctl yet")
def test_the_demo_runs_to_its_end_and_leaves_nothing():
    before = set(Path("/tmp").glob("clusterd-demo.*"))
    # The interpreter that runs the tests, and the programs installed beside it, as `make demo` does with .venv/bin.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", str(ROOT / "examples" / "demo.sh"), "--limit", "150"],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "the engines and this process counted the same" in done.stdout
    assert "Nothing is left: no process, no file." in done.stdout
    assert set(Path("/tmp").glob("clusterd-demo.*")) == before

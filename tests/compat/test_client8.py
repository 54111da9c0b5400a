"""An unchanged Client of ipyparallel 8 on our controller, with our engines and with ipengine 9."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.compat.conftest import IS_STOCK, ROOT

KINDS = [("stock", "stock")] if IS_STOCK else [("ours", "ours"), ("stock", "ours")]
PYTHON = ROOT / ".venv-compat8" / "bin" / "python"


@pytest.fixture
def engines(request, real_engine):
    for kind in request.param:
        real_engine(kind)
    return len(request.param)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("engines", KINDS, ids="+".join, indirect=True)
def test_a_client_of_version_8_finds_everything_as_it_was(controller, engines, tmp_path):
    assert PYTHON.exists(), "`make test` makes .venv-compat8; so does `make .venv-compat8/.installed-compat8`"
    done = subprocess.run(
        [PYTHON, ROOT / "tests" / "compat" / "client8.py", controller.client_file, str(engines)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) >= 10
    assert {name: text for name, text in found.items() if text != "ok"} == {}

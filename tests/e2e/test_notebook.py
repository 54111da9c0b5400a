"""The notebook in examples/, executed: stock ipyparallel on a cluster that was started as the README says."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipyparallel")

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "ipyparallel.ipynb"
# The commands are in the notebook itself, as in the README.
COMMANDS = re.findall(
    r"^    (clusterctl .*)$", "".join(json.loads(NOTEBOOK.read_text())["cells"][0]["source"]), re.MULTILINE
)
RUN = """
import sys

import nbclient
import nbformat

notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=100).execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.fixture
def shell(isolated):
    """Run commands in a newcomer's environment, with the programs that are installed beside this interpreter."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "MPLCONFIGDIR": str(isolated.home / "mpl")}
    (isolated.config / "profiles").mkdir()

    def run(*words):
        done = subprocess.run(
            words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110, check=False
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    yield run
    run("clusterctl", "-p", "local", "stop")


def texts(cell):
    """What a cell shows as text: what it printed, and its results."""
    return "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "") or "\n".join(output.get("traceback", []))
        for output in cell.outputs
    )


def test_the_notebook_shows_what_it_says(shell, isolated):
    assert COMMANDS == ["clusterctl -p local start", "clusterctl -p local connect --ipython"]
    for command in COMMANDS:
        shell(*command.split())
    executed = isolated.home / "executed.ipynb"
    shell(sys.executable, "-c", RUN, str(NOTEBOOK), str(executed))
    cells = {cell.id: cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"}
    shown = {name: texts(cell) for name, cell in cells.items()}

    assert shown["connect"] == "[0, 1, 2, 3]"
    assert sorted(re.findall(r"rank (\d)", shown["scatter"])) == ["0", "1", "2", "3"]
    assert len(re.findall(r"Out\[\d:\d+\]", shown["darts"])) == 4
    assert shown["pi"] == "pi is about 3.14\n"
    # The bar is drawn over itself; its last state is all.
    assert "40/40" in shown["bar"]
    assert shown["best"] == "the longest chain below 40,000 begins at 35,655 and has 324 numbers\n"
    pictures = [
        output["data"]["image/png"] for output in cells["plot"].outputs if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 1
    assert base64.b64decode(pictures[0])[:8] == b"\x89PNG\r\n\x1a\n"
    assert shown["joblib"] == "4950\n"
    assert "ZeroDivisionError" in shown["error"]
    assert shown["native"] == "the same engines: True\nwhat a stock client left there: True\n"


def test_it_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code"
    )

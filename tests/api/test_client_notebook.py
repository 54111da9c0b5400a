"""%px in a real Jupyter kernel: what a notebook shows is put where notebooks show it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

CELLS = [
    "%load_ext clusterd",
    "%px import os, sys",
    "%%px\nprint('printed')\nprint('wrong', file=sys.stderr)\n6 * 7",
    "%%px --targets 0\n%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);",
    "%%px --progress-after 0.1\nimport time\ntime.sleep(0.5)",
    "%autopx",
    "where = 'there'",
    "where",
    "%autopx",
    "'where' in globals()",
    "%px 1 / 0",
]
# In a process of its own: nbclient brings an event loop, threads and sockets.
RUN = """
    import json, sys
    import nbclient, nbformat
    cells = [nbformat.v4.new_code_cell(text) for text in json.loads(sys.argv[1])]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=True).execute()
    print(json.dumps([cell.outputs for cell in notebook.cells]))
"""


def test_a_notebook(cluster, isolated):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RUN), json.dumps(CELLS)],
        env={
            **os.environ,
            "PYTHONPATH": str(Path.cwd()),
            "CLUSTERD_PROFILE": cluster.name,
            "JUPYTER_RUNTIME_DIR": str(isolated.home),
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout.splitlines()[-1])
    texts = ["".join(each.get("text", "") for each in cell if each.get("name") == "stdout") for cell in outputs]
    assert texts[1] == "%px runs on the engines of 'test'\n"
    assert texts[2] == "[stdout:0] printed\n[stdout:1] printed\nOut[0]: 42\nOut[1]: 42\n"
    assert {"name": "stderr", "output_type": "stream", "text": "[stderr:0] wrong\n[stderr:1] wrong\n"} in outputs[2]
    assert texts[3] == "[output:0]\n"
    # Beside it there may be a bar, and matplotlib's word about its font cache: the first plot takes seconds.
    (picture,) = [each["data"]["image/png"] for each in outputs[3] if "image/png" in each.get("data", {})]
    assert len(picture) > 1000
    (bar,) = outputs[4]
    assert bar["data"]["text/plain"] == f"%px: [{'#' * 30}] 2 of 2 engines done"
    assert (texts[5], texts[6], texts[8]) == ("%autopx is on\n", "", "%autopx is off\n")
    assert texts[7] == "Out[0]: 'there'\nOut[1]: 'there'\n"
    assert outputs[9][0]["data"]["text/plain"] == "False"
    (error,) = outputs[10]
    assert error["ename"] == "CellFailed"
    assert "The cell failed on 2 of 2 engines." in error["traceback"]
    assert "ZeroDivisionError: division by zero" in error["traceback"]

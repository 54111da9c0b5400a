"""%px and its family in a real IPython shell, on real engines: output, pictures, errors, Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from clusterd.client.magics.show import CellFailed
from tests.waiting import until


@pytest.fixture
def px(shell, client, capsys):
    """Run a cell of the user; (stdout, what it raised)."""
    shell.run_line_magic("load_ext", "clusterd")
    client.activate()

    def run(cell):
        result = shell.run_cell(cell)
        return capsys.readouterr().out, result.error_in_exec or result.error_before_exec

    return run


def test_a_session(px, client, shell, isolated):
    assert px("%px import os, sys") == ("", None)
    out, error = px("%%px\nprint('line')\nprint('to stderr', file=sys.stderr)\nd = {'a': 1}\nd['a'] + 1")
    assert error is None
    assert out == "[stdout:0] line\n[stdout:1] line\nOut[0]: 2\nOut[1]: 2\n"
    out, error = px("%%px --targets 0 --name job --noblock\nimport time\nfor _ in range(3): print('tick')\nos.getpid()")
    assert error is None
    assert client[0].apply_sync(os.getpid) == int(shell.user_ns["job"].result(30)[0].text)
    assert px("%pxresult")[0].startswith("[stdout:0]\ntick\ntick\ntick\nOut[0]: ")
    # The engines' own IPython: magics, shell commands, names of cells before.
    assert px("%px %who_ls dict")[0] == "Out[0]: ['d']\nOut[1]: ['d']\n"
    assert px("%px -  len(d)")[0] == "Out[0]: -1\nOut[1]: -1\n"
    assert px("%%px --local\nx = 6 * 7")[1] is None
    assert (shell.user_ns["x"], client[:]["x"]) == (42, [42, 42])
    assert px("%autopx")[1] is None
    assert px("y = x + 1\ny")[0] == "Out[0]: 43\nOut[1]: 43\n"
    assert px("%autopx")[1] is None
    assert "y" not in shell.user_ns
    out, error = px("%%px\nrank = os.getpid()\nopen(f'/nowhere/file')")
    assert type(error) is CellFailed
    assert [type(each) for _, each in error.errors] == [FileNotFoundError, FileNotFoundError]
    assert out.count("FileNotFoundError: ") == 1
    assert "open(f'/nowhere/file')" in out
    out, error = px("%%px\nif os.getpid() == rank and rank % 2 >= 0: raise KeyError(rank)")
    assert [type(each) for _, each in error.errors] == [KeyError, KeyError]
    assert "[0]\n" in out
    assert "[1]\n" in out


def test_pictures_are_shown(px, shell, monkeypatch):
    pytest.importorskip("matplotlib_inline")
    published = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, metadata: published.append(data))
    out, error = px("%%px --targets 0\n%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    assert error is None
    assert out == "[output:0]\n"
    assert list(published[0]) == ["image/png", "text/plain"] or "image/png" in published[0]


def test_ctrl_c_interrupts_the_engines(px, client, isolated):
    started = [isolated.home / f"started-{engine}" for engine in client.ids]
    for view, path in zip(client, started, strict=True):
        view["path"] = str(path)

    def interrupt():
        until(lambda: all(path.exists() for path in started), "the cell runs everywhere")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    out, error = px("%%px\nimport pathlib, time\npathlib.Path(path).touch()\ntime.sleep(60)")
    thread.join(30)
    assert type(error) is CellFailed
    assert [type(each) for _, each in error.errors] == [KeyboardInterrupt, KeyboardInterrupt]
    assert "KeyboardInterrupt" in out
    assert px("%px print('on')")[0] == "[stdout:0] on\n[stdout:1] on\n"


def test_ctrl_c_leaves_the_work_of_others_alone(px, client, isolated):
    gate, started = isolated.home / "gate", isolated.home / "started"

    def wait_for(gate, started):
        import pathlib  # noqa: PLC0415
        import time  # noqa: PLC0415

        pathlib.Path(started).touch()
        while not pathlib.Path(gate).exists():
            time.sleep(0.005)
        return "done"

    other = client[0].apply_async(wait_for, str(gate), str(started))
    until(started.exists, "the other's task runs")
    thread = threading.Thread(
        target=lambda: (
            until(lambda: client.queue_status(0)["engines"][0]["queued"] or None, "the cell waits behind it"),
            os.kill(os.getpid(), signal.SIGINT),
        )
    )
    thread.start()
    out, error = px("%%px --targets 0\nmark = 1")
    thread.join(30)
    assert type(error) is CellFailed
    assert "given up before it began" in out
    assert not other.done()
    gate.touch()
    assert other.result(30) == "done"

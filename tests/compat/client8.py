"""Runs under ipyparallel 8: drives a cluster through an unchanged Client and prints, as JSON, what each check found.

    python client8.py CLIENT_FILE ENGINES

A value is "ok" or the traceback. It must not import anything of this project.
"""

import json
import operator
import os
import sys
import traceback

import ipyparallel
import numpy as np
from ipyparallel.error import CompositeError, RemoteError
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output


def double(number):
    return 2 * number


def check_version(client):
    assert ipyparallel.__version__.startswith("8."), ipyparallel.__version__


def check_direct(client):
    view = client[:]
    assert view.apply_sync(operator.add, 1, 2) == [3] * len(client)
    assert len(set(view.apply_sync(os.getpid))) == len(client)
    assert client[0].apply_sync(double, 21) == 42


def check_push_pull_and_scatter(client):
    view = client[:]
    view.push({"a": [1, 2], "b": np.arange(1000.0)}, block=True)
    assert view.pull("a", block=True) == [[1, 2]] * len(client)
    assert (view.pull("b", block=True)[0] == np.arange(1000.0)).all()
    view.scatter("part", list(range(64)), block=True)
    assert list(view.gather("part", block=True)) == list(range(64))


def check_balanced(client):
    view = client.load_balanced_view()
    assert view.map_sync(double, range(40)) == list(range(0, 80, 2))
    first = view.apply_async(double, 1)
    with view.temp_flags(after=[first], retries=2):
        assert view.apply_async(double, 2).get(20) == 4
    assert list(view.imap(double, range(5))) == [0, 2, 4, 6, 8]


def check_broadcast(client):
    view = client.broadcast_view()
    view.is_coalescing = False
    assert view.apply_sync(double, 4) == [8] * len(client)
    view.is_coalescing = True
    assert view.apply_sync(double, 5) == [10] * len(client)


def check_errors(client):
    try:
        client[0].apply_sync(operator.truediv, 1, 0)
    except RemoteError as error:
        assert error.ename == "ZeroDivisionError"
        assert error.engine_info["engine_id"] == client.ids[0]
    else:
        raise AssertionError("no error")
    try:
        client[:].apply_sync(operator.truediv, 1, 0)
    except CompositeError as error:
        assert len(error.elist) == len(client)
    else:
        raise AssertionError("no error")


def check_px(client):
    shell = InteractiveShell.instance()
    client.activate()
    with capture_output() as captured:
        shell.run_line_magic("px", "print('from an engine')")
        shell.run_cell_magic("px", "", "import os\nos.getpid()")
    assert captured.stdout.count("from an engine") == len(client), captured.stdout
    assert "Out[" in captured.stdout or any("text/plain" in output.data for output in captured.outputs)


def check_status_and_history(client):
    result = client[0].apply_async(double, 3)
    result.wait(10)
    status = client.queue_status()
    assert status["unassigned"] == 0
    assert result.msg_ids[0] in client.hub_history()
    again = client.get_result(result.msg_ids[0], owner=False)
    assert again.get(10) == 6
    records = client.db_query({"msg_id": result.msg_ids[0]}, keys=["completed", "engine_uuid"])
    assert records[0]["completed"]


def check_executor(client):
    executor = client.executor()
    assert list(executor.map(double, range(5))) == [0, 2, 4, 6, 8]


def check_abort_and_clear(client):
    view = client[0]
    view.block = True
    view["kept"] = 1
    client.clear(targets=[0], block=True)
    try:
        view.pull("kept", block=True)
    except RemoteError as error:
        assert error.ename == "NameError"
    else:
        raise AssertionError("not cleared")
    assert client.abort(targets=[0], block=True) is None


def main():
    found = {}
    with ipyparallel.Client(sys.argv[1], timeout=20) as client:
        client.wait_for_engines(int(sys.argv[2]), timeout=30)
        for name, check in list(globals().items()):
            if name.startswith("check_"):
                try:
                    check(client)
                    found[name] = "ok"
                except BaseException:
                    found[name] = traceback.format_exc()
    print(json.dumps(found))


if __name__ == "__main__":
    main()

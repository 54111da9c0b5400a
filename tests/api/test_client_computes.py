"""The client against the real thing: each call of the API once, and what only real engines show."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import clusterd
from clusterd.errors import EngineLost, TaskAborted, TaskTimeout
from tests.waiting import until


def test_calls(client):
    view = client.load_balanced_view()
    offset = 5
    assert view.apply_sync(lambda x, *, y: x + y + offset, 1, y=2) == 8
    pids = client[:].apply_sync(os.getpid)
    assert len(set(pids)) == 2
    assert os.getpid() not in pids
    assert client[-1].apply_sync(os.getpid) == pids[-1]
    futures = [view.apply_async(pow, number, 2) for number in range(500)]
    assert [future.result(30) for future in futures] == [number**2 for number in range(500)]
    assert {future.engine_id for future in futures} <= set(client.ids)
    with client.executor() as executor:
        assert list(executor.map(pow, range(50), range(50))) == [number**number for number in range(50)]

    async def main():
        return await asyncio.gather(*(asyncio.wrap_future(view.apply_async(abs, -number)) for number in range(10)))

    assert asyncio.run(main()) == list(range(10))


def test_names_cells_and_output(client):
    view = client[:]
    view["x"] = 3
    view.scatter("part", range(10), block=True)
    assert view.gather("part", block=True) == list(range(10))
    assert view.apply_sync(lambda: x * len(part)) == [15, 15]  # noqa: F821 - names of the engines
    cell = client[0].execute("print('to stdout'); import sys; print('to stderr', file=sys.stderr); x ** 2", block=True)
    assert (cell.stdout, cell.stderr, cell.text) == ("to stdout\n", "to stderr\n", "9")
    assert repr(cell).endswith(f"Out[{cell.engine_id}]: 9")
    shown = client[0].execute("from IPython.display import display, HTML; display(HTML('<b>bold</b>'))", block=True)
    assert shown.display[0]["data"]["text/html"] == "<b>bold</b>"
    future = view.apply_async(print, "hello")
    future.result(30)
    assert future.stdout == ["hello\n", "hello\n"]
    view.clear(block=True)
    with pytest.raises(NameError, match="'x'"):
        client[0]["x"]


def test_arrays(client):
    array = np.random.default_rng(1).random((1000, 1000))
    view = client[:]
    view["a"] = array
    assert all(np.array_equal(copy, array) for copy in view["a"])
    assert np.allclose(view.apply_sync(lambda b: (a @ b).sum(), array.T), (array @ array.T).sum())  # noqa: F821
    chunks = client.load_balanced_view().map_sync(np.sum, [array] * 20)
    assert np.allclose(chunks, array.sum())


def outer(x):
    return inner(x)


def inner(x):
    return 1 / x


def test_remote_tracebacks_show_the_remote_lines(client):
    with pytest.raises(ZeroDivisionError) as caught:
        client.load_balanced_view().apply_sync(outer, 0)
    text = str(caught.value.__cause__)
    assert "return inner(x)" in text
    assert "return 1 / x" in text
    assert "clusterd/engine" not in text
    assert re.search(r"task [0-9a-f]{32}, engine \d+ \(test/engines/\d\), attempt 0", caught.value.__notes__[0])
    with pytest.raises(ZeroDivisionError) as caught:
        client.load_balanced_view().map_sync(outer, [3, 2, 1, 0, 1], chunksize=5)
    assert "item 3, " in caught.value.__notes__[0]


def test_maps(client):
    view = client.load_balanced_view()
    assert view.map_sync(abs, range(-50_000, 0)) == list(range(50_000, 0, -1))
    assert sorted(view.map_async(abs, range(1000), ordered=False)) == list(range(1000))
    assert list(view.imap(abs, iter(range(1000)))) == list(range(1000))
    assert client[:].map_sync(pow, range(10), range(10)) == [number**number for number in range(10)]


def test_a_file_is_run(client, isolated):
    path = isolated.home / "script.py"
    path.write_text("def double(x):\n    return 2 * x\nanswer = double(21)\n")
    client[:].run(path, block=True)
    assert client[:]["answer"] == [42, 42]


def test_retries_timeouts_and_order(client, isolated):
    counter = isolated.home / "attempts"

    def flaky(path):
        with Path(path).open("a") as file:
            file.write("x")
        if len(Path(path).read_text()) < 3:
            raise OSError("not yet")
        return "done"

    view = client.load_balanced_view(retries=5)
    future = view.apply_async(flaky, str(counter))
    assert future.result(30) == "done"
    assert future.attempt == 2
    hasty = client.load_balanced_view(timeout=0.2)
    with pytest.raises(TaskTimeout):
        hasty.apply_async(lambda: __import__("time").sleep(60)).result(30)
    order = isolated.home / "order"
    first = client[0].apply_async(lambda path: Path(path).write_text("1"), str(order))
    with view.temp_flags(after=first):
        assert view.apply_async(lambda path: Path(path).read_text(), str(order)).result(30) == "1"


def test_a_task_that_waits_is_aborted_and_one_that_runs_is_interrupted(client, isolated):
    started = isolated.home / "started"

    def sleep(path):
        import time  # noqa: PLC0415

        Path(path).touch()
        time.sleep(60)

    running = client[0].apply_async(sleep, str(started))
    until(started.exists, "the task begins")
    waiting = [client[0].apply_async(abs, number) for number in range(5)]
    assert waiting[0].cancel()
    assert client.abort(waiting[1:]) == 4
    assert waiting[0].cancelled()
    with pytest.raises(TaskAborted):
        waiting[1].result(30)
    assert client.queue_status(0)["engines"][0]["running"] == 1
    assert client[0].interrupt() == [0]
    with pytest.raises(KeyboardInterrupt):
        running.result(30)
    assert client[0].apply_sync(abs, -1) == 1


def test_an_engine_dies(client):
    with pytest.raises(EngineLost, match=r"test/engines/|engines/") as caught:
        client[0].apply_async(lambda: os.kill(os.getpid(), 9)).result(30)
    assert "signal 9" in str(caught.value) or "SIGKILL" in str(caught.value)
    # Its place is filled by a new engine with a new id.
    until(lambda: len(client.ids) == 2 and 0 not in client.ids, "the new engine")
    assert client[:].apply_sync(abs, -1) == [1, 1]
    with pytest.raises(IndexError, match="no engine 0 any more"):
        client[0]


def test_engines_are_restarted_by_the_client(client):
    before = client[:].apply_sync(os.getpid)
    assert client.restart(client.ids) == [0, 1]
    until(lambda: len(client.ids) == 2 and not {0, 1} & set(client.ids), "the new engines")
    assert not set(before) & set(client[:].apply_sync(os.getpid))


def test_many_threads_share_a_client(client):
    view = client.load_balanced_view()
    results = [None] * 8

    def work(number):
        for _ in range(50):
            results[number] = view.apply_sync(pow, number, 2)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [number**2 for number in range(8)]


def test_a_client_inside_a_task(client, cluster):
    def nested(name):
        with clusterd.Client(name) as inner:
            return inner.load_balanced_view([1]).apply_sync(pow, 2, 10)

    assert client[0].apply_async(nested, cluster.name).result(30) == 1024


SCRIPT = """
    import os, signal, threading
    import clusterd

    client = clusterd.Client({name!r})
    view = client.load_balanced_view()
    print(view.apply_sync(pow, 2, 8))

    # Ctrl-C in the main thread, which carries the messages itself while it waits.
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        view.apply_sync(__import__("time").sleep, 5)
    except KeyboardInterrupt:
        print("interrupted")
    for number in range(100):
        assert view.apply_sync(abs, -number) == number
    print(sum(view.map_sync(abs, range(1000))))
    # Unclosed on purpose: the end of the process must not hang.
"""


def test_a_script_in_a_main_thread(cluster, isolated):
    path = isolated.home / "script.py"
    path.write_text(textwrap.dedent(SCRIPT.format(name=cluster.name)))
    done = subprocess.run(
        [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "256\ninterrupted\n499500\n", done.stderr
    assert (done.returncode, done.stderr) == (0, "")


def test_futures_wait_together(client):
    futures = [client.load_balanced_view().apply_async(abs, number) for number in range(100)]
    assert len(concurrent.futures.wait(futures, timeout=30).done) == 100
    assert sorted(future.result() for future in concurrent.futures.as_completed(futures)) == list(range(100))

"""Requests of stock clients: what is answered, with the library that those clients use on the other side."""

from __future__ import annotations

import asyncio
import functools
import gc
import operator
import os
import signal
import sys
import threading
import time

import cloudpickle
import comm
import numpy as np
import pytest
from ipykernel.zmqshell import ZMQInteractiveShell
from ipyparallel import serialize, util
from ipyparallel.controller.dependency import depend, dependent
from ipyparallel.datapub import publish_data
from ipyparallel.error import UnmetDependency
from ipyparallel.serialize import PrePickled, Reference
from IPython import get_ipython

from clusterd.core.wire import messages as m
from clusterd.core.wire import payload
from clusterd.engine import shell as shell_module
from clusterd.engine.stock import library
from clusterd.errors import TaskNotSendable
from tests.unit.engine.stock import UUID, StockEngine


class Mean(Exception):
    def __str__(self):
        raise RuntimeError("never")


INFO = {"engine_uuid": UUID.hex(), "engine_id": 7}


@pytest.fixture
def engine(shell, capfd):
    yield StockEngine(shell)
    capfd.readouterr()
    serialize.use_pickle()


# --- apply ---


def test_a_call_is_answered_with_its_value_and_the_keys_that_the_scheduler_reads(engine):
    reply = engine.apply(operator.add, 1, 2)
    assert reply.status == m.STATUS_OK
    assert reply.content == {"status": "ok"}
    started = reply.metadata.pop("started")
    assert started.endswith("Z")
    assert len(started) == len("2026-11-22T20:36:55.381166Z")
    assert reply.metadata == {
        "dependencies_met": True,
        "engine": UUID.hex(),
        "is_broadcast": False,
        "is_coalescing": False,
        "original_msg_id": "",
        "label": None,
        "status": "ok",
    }
    assert reply.published == []
    assert engine.value(operator.add, 1, 2) == 3


def test_what_the_request_says_of_itself_is_echoed(engine):
    said = {"is_broadcast": True, "is_coalescing": True, "original_msg_id": "o", "label": "L", "retries": 3}
    reply = engine.request("apply_request", buffers=[b"junk"], metadata=said)
    assert {key: reply.metadata[key] for key in said if key != "retries"} == {
        key: value for key, value in said.items() if key != "retries"
    }
    assert "retries" not in reply.metadata
    assert reply.metadata["status"] == "error"


def test_functions_share_the_names_of_the_one_namespace(engine):
    engine.execute("a = 5")
    code = compile("def f(b):\n    global c\n    c = a + b\n    return c", "<client>", "exec")
    names = {"__name__": "__main__"}
    exec(code, names)  # noqa: S102
    assert engine.value(names["f"], 2) == 7
    assert engine.executor.namespace.pull(["c"]) == [7]
    assert engine.value(operator.add, Reference("a"), Reference("c")) == 12


def test_push_pull_and_execute_are_calls_of_ipyparallels_own_functions(engine):
    engine.value(util._push, x=1, y="two")
    assert engine.value(util._pull, ["x", "y"]) == [1, "two"]
    assert engine.value(util._pull, "x + 1") == 2
    reply = engine.apply(util._pull, "nosuch")
    assert reply.content["ename"] == "NameError"


def test_large_buffers_travel_beside_the_pickle_and_arrays_can_be_changed(engine):
    block = os.urandom(3_000_000)
    reply = engine.apply(lambda given: given, block)
    assert [len(frame) for frame in reply.frames][1:] == [3_000_000]
    assert serialize.deserialize_object(reply.frames)[0] == block
    array = np.arange(30_000.0).reshape(100, 300)

    def change(given):
        given[0, 0] = 7
        return given.T

    back = engine.value(change, array)
    assert back.shape == (300, 100)
    assert back[0, 0] == 7


def test_an_argument_that_was_packed_before(engine):
    assert engine.value(len, PrePickled(b"x" * 5000)) == 5000


def test_lambdas_closures_partials_and_classes(engine):
    base = 10
    assert engine.value(lambda x: x + base, 1) == 11
    assert engine.value(functools.partial(pow, 2), 5) == 32


@pytest.mark.parametrize("name", ["use_dill", "use_cloudpickle"])
def test_the_pickler_is_switched_inside_the_library(engine, name):
    engine.value(getattr(serialize, name))
    # Both sides are one process here: the request is packed with it, too.
    assert serialize.serialize.pickle.__name__.startswith(name.removeprefix("use_"))
    made = engine.value(lambda: lambda x: x + 1)
    assert made(1) == 2


def test_an_error_is_told_to_the_caller_and_to_whoever_listens(engine):
    def fail():
        raise ValueError("no")

    reply = engine.apply(fail)
    assert reply.status == m.STATUS_ERROR
    content = reply.content
    assert (content["status"], content["ename"], content["evalue"]) == ("error", "ValueError", "no")
    assert content["engine_info"] == {**INFO, "method": "apply"}
    assert reply.metadata["engine_info"] == INFO
    assert reply.metadata["status"] == "error"
    assert reply.metadata["dependencies_met"] is True
    assert reply.frames == []
    text = "\n".join(content["traceback"])
    assert 'raise ValueError("no")' in text
    assert "clusterd/engine" not in text
    assert "\x1b" not in text
    assert reply.published == [("error", {key: content[key] for key in ("ename", "evalue", "traceback")})]


def test_an_unmet_dependency_is_no_failure_of_the_task(engine):
    reply = engine.apply(depend(lambda: False)(lambda: 1))
    assert reply.status == m.STATUS_UNMET
    assert reply.content["ename"] == UnmetDependency.__name__
    assert reply.metadata["dependencies_met"] is False
    assert engine.value(dependent(len, lambda given: given, True), "abc") == 3


@pytest.mark.parametrize(
    ("function", "ename"),
    [(lambda: sys.exit(3), "SystemExit"), (lambda: (yield), "TypeError"), (threading.Lock, "TypeError")],
    ids=["exit", "generator", "lock"],
)
def test_nothing_that_a_task_does_ends_the_engine(engine, function, ename):
    reply = engine.apply(function)
    assert reply.content["ename"] == ename
    assert reply.frames == []
    assert engine.value(abs, -1) == 1


def test_an_error_whose_text_cannot_be_had(engine):
    def fail():
        raise Mean

    reply = engine.apply(fail)
    assert reply.content["ename"] == "Mean"
    assert "RuntimeError" in reply.content["evalue"]


@pytest.mark.parametrize("buffers", [[], [b"junk"], [b"\x80\x04N.", b"\x80\x04N."], [b"\x80\x04]."] * 3])
def test_what_cannot_be_decoded_is_an_error_reply(engine, buffers):
    reply = engine.request("apply_request", buffers=buffers)
    assert reply.content["status"] == "error"
    assert reply.content["engine_info"] == {**INFO, "method": "apply"}


def test_a_request_that_is_none(engine):
    reply = engine.run(b"\x93junk")
    assert reply.content["ename"] == "WireError"
    reply = engine.request("kernel_info_request")
    assert "engines know no kernel_info_request" in reply.content["evalue"]


def test_without_the_library_the_reply_says_what_to_install(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipyparallel.serialize", None)
    reply = engine.apply(abs, -1)
    assert "pip install 'clusterd[ipyparallel]'" in reply.content["evalue"]
    assert sys.executable in reply.content["evalue"]
    # Cells need none of it.
    assert engine.execute("1 + 1").shown("execute_result")[0]["data"] == {"text/plain": "2"}


def test_arguments_are_let_go_when_the_task_has_failed(engine):
    class Thing:
        pass

    engine.executor.namespace.push({"Thing": Thing})
    gone = threading.Event()
    engine.executor.namespace.push({"gone": gone})
    engine.execute("import weakref\ndef fail():\n    t = Thing()\n    weakref.finalize(t, gone.set)\n    1 / 0")
    assert engine.execute("fail()").content["ename"] == "ZeroDivisionError"
    gc.collect()  # what shows tracebacks leaves cycles
    assert gone.is_set()


# --- signals ---


@pytest.fixture
def signals(engine):
    before = signal.signal(signal.SIGINT, engine.executor.on_interrupt)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_is_an_error_reply(engine, signals):
    def wait():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)

    assert engine.apply(wait).content["ename"] == "KeyboardInterrupt"
    reply = engine.execute("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)")
    assert reply.content["ename"] == "KeyboardInterrupt"
    assert reply.content["engine_info"] == {**INFO, "method": "execute"}


def test_an_interrupt_in_the_middle_of_sending_waits_until_that_is_done(engine, signals):
    asked = []

    def interrupt():
        if not asked:
            asked.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    engine.link.when_asked = interrupt
    reply = engine.apply(print, "x")
    assert reply.content["ename"] == "KeyboardInterrupt"
    assert reply.text() == "x\n"
    assert engine.value(abs, -1) == 1


# --- execute ---


def test_a_cell_shows_its_input_and_its_value(engine):
    engine.shell.execution_count = 1
    reply = engine.execute("x = 3\nx + 1", user_expressions={"double": "x * 2", "wrong": "nosuch"})
    assert [kind for kind, _ in reply.published] == ["execute_input", "execute_result"]
    assert reply.shown("execute_input") == [{"code": "x = 3\nx + 1", "execution_count": 1}]
    assert reply.shown("execute_result") == [{"data": {"text/plain": "4"}, "metadata": {}, "execution_count": 1}]
    content = reply.content
    assert (content["status"], content["execution_count"], content["payload"]) == ("ok", 1, [])
    assert content["user_expressions"]["double"]["data"] == {"text/plain": "6"}
    assert content["user_expressions"]["wrong"]["status"] == "error"
    assert engine.execute("1;").published == [("execute_input", {"code": "1;", "execution_count": 2})]


def test_a_silent_cell_shows_nothing_and_counts_for_nothing(engine):
    engine.shell.execution_count = 5
    reply = engine.execute("y = 4\ny", silent=True)
    assert reply.published == []
    assert reply.content["execution_count"] == 4
    assert engine.shell.execution_count == 5
    assert engine.value(util._pull, "y") == 4
    engine.execute("1", store_history=False)
    assert engine.shell.execution_count == 5


@pytest.mark.parametrize(
    ("code", "ename", "part"),
    [("def f():\n    1 / 0\nf()", "ZeroDivisionError", "in f()"), ("x = = 1", "SyntaxError", "invalid syntax")],
)
@pytest.mark.parametrize("silent", [True, False])
def test_an_error_of_a_cell(engine, code, ename, part, silent):
    reply = engine.execute(code, silent=silent)
    assert reply.status == m.STATUS_ERROR
    content = reply.content
    assert (content["status"], content["ename"]) == ("error", ename)
    assert content["engine_info"] == {**INFO, "method": "execute"}
    assert content["user_expressions"] == {}
    assert content["payload"] == []
    assert isinstance(content["execution_count"], int)
    assert part in "\n".join(content["traceback"])
    assert [shown["ename"] for shown in reply.shown("error")] == [ename]


def test_displays_magics_and_help(engine):
    reply = engine.execute(
        "from IPython.display import display, clear_output\nd = display('a', display_id='i')\nd.update('b')"
    )
    first, second = reply.shown("display_data")[0], reply.shown("update_display_data")[0]
    assert first["transient"] == second["transient"] == {"display_id": "i"}
    assert (first["data"], second["data"]) == ({"text/plain": "'a'"}, {"text/plain": "'b'"})
    assert engine.execute("clear_output(wait=True)").shown("clear_output") == [{"wait": True}]
    assert "len" in engine.execute("%who_ls\nlen?").content["payload"][0]["data"]["text/plain"]
    assert engine.execute("1").content["payload"] == []
    assert engine.execute("!echo from a shell").text().split() == ["from", "a", "shell"]


def test_what_json_does_not_know_is_shown_as_text(engine):
    code = (
        "import numpy\n"
        "display({'image/png': b'\\x89PNG', 'a/b': {1: numpy.float64(2.5), 'n': float('nan')}, 'c/d': object, 'e/f': '\\ud800'}, raw=True)"
    )
    data = engine.execute(code).shown("display_data")[0]["data"]
    assert data == {"image/png": "iVBORw==", "a/b": {"1": 2.5, "n": None}, "c/d": "<class 'object'>", "e/f": "?"}


def test_a_picture_that_is_too_large_is_a_note(engine):
    reply = engine.execute("display({'image/png': 'x' * 9_000_000}, raw=True)")
    assert "bytes of rich output dropped" in reply.shown("display_data")[0]["data"]["text/plain"]


def test_pictures_of_matplotlib(engine):
    # Its first import may build a cache of fonts, and says so on stderr.
    reply = engine.execute("%matplotlib inline\nimport matplotlib.pyplot as plt\nlines = plt.plot([1, 2])")
    assert reply.content["status"] == "ok"
    assert reply.shown("display_data")[0]["data"]["image/png"].startswith("iVBORw0KGgo")


# --- what functions find ---


def test_the_shell_is_found_as_ipykernels(engine):
    def look():
        return ZMQInteractiveShell.instance() is get_ipython()

    assert engine.value(look)
    assert isinstance(engine.shell, shell_module.EngineShell)
    # Its behaviour is ours: no colours, no pager through a terminal.
    assert type(engine.shell).run_cell is shell_module.InteractiveShell.run_cell


def test_data_is_published_with_its_buffers(engine):
    reply = engine.apply(lambda: publish_data({"a": bytes(3000), "b": 1}))
    assert reply.published == [("data_message", {"keys": ["a", "b"]})]
    assert serialize.deserialize_object(reply.published_frames[0])[0] == {"a": bytes(3000), "b": 1}


def test_data_over_the_limit_is_the_tasks_error(engine):
    engine.link.welcome = m.Welcome(1, b"", b"", b"", "", m.Limits(max_message=10_000))
    reply = engine.apply(lambda: publish_data({"a": bytes(20_000)}))
    assert reply.content["ename"] == TaskNotSendable.__name__
    assert "the controller takes 10000" in reply.content["evalue"]


def test_comms_go_both_ways(engine, monkeypatch):
    monkeypatch.setattr(comm, "create_comm", comm.create_comm)
    code = (
        "import comm\nheard = []\nc = comm.create_comm(target_name='t', data={'x': 1})\n"
        "c.on_msg(heard.append)\nc.send({'y': 2}, buffers=[b'zz'])"
    )
    reply = engine.execute(code)
    opened, sent = reply.shown("comm_open")[0], reply.shown("comm_msg")[0]
    assert (opened["target_name"], opened["data"], sent["data"]) == ("t", {"x": 1}, {"y": 2})
    assert reply.published_frames[-1] == [b"zz"]
    engine.request("comm_msg", {"comm_id": opened["comm_id"], "data": {"z": 3}}, buffers=[b"b"])
    heard = engine.shell.user_ns["heard"][0]
    assert heard["content"]["data"] == {"z": 3}
    assert heard["buffers"] == [b"b"]
    assert engine.execute("c.close()").shown("comm_close")[0]["comm_id"] == opened["comm_id"]


def test_another_who_takes_the_place_of_our_comms_is_put_out_again(engine, monkeypatch):
    monkeypatch.setattr(comm, "create_comm", None)
    assert engine.execute("import comm\ncomm.create_comm(target_name='t').close()").shown("comm_open")


def test_after_a_clear_all_of_it_works_still(engine):
    engine.execute("x = 1")
    body, frames = b"\x80\x05N.", ()
    assert engine.executor.run(m.CLEAR, None, body, frames).status == m.STATUS_OK
    assert engine.apply(util._pull, "x").content["ename"] == "NameError"
    engine.value(util._push, x=2)
    assert engine.value(util._pull, "x") == 2
    assert engine.execute("get_ipython()").content["status"] == "ok"
    assert library.SERIALIZE in sys.modules


def test_native_tasks_keep_their_output_for_their_result(engine):
    engine.apply(print, "stock")
    body, _ = payload.pack("print('native')", cloudpickle.dumps)
    with engine.installed():
        outcome = engine.executor.run(m.EXECUTE, None, body, ())
    assert outcome.stdout == "native\n"


def test_a_coroutine_that_is_put_on_the_loop_runs_between_tasks(engine):
    """As `Client.become_dask` does it."""
    code = (
        "import asyncio, threading\n"
        "async def work():\n    await asyncio.sleep(0)\n    done.set()\n"
        "done = threading.Event()\n"
        "kernel = get_ipython().kernel\n"
        "assert kernel.dask_worker is None\n"
        "task = asyncio.ensure_future(work())\n"
    )
    engine.value(abs, -1)  # with which the kernel comes
    before = threading.active_count()
    assert engine.execute(code).content["status"] == "ok"
    kernel = engine.shell.kernel
    assert engine.shell.user_ns["done"].wait(20)
    assert threading.active_count() == before + 1
    assert (kernel.engine_id, kernel.ident) == (7, UUID.hex())
    kernel.distributed_worker = "w"
    assert kernel.dask_worker == "w"
    assert kernel.comm_manager is comm.get_comm_manager()
    # As at the end of the process, but in order.
    loop, thread = kernel._loop, next(each for each in threading.enumerate() if each.name == "clusterd event loop")
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    asyncio.set_event_loop(None)

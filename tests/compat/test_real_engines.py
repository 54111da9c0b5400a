"""Our engine and ipengine on our controller, driven by a hand-made client: control under load, threads, signals, deaths."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.compat.framing import execution
from tests.waiting import until

SOON = 1.0
"""Seconds in which control has to be answered on a machine that is busy."""

# Backtracks for hours and never lets another thread run; looks at signals now and then.
HOLD = "print('holding', flush=True)\nimport re\nre.match('(a+)+$', 'a' * 40 + 'b')"

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(params=["ours", "stock"])
def real(request, controller, client, real_engine):
    """(process, uuid, id) of an engine that has joined, and whose helper, which answers control for it, has too."""
    program = real_engine(request.param)
    notice = client.notice("registration_notification").content
    if request.param == "ours":
        until(lambda: "attached: agent" in controller.said(), "the helper", about=controller.said)
    return program, notice["uuid"], notice["id"]


def timed(call):
    started = time.monotonic()
    value = call()
    return value, time.monotonic() - started


def hold(client, name):
    """Send it code that holds the interpreter; returns when it does."""
    sent = client.execute(name, HOLD, silent=False)
    while True:
        message = client.receive("iopub")
        if message.kind == "stream" and message.parent["msg_id"] == sent:
            assert message.content["text"].startswith("holding")
            return sent


def test_control_is_answered_while_user_code_holds_the_interpreter(client, real):
    _, name, number = real
    held = hold(client, name)
    direct = client.apply(name, os.getpid)
    asked = {"targets": [number], "verbose": True}
    until(
        lambda: set(client.ask("queue_request", asked, SOON)[str(number)]["queue"]) == {held, direct}, "both are there"
    )
    reply, taken = timed(lambda: client.answer(client.send("control", "abort_request", {"msg_ids": [direct]}, to=name)))
    assert (reply.content["status"], taken < SOON) == ("ok", True), reply.content
    assert client.maybe_answer(held, 0) is None
    reply, taken = timed(
        lambda: client.answer(client.send("control", "signal_request", {"sig": "SIGINT"}, to=name), 10)
    )
    assert (reply.content["status"], taken < SOON) == ("ok", True), reply.content
    reply = client.answer(held)
    assert (reply.status, reply.content["ename"]) == ("error", "KeyboardInterrupt")
    assert client.answer(direct).status == "aborted"
    assert client.answer(client.apply(name, os.getpid)).value > 0


@pytest.mark.parametrize("real", ["ours"], indirect=True)
def test_a_clear_is_done_when_the_running_task_is(client, real):
    """ipengine clears beside the running task, which may then be reading what goes away."""
    _, name, _ = real
    assert client.answer(client.execute(name, "kept = 1")).status == "ok"
    held = hold(client, name)
    clear = client.send("control", "clear_request", {}, to=name)
    signalled = client.send("control", "signal_request", {"sig": signal.SIGINT.value}, to=name)
    assert client.answer(signalled).content == {"status": "ok"}
    assert client.answer(held).content["ename"] == "KeyboardInterrupt"
    assert client.answer(clear).status == "ok"
    reply = client.answer(client.execute(name, "kept"))
    assert (reply.status, reply.content["ename"]) == ("error", "NameError")
    assert reply.content["engine_info"]["method"] == "execute"


def test_user_code_runs_in_the_main_thread(client, real):
    _, name, _ = real
    code = "import threading, signal\nassert threading.current_thread() is threading.main_thread()\nsignal.signal(signal.SIGUSR2, print)"
    reply = client.answer(client.execute(name, code))
    assert reply.status == "ok", reply.content


def test_the_engine_is_the_process_that_was_started(client, real):
    program, name, _ = real
    assert client.answer(client.apply(name, os.getpid)).value == program.process.pid


def test_a_wrong_signal_is_an_error_and_not_a_death(client, real):
    _, name, _ = real
    reply = client.answer(client.send("control", "signal_request", {"sig": 4711}, to=name))
    assert reply.status == "error"
    assert client.answer(client.apply(name, abs, -1)).value == 1


def test_a_killed_engine_is_told_of_at_once(client, real):
    program, name, number = real
    task = client.submit(time.sleep, 60)
    asked = {"targets": [number], "verbose": False}
    until(lambda: client.ask("queue_request", asked)[str(number)]["tasks"] == 1, "it runs")
    direct = client.apply(name, time.sleep, 60)
    program.process.kill()
    program.process.wait()
    notice, taken = timed(lambda: client.notice("unregistration_notification", name))
    assert notice.content["id"] == number
    assert taken < 2 * SOON
    # Balanced work has no other way to learn it; direct work is failed by a Client itself.
    assert client.answer(task).content["ename"] == "EngineError"
    reply = client.maybe_answer(direct)
    assert reply is None or reply.content["ename"] == "EngineError"


def test_shutdown_of_an_engine_ends_its_process(client, real):
    program, name, _ = real
    reply = client.answer(client.send("control", "shutdown_request", {"restart": False}, to=name))
    assert reply.status == "ok", reply.content
    client.notice("unregistration_notification", name)
    program.process.wait(15)


def test_output_comes_in_order_and_before_idle(client, real):
    _, name, _ = real
    # Subscriptions are known to the other side when the first output has come.
    hello = client.execute(name, "print('hello', flush=True)", silent=False)
    assert client.output(hello)
    sent = client.send(
        "mux", "execute_request", execution("for i in range(50): print(i, flush=True)\n7", silent=False), to=name
    )
    found = client.output(sent)
    text = "".join(message.content["text"] for message in found if message.kind == "stream")
    assert text.split() == [str(i) for i in range(50)]
    kinds = [message.kind for message in found]
    assert kinds[0] == "status"
    assert kinds[-1] == "status"
    assert kinds.index("execute_input") < kinds.index("stream") < kinds.index("execute_result")
    assert found[kinds.index("execute_result")].content["data"]["text/plain"] == "7"
    assert all(message.metadata.get("engine", name) == name for message in found)
    reply = client.answer(sent)
    assert reply.content["execution_count"] == found[kinds.index("execute_result")].content["execution_count"]

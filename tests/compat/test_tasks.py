"""Balanced and direct work on stock engines: retries, refusals, time-outs, engines that are gone, and what is counted."""

from __future__ import annotations

import os
import time

import pytest

from tests.compat.conftest import IS_STOCK
from tests.compat.peer import QUIET
from tests.waiting import until


@pytest.fixture
def two(join):
    return [join(), join()]


def counts(client):
    """(queue, completed, tasks) of each engine, and what is not assigned."""
    reply = client.ask("queue_request", {"targets": None, "verbose": False})
    assert reply.pop("status") == "ok"
    unassigned = reply.pop("unassigned")
    return {
        int(number): (found["queue"], found["completed"], found["tasks"]) for number, found in reply.items()
    }, unassigned


def gone(client, engine):
    engine.stop_beating()
    engine.leave()
    client.notice("unregistration_notification", engine.name)


def play(engines, client, task, answer, limit=30.0):
    """Let `answer(engine, request)` answer whatever comes until the task has its reply; returns (reply, who got it)."""
    tried = []
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        for engine in engines:
            request = engine.maybe("shell", 0.01)
            if request is not None:
                tried.append((engine.id, request))
                answer(engine, request)
        reply = client.maybe_answer(task, 0.01)
        if reply is not None:
            return reply, tried
    raise AssertionError(f"no reply to {task} within {limit} s; it was tried by {[number for number, _ in tried]}")


def test_the_request_reaches_the_engine_as_it_was_sent(client, engine):
    sent = client.submit(abs, -1, label="mine")
    request = engine.request()
    assert (request.header["msg_id"], request.header["session"]) == (sent, client.framing.session)
    assert request.metadata["label"] == "mine"
    frames = engine.reply(request, 1)
    reply = client.answer(sent)
    # Header, content and buffers of the reply likewise; its parent is the request's header.
    assert (reply.header["msg_id"].split("_")[0], reply.buffers) == (engine.name, frames[-1:])
    assert reply.parent == request.header
    assert reply.metadata["engine"] == engine.name
    assert reply.metadata["label"] == "mine"


@pytest.mark.skipif(IS_STOCK, reason="ipcontroller tries each engine once and then waits for ever")
def test_five_retries_on_two_engines_end(client, two):
    task = client.submit(os.getpid, retries=5)
    reply, tried = play(two, client, task, lambda engine, request: engine.fail(request, "OSError", "again"))
    assert (reply.status, reply.content["ename"]) == ("error", "OSError")
    assert len(tried) == 6
    assert {number for number, _ in tried} == {0, 1}
    # The same task, never the same message: an engine is silent about a signature that it has seen.
    assert {request.header["msg_id"] for _, request in tried} == {task}
    assert len({request.signature for number, request in tried if number == 0}) == sum(
        number == 0 for number, _ in tried
    )


def test_a_retry_that_succeeds_is_the_only_reply(client, two):
    task = client.submit(os.getpid, retries=1)
    seen = []

    def answer(engine, request):
        seen.append(engine.id)
        if len(seen) == 1:
            engine.fail(request)
        else:
            engine.reply(request, engine.id)

    reply, _ = play(two, client, task, answer)
    assert reply.value == seen[-1]
    assert len(set(seen)) == 2
    assert client.maybe_answer(task) is None


@pytest.mark.skipif(IS_STOCK, reason="ipcontroller counts a retried task on every engine that it was on")
def test_tasks_are_counted_right_after_retries(client, two):
    task = client.submit(os.getpid, retries=3)
    play(two, client, task, lambda engine, request: engine.fail(request))
    found, unassigned = counts(client)
    assert unassigned == 0
    assert [tasks for _, _, tasks in found.values()] == [0, 0]
    assert sum(completed for _, completed, _ in found.values()) == 1


def test_what_is_queued_running_and_done_is_counted(client, engine):
    assert counts(client) == ({0: (0, 0, 0)}, 0)
    direct = client.apply(engine.name, os.getpid)
    request = engine.request()
    assert counts(client) == ({0: (1, 0, 0)}, 0)
    engine.reply(request, 1)
    client.answer(direct)
    assert counts(client) == ({0: (0, 1, 0)}, 0)
    first, second = client.submit(os.getpid), client.submit(os.getpid)
    request = engine.request()
    assert counts(client) == ({0: (0, 1, 1)}, 1)
    verbose = client.ask("queue_request", {"targets": [0], "verbose": True})
    assert verbose["0"] == {"queue": [], "completed": [direct], "tasks": [first]}
    engine.reply(request, 1)
    engine.reply(engine.request(), 1)
    client.answer(second)
    assert counts(client) == ({0: (0, 3, 0)}, 0)


def test_an_engine_that_refuses_is_not_asked_again(client, two):
    task = client.submit(os.getpid)

    def answer(engine, request):
        if engine.id == 0:
            engine.fail(request, "UnmetDependency", "no numpy here")
        else:
            engine.reply(request, 1)

    reply, tried = play(two, client, task, answer)
    assert reply.value == 1
    assert [number for number, _ in tried] in ([0, 1], [1])


def test_a_task_that_every_target_refuses_is_impossible(client, two):
    task = client.submit(os.getpid, targets=[engine.name for engine in two])
    reply, tried = play(two, client, task, lambda engine, request: engine.fail(request, "UnmetDependency"))
    assert reply.content["ename"] == "ImpossibleDependency"
    assert sorted(number for number, _ in tried) == [0, 1]


def test_a_task_that_every_engine_refuses_waits_for_another(client, join):
    first = join()
    task = client.submit(os.getpid)
    first.fail(first.request(), "UnmetDependency")
    assert client.maybe_answer(task) is None
    second = join()
    second.reply(second.request(), 7)
    assert client.answer(task).value == 7


def test_a_task_that_waits_too_long_times_out(client, engine):
    running = client.submit(os.getpid)
    held = engine.request()
    assert held.header["msg_id"] == running
    task = client.submit(os.getpid, timeout=0.3)
    reply = client.answer(task)
    assert (reply.kind, reply.content["ename"]) == ("apply_reply", "TaskTimeout")
    engine.reply(held, 1)
    assert client.answer(running).value == 1


def test_a_task_that_runs_never_times_out(client, engine):
    task = client.submit(os.getpid, timeout=0.2)
    request = engine.request()
    assert client.maybe_answer(task, 3 * QUIET) is None
    engine.reply(request, 1)
    assert client.answer(task).value == 1


def test_targets_are_kept_to(client, two):
    tasks = [client.submit(os.getpid, targets=[two[1].name]) for _ in range(3)]
    for _ in tasks:
        two[1].reply(two[1].request(), 1)
    assert [client.answer(task).value for task in tasks] == [1, 1, 1]
    assert two[0].maybe("shell", 0) is None


def test_a_task_without_engines_waits_for_one(client, join):
    task = client.submit(os.getpid)
    assert client.maybe_answer(task) is None
    engine = join()
    engine.reply(engine.request(), 1)
    assert client.answer(task).value == 1


def test_a_task_of_an_engine_that_died_fails_with_its_name(client, engine):
    task = client.submit(os.getpid)
    engine.request()
    gone(client, engine)
    reply = client.answer(task)
    assert (reply.kind, reply.content["ename"]) == ("apply_reply", "EngineError")
    assert engine.name in reply.content["evalue"] or f"engine {engine.id}" in reply.content["evalue"].lower()
    assert reply.metadata.get("engine") in {engine.name, None}


def test_a_task_of_an_engine_that_died_is_retried_elsewhere(client, two):
    task = client.submit(os.getpid, retries=1, targets=[])
    first = next(engine for engine in two * 200 if engine.maybe("shell", 0.02))
    other = two[1 - two.index(first)]
    gone(client, first)
    other.reply(other.request(), other.id)
    assert client.answer(task).value == other.id


@pytest.mark.skipif(IS_STOCK, reason="ipcontroller drops it, and its caller waits for ever")
@pytest.mark.parametrize("how", ["apply", "execute", "clear", "signal", "never was"])
def test_work_for_an_engine_that_is_gone_is_answered_at_once(client, engine, how):
    gone(client, engine)
    if how == "apply":
        sent = client.apply(engine.name, os.getpid)
    elif how == "execute":
        sent = client.execute(engine.name, "1")
    elif how == "never was":
        sent = client.apply("no-such-engine", os.getpid)
    else:
        sent = client.send("control", f"{how}_request", {"sig": 2}, to=engine.name)
    started = time.monotonic()
    reply = client.answer(sent)
    assert time.monotonic() - started < 1.0
    assert (reply.status, reply.content["ename"]) == ("error", "EngineError")
    assert reply.kind == {"execute": "execute_reply", "clear": "clear_reply", "signal": "signal_reply"}.get(
        how, "apply_reply"
    )


@pytest.mark.skipif(IS_STOCK, reason="ipcontroller drops it, and its caller waits for ever")
def test_balanced_work_for_targets_that_are_all_gone_is_answered_at_once(client, two):
    gone(client, two[0])
    started = time.monotonic()
    reply = client.answer(client.submit(os.getpid, targets=[two[0].name]))
    assert time.monotonic() - started < 1.0
    assert reply.content["ename"] in {"ImpossibleDependency", "EngineError"}


def test_an_aborted_task_never_reaches_an_engine(client, engine):
    running, queued = client.submit(os.getpid), client.submit(os.getpid)
    held = engine.request()
    abort = client.send("control", "abort_request", {"msg_ids": [queued]}, to=engine.name)
    if IS_STOCK:
        engine.reply(engine.request("control"), channel="control", content={"status": "ok"})
    assert client.answer(abort).status == "ok"
    engine.reply(held, 1)
    assert client.answer(running).value == 1
    if not IS_STOCK:
        reply = client.answer(queued)
        assert (reply.status, reply.metadata["status"], reply.buffers) == ("aborted", "aborted", [])
        assert engine.maybe("shell", 0) is None


def test_resubmitted_work_is_a_new_task(client, engine):
    first = client.apply(engine.name, abs, -1)
    engine.reply(engine.request(), 1)
    client.answer(first)
    until(
        lambda: first in client.ask("result_request", {"msg_ids": [first], "status_only": True})["completed"],
        "the record",
    )
    reply = client.ask("resubmit_request", {"msg_ids": [first]})
    assert reply["status"] == "ok"
    new = reply["resubmitted"][first]
    again = engine.request()
    assert again.header["msg_id"] == new != first
    assert again.buffers
    engine.reply(again, 1)
    until(
        lambda: new in client.ask("result_request", {"msg_ids": [new], "status_only": True})["completed"],
        "the new record",
    )
    record = client.ask("db_request", {"query": {"msg_id": first}, "keys": ["resubmitted"]})["records"][0]
    assert record["resubmitted"] == new

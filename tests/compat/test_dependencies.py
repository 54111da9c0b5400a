"""after and follow of balanced tasks: all and any, success and failure, and those that cannot be met."""

from __future__ import annotations

import os

import pytest

from tests.compat.peer import QUIET


def wants(*ids, everything=True, success=True, failure=False):
    return {"dependencies": list(ids), "all": everything, "success": success, "failure": failure}


def finish(engine, *, well=True):
    """Let the engine answer what it gets next; returns the msg_id."""
    request = engine.request()
    if well:
        engine.reply(request, engine.id)
    else:
        engine.fail(request)
    return request.header["msg_id"]


def done(client, engine, *, well):
    """A task that has ended."""
    task = client.submit(os.getpid)
    finish(engine, well=well)
    assert client.answer(task).status == ("ok" if well else "error")
    return task


@pytest.fixture
def two(join):
    return [join(), join()]


def either(engines, timeout=10.0):
    """(engine, request) of the first engine that got something."""
    for _ in range(int(timeout / 0.05)):
        for engine in engines:
            request = engine.maybe("shell", 0.05)
            if request is not None:
                return engine, request
    raise AssertionError("no engine got it")


def test_after_waits_for_all(client, two):
    first, second = client.submit(os.getpid), client.submit(os.getpid)
    last = client.submit(os.getpid, after=[first, second])
    got = [engine.request() for engine in two]
    two[0].reply(got[0], 0)
    client.answer(got[0].header["msg_id"])
    assert two[0].maybe("shell", QUIET) is None
    two[1].reply(got[1], 1)
    engine, request = either(two)
    assert request.header["msg_id"] == last
    engine.reply(request, 2)
    assert client.answer(last).value == 2


def test_after_any_goes_when_one_is_done(client, two):
    first, second = client.submit(os.getpid), client.submit(os.getpid)
    last = client.submit(os.getpid, after=wants(first, second, everything=False))
    held = two[1].request()
    two[0].reply(two[0].request(), 0)
    request = two[0].request()
    assert request.header["msg_id"] == last
    two[0].reply(request, 2)
    assert client.answer(last).value == 2
    two[1].reply(held, 1)


def test_after_any_is_impossible_only_when_all_failed(client, two):
    first, second = client.submit(os.getpid), client.submit(os.getpid)
    last = client.submit(os.getpid, after=wants(first, second, everything=False))
    got = [engine.request() for engine in two]
    two[0].fail(got[0])
    client.answer(got[0].header["msg_id"])
    assert client.maybe_answer(last, QUIET) is None
    two[1].fail(got[1])
    assert client.answer(last).content["ename"] == "ImpossibleDependency"


def test_after_failure_waits_for_the_failure(client, engine):
    failed = done(client, engine, well=False)
    task = client.submit(os.getpid, after=wants(failed, success=False, failure=True))
    finish(engine)
    assert client.answer(task).value == engine.id


def test_after_failure_of_what_succeeded_is_impossible(client, engine):
    fine = done(client, engine, well=True)
    task = client.submit(os.getpid, after=wants(fine, success=False, failure=True))
    assert client.answer(task).content["ename"] == "ImpossibleDependency"


def test_after_either_outcome(client, engine):
    ended = [done(client, engine, well=True), done(client, engine, well=False)]
    task = client.submit(os.getpid, after=wants(*ended, success=True, failure=True))
    finish(engine)
    assert client.answer(task).value == engine.id


def test_after_a_failure_is_impossible(client, engine):
    waiting = client.submit(os.getpid)
    task = client.submit(os.getpid, after=[waiting])
    chain = client.submit(os.getpid, after=[task])
    finish(engine, well=False)
    for impossible in (task, chain):
        reply = client.answer(impossible)
        assert (reply.kind, reply.status) == ("apply_reply", "error")
        assert reply.content["ename"] == "ImpossibleDependency"
        # Made by the controller: a Client that saw an engine here would wait for its output.
        assert reply.content.get("engine_info", {}) == {}


@pytest.mark.parametrize("name", ["after", "follow"])
def test_an_unknown_id_is_invalid(client, engine, name):
    task = client.submit(os.getpid, **{name: ["nobody-ever-sent-this"]})
    assert client.answer(task).content["ename"] == "InvalidDependency"


def test_ones_own_id_is_invalid(client, engine):
    header = client.framing.header("apply_request")
    client.send("task", "apply_request", {}, header=header, metadata={"after": [header["msg_id"]]})
    assert client.answer(header["msg_id"]).content["ename"] == "InvalidDependency"


def test_an_empty_dependency_is_met(client, engine):
    task = client.submit(os.getpid, after=wants(), follow=[])
    finish(engine)
    assert client.answer(task).value == engine.id


def test_follow_goes_where_its_dependency_ran(client, two):
    first = client.submit(os.getpid, targets=[two[1].name])
    finish(two[1])
    client.answer(first)
    tasks = [client.submit(os.getpid, follow=[first]) for _ in range(3)]
    for _ in tasks:
        finish(two[1])
    assert [client.answer(task).value for task in tasks] == [1, 1, 1]
    assert two[0].maybe("shell", 0) is None


def test_follow_of_two_places_at_once_is_impossible(client, two):
    placed = [client.submit(os.getpid, targets=[engine.name]) for engine in two]
    for engine in two:
        finish(engine)
    for task in placed:
        client.answer(task)
    assert client.answer(client.submit(os.getpid, follow=placed)).content["ename"] == "ImpossibleDependency"
    # Of either place it is not.
    task = client.submit(os.getpid, follow=wants(*placed, everything=False))
    engine, request = either(two)
    engine.reply(request, 1)
    assert client.answer(task).value == 1


def test_follow_to_an_engine_that_is_gone_is_answered(client, two):
    first = client.submit(os.getpid, targets=[two[0].name])
    finish(two[0])
    client.answer(first)
    two[0].stop_beating()
    two[0].leave()
    client.notice("unregistration_notification", two[0].name)
    reply = client.answer(client.submit(os.getpid, follow=[first]))
    assert reply.content["ename"] in {"ImpossibleDependency", "EngineError"}


def test_an_aborted_dependency_counts_as_failed(client, engine):
    running, queued = client.submit(os.getpid), client.submit(os.getpid)
    task = client.submit(os.getpid, after=[queued])
    held = engine.request()
    assert held.header["msg_id"] == running
    abort = client.send("control", "abort_request", {"msg_ids": [queued]}, to=engine.name)
    assert client.answer(abort).status == "ok"
    assert client.answer(queued).status == "aborted"
    assert client.answer(task).content["ename"] == "ImpossibleDependency"
    engine.reply(held, 1)
    assert client.answer(running).value == 1

"""Tasks on their way: repeats, refusals, functions that are not here, aborts, results that wait, and what bounds it all."""

from __future__ import annotations

import pytest

from clusterd.controller import dispatch as dispatch_module
from clusterd.controller import functions as functions_module
from clusterd.controller import tasks as tasks_module
from clusterd.controller.functions import FunctionStore
from clusterd.core.wire import messages as m
from tests.unit.controller.world import Peer, result_of, submit, task_id

DIGEST = b"f" * 16


def function(digest: bytes = DIGEST, size: int = 10) -> m.Function:
    return m.Function(digest, "f", "3.11", b"x" * size)


def again(world, peer: Peer, **fields) -> Peer:
    """The same peer on a new connection."""
    back = Peer(world, peer.role, peer.channel, peer.uuid)
    back.token = peer.token
    assert isinstance(back.attach(back.attach_message(**fields)), m.Attached)
    return back


def failures(peer: Peer) -> dict[bytes, str]:
    return {message.task: message.code for message in peer.messages(m.Failed)}


# --- repeats ---


def test_a_repeat_of_a_task_that_has_ended_leaves_nothing_behind(world):
    client, engine = world.client(), world.engine()
    task = task_id()
    world.run(client, engine, task=task)
    for _ in range(3):
        client.say(submit(task, body=b"x" * 1000))
    world.turn()
    assert world.tasks.payloads == {}
    assert client.messages() == []


def test_a_repeat_names_no_function_twice(world):
    client, engine = world.client(), world.engine()
    client.say(function(), *[submit(b"t", function=DIGEST)] * 3)
    world.turn()
    assert world.tasks.functions.get(DIGEST).references == 1
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch))
    world.turn()
    assert world.tasks.functions.get(DIGEST).references == 0


def test_a_task_id_of_another_client_is_refused_and_its_task_goes_on(world):
    first, second, engine = world.client(), world.client(), world.engine()
    first.say(submit(b"t"))
    world.turn()
    second.say(submit(b"t", body=b"other"))
    world.turn()
    assert failures(second) == {b"t": "malformed"}
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch))
    world.turn()
    assert len(first.messages(m.Deliver)) == 1


def test_one_message_may_hold_a_task_that_is_refused_and_then_accepted(world):
    client, engine = world.client(), world.engine()
    client.say(submit(b"t", target=99), submit(b"t", target=engine.wire_id))
    world.turn()
    assert failures(client) == {b"t": "unschedulable"}
    (dispatch,) = engine.messages(m.Dispatch)
    assert dispatch.task == b"t"
    engine.say(result_of(dispatch))
    world.turn()
    assert len(client.messages(m.Deliver)) == 1
    assert world.tasks.payloads == {}


def test_of_two_results_for_a_task_in_one_message_the_first_counts(world):
    client, engine = world.client(), world.engine()
    client.say(submit())
    world.turn()
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch, b"first"), result_of(dispatch, b"second"))
    world.turn()
    assert [message.body for message in client.messages(m.Deliver)] == [b"first"]
    assert world.status()["discarded"] == {"repeated": 1}


def test_a_result_whose_times_are_no_times_counts(world):
    client, engine = world.client(), world.engine()
    for started, finished in ((float("nan"), 1.0), (float("inf"), float("inf")), (5.0, 1.0)):
        client.say(submit())
        world.turn()
        (dispatch,) = engine.messages(m.Dispatch)
        engine.say(result_of(dispatch, started=started, finished=finished))
        world.turn()
    assert len(client.messages(m.Deliver)) == 3
    function = next(iter(world.tasks.scheduler.state.functions.by_digest.values()))
    assert function.samples == [0.0, 0.0, 0.0]


# --- orphans: results of what an earlier controller gave out ---


def held_result(world, task: bytes):
    """An engine that holds the result of a task which nobody here has submitted, and has sent it."""
    engine = world.engine(held=[(task, 0)])
    orphan = m.Dispatch(task, 0, 1, 0, b"", b"")
    engine.say(result_of(orphan, b"kept"))
    world.turn()
    return engine, orphan


def test_a_kept_result_survives_its_own_repeat(world):
    client = world.client()
    engine, orphan = held_result(world, b"t")
    engine.say(result_of(orphan, b"again"))
    world.turn()
    client.say(submit(b"t", is_offered_again=True))
    world.turn()
    assert [message.body for message in client.messages(m.Deliver)] == [b"kept"]


def test_a_kept_result_survives_the_refusal_of_its_offer(make_world):
    world = make_world(client_credit={"tasks": 1, "memory": 1 << 20, "results": 1 << 20})
    client = world.client()
    engine, _ = held_result(world, b"t")
    client.say(submit(b"blocker"), submit(b"t", is_offered_again=True))
    world.turn()
    assert failures(client) == {b"t": "overloaded"}
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch))
    world.turn()
    client.say(submit(b"t", is_offered_again=True))
    world.turn()
    assert [message.body for message in client.messages(m.Deliver)] == [b"value", b"kept"]


def control_of(world, client: Peer) -> Peer:
    """The control connection of the same client."""
    peer = Peer(world, "client", "control", client.uuid)
    peer.token = client.token
    assert isinstance(peer.attach(), m.Attached)
    return peer


# --- functions ---


def test_a_function_that_is_not_here_is_asked_for_once(world):
    client, engine = world.client(), world.engine()
    client.say(submit(b"1", function=DIGEST), submit(b"2", function=DIGEST))
    client.say(submit(b"3", function=DIGEST))
    world.turn()
    assert [message.digest for message in client.messages(m.NeedFunction)] == [DIGEST]
    assert world.status()["tasks"]["parked"] == 3
    client.say(function())
    world.turn()
    told = engine.messages()
    assert [type(message) for message in told] == [m.Attached, m.Function, m.Dispatch][-len(told) :]
    assert world.status()["tasks"]["parked"] == 0


def test_a_function_is_asked_of_each_client_that_names_it(world):
    first, second, engine = world.client(), world.client(), world.engine()
    first.say(submit(b"1", function=DIGEST))
    second.say(submit(b"2", function=DIGEST))
    world.turn()
    assert first.messages(m.NeedFunction)
    assert second.messages(m.NeedFunction)
    first.say(m.Goodbye("before it was answered"))
    second.say(function())
    world.turn()
    assert [message.task for message in engine.messages(m.Dispatch)] == [b"2"]


def test_a_function_is_asked_for_again_after_a_reconnect(world):
    client, engine = world.client(), world.engine()
    client.say(submit(b"t", function=DIGEST))
    world.turn()
    client.vanish()
    world.turn()
    back = again(world, client)
    # What was asked and not acknowledged is there again, too: it does no harm.
    assert {message.digest for message in back.messages(m.NeedFunction)} == {DIGEST}
    back.say(function(), submit(b"t", function=DIGEST))
    world.turn()
    assert [message.task for message in engine.messages(m.Dispatch)] == [b"t"]


@pytest.mark.parametrize("size", [1, 15])
def test_a_function_that_can_never_come_is_refused(world, size):
    client = world.client()
    client.say(submit(b"t", function=b"f" * size))
    world.turn()
    assert failures(client) == {b"t": "malformed"}
    assert client.is_open


def test_what_waits_for_functions_counts_against_the_credit(make_world):
    world = make_world(client_credit={"tasks": 3, "memory": 1 << 20, "results": 1 << 20})
    client, other = world.client(), world.client()
    tasks = [task_id() for _ in range(5)]
    for task in tasks:
        client.say(submit(task, function=task))
    other.say(submit(b"other", function=b"o" * 16))
    world.turn()
    assert failures(client) == dict.fromkeys(tasks[3:], "overloaded")
    assert failures(other) == {}
    large = task_id()
    other.say(submit(large, function=b"p" * 16, body=b"x" * (1 << 20)))
    world.turn()
    assert failures(other) == {large: "overloaded"}


def test_what_waits_goes_with_its_client(world):
    client = world.client()
    client.say(submit(function=DIGEST), submit(function=b"g" * 16))
    world.turn()
    client.say(m.Goodbye())
    world.turn()
    assert world.status()["tasks"]["parked"] == 0
    assert world.tasks._parking._by_function == {}
    assert world.tasks._parking._bytes == {}


def test_functions_beyond_the_room_are_refused_until_tasks_end(world, monkeypatch):
    monkeypatch.setattr(functions_module, "MAX_BYTES", 1000)
    client, engine = world.client(), world.engine()
    client.say(function(b"a" * 16, 600), submit(b"1", function=b"a" * 16))
    client.say(function(b"b" * 16, 600), submit(b"2", function=b"b" * 16))
    world.turn()
    assert [message.digest for message in client.messages(m.NeedFunction)] == [b"b" * 16]
    client.say(function(b"b" * 16, 600))
    world.turn()
    assert failures(client) == {b"2": "overloaded"}
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result_of(dispatch))
    world.turn()
    client.say(function(b"b" * 16, 600), submit(b"2", function=b"b" * 16))
    world.turn()
    assert [message.task for message in engine.messages(m.Dispatch)] == [b"2"]
    assert len(world.tasks.functions) == 1


def test_a_function_larger_than_all_room_is_taken_alone(monkeypatch):
    monkeypatch.setattr(functions_module, "MAX_BYTES", 1000)
    store = FunctionStore()
    assert store.add(function(b"a" * 16, 5000), (), ())
    assert store.add(function(b"b" * 16, 10), (), ())
    assert store.get(b"a" * 16) is None
    assert store.bytes == 10


def test_idle_functions_are_dropped_least_recently_used_first(monkeypatch):
    monkeypatch.setattr(functions_module, "MAX_IDLE", 2)
    store = FunctionStore()
    a, b, c, d = (bytes([letter]) * 16 for letter in b"abcd")
    for digest in (a, b):
        store.add(function(digest), (), ())
    store.refer(a)
    store.add(function(c), (), ())
    store.add(function(d), (), ())
    assert [store.get(digest) is not None for digest in (a, b, c, d)] == [True, False, True, True]
    store.add(function(c), (), ())
    store.release(a)
    assert [store.get(digest) is not None for digest in (a, b, c, d)] == [True, False, True, False]
    assert store.bytes == 20


def test_an_engine_that_was_told_of_many_functions_is_told_again(world, monkeypatch):
    monkeypatch.setattr(dispatch_module, "MAX_TOLD", 2)
    client, engine = world.client(), world.engine()
    for number in (0, 1, 2, 0):
        digest = bytes([number]) * 16
        client.say(function(digest), submit(function=digest))
        world.turn()
        heard = engine.messages()
        assert any(isinstance(message, m.Function) for message in heard) or number == 0
        (dispatch,) = [message for message in heard if isinstance(message, m.Dispatch)]
        engine.say(result_of(dispatch))
        world.turn()
    assert len(world.hub.engines_by_id[engine.wire_id].functions) <= 2


# --- aborts ---


def test_what_is_parked_is_aborted(world):
    client = world.client()
    control = control_of(world, client)
    client.say(submit(b"1", function=DIGEST), submit(b"2", function=DIGEST), submit(b"3", function=DIGEST))
    world.turn()
    assert world.ask(control, m.Abort(1, [b"1"])).value == {"aborted": 1}
    assert world.ask(control, m.Abort(2)).value == {"aborted": 2}
    assert failures(client) == {b"1": "aborted", b"2": "aborted", b"3": "aborted"}
    client.say(function())
    world.turn()
    assert world.tasks.payloads == {}


def test_an_abort_that_overtakes_its_task_ends_it_when_it_comes(world):
    client, engine = world.client(), world.engine()
    control = control_of(world, client)
    assert world.ask(control, m.Abort(1, [b"t"])).value == {"aborted": 0}
    client.say(submit(b"t"), submit(b"u"))
    world.turn()
    assert failures(client) == {b"t": "aborted"}
    assert [message.task for message in engine.messages(m.Dispatch)] == [b"u"]
    # Of another client it says nothing, and it is said once.
    other = world.client()
    other.say(submit(b"t"))
    world.turn()
    assert failures(other) == {}


def test_aborts_of_what_never_comes_are_bounded(make_world):
    world = make_world(client_credit={"tasks": 3, "memory": 1 << 20, "results": 1 << 20})
    client = world.client()
    control = control_of(world, client)
    world.ask(control, m.Abort(1, [bytes([number]) for number in range(100)]))
    assert list(world.hub.clients[client.uuid].unwanted) == [b"a", b"b", b"c"]


def test_a_task_that_has_ended_is_not_aborted_later(world):
    client, engine = world.client(), world.engine()
    control = control_of(world, client)
    (delivered,) = world.run(client, engine)
    assert world.ask(control, m.Abort(1, [delivered.task])).value == {"aborted": 0}
    assert world.hub.clients[client.uuid].unwanted == {}


# --- credit ---


def test_who_sends_beyond_its_credit_and_does_not_read_is_cut(make_world, monkeypatch):
    monkeypatch.setattr(tasks_module, "MAX_REFUSED", 100)
    world = make_world(client_credit={"tasks": 1, "memory": 1 << 20, "results": 1 << 20})
    client, engine = world.client(), world.engine()
    world.endpoints["client-data"].connections[client.id].session.limits.window = 1000
    said = 0
    while client.is_open:
        client.say(*(submit() for _ in range(100)))
        world.turn()
        said += 100
        assert said < 10_000, "nobody stops it"
    assert world.counters["client-data"] == {"malformed": 1}
    kept = world.hub.clients[client.uuid]
    assert kept.undelivered_bytes < 1.2 * (1 << 20)
    # It comes back and reads: it may go on.
    back = again(world, client)
    while kept.is_blocked:
        back.acknowledge()
        world.turn()
    assert not kept.is_blocked
    back.say(submit())
    world.turn()
    assert back.is_open
    assert engine.is_open


def test_dependencies_count_against_the_credit(make_world):
    world = make_world(client_credit={"tasks": 100, "memory": 1 << 20, "results": 1 << 20})
    client = world.client()
    many = m.TaskOptions(after=m.Dependency([task_id() for _ in range(5000)]))
    client.say(submit(b"1"), submit(b"2", options=many))
    world.turn()
    assert failures(client) == {b"2": "overloaded"}


def test_a_long_label_is_cut(world):
    client = world.client()
    client.say(submit(b"t", options=m.TaskOptions(label="x" * 100_000)))
    world.turn()
    assert len(world.tasks.scheduler.record(b"t").label) == 256

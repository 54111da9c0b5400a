"""A durable controller: nothing is said before what it rests on is committed, and what was acknowledged outlives the controller."""

from __future__ import annotations

import pytest

from clusterd.controller import functions
from clusterd.controller.options import parse
from clusterd.controller.recovery import place
from clusterd.core.wire import messages as m
from clusterd.errors import LaunchError
from tests.unit.controller.durable import FUNCTION, NOW, Cluster, result, submit

A, B = b"a" * 16, b"b" * 16
HERE = place("engines", "here")


@pytest.fixture
def cluster(isolated):
    root = isolated.root / "profile"
    root.mkdir(mode=0o700)
    cluster = Cluster(root)
    yield cluster
    cluster.world.reins.may_write.set()
    cluster.world.store.close()


def with_task(cluster, *tasks, engine=True):
    """(world, client, engine) with tasks that are committed and, if there is an engine, dispatched."""
    world = cluster.world
    client, worker = world.client(), world.engine() if engine else None
    client.say(FUNCTION, *map(submit, tasks))
    world.turn()
    world.commit()
    return world, client, worker


def test_nothing_is_said_before_the_turn_is_committed(cluster):
    world = cluster.world
    client, engine = world.client(), world.engine()
    world.hold()
    client.say(FUNCTION, submit(A))
    world.turn()
    world.pass_time(1.0)
    engine.read()
    client.read()
    assert engine.messages(m.Dispatch) == []
    assert client.session.acked < client.session.sent
    world.commit()
    world.pass_time(0.3)
    assert [dispatch.task for dispatch in engine.messages(m.Dispatch)] == [A]
    client.read()
    assert client.session.acked == client.session.sent


def test_a_result_is_stored_before_it_is_delivered_and_before_its_engine_may_forget_it(cluster):
    world, client, engine = with_task(cluster, A)
    (dispatch,) = engine.messages(m.Dispatch)
    world.hold()
    engine.say(result(dispatch))
    world.turn()
    world.pass_time(1.0)
    engine.read()
    assert client.messages(m.Deliver) == []
    assert engine.session.acked < engine.session.sent
    world.commit()
    world.pass_time(0.3)
    engine.read()
    (deliver,) = client.messages(m.Deliver)
    assert deliver.body == b"of " + A
    assert engine.session.acked == engine.session.sent


def test_turns_queue_behind_each_other_and_go_in_order(cluster):
    world = cluster.world
    client, engine = world.client(), world.engine()
    world.hold()
    tasks = [bytes([number]) * 16 for number in range(5)]
    client.say(FUNCTION)
    for task in tasks:
        client.say(submit(task))
        world.turn()
    assert engine.messages(m.Dispatch) == []
    world.commit()
    done = []
    while len(done) < len(tasks):
        for dispatch in engine.messages(m.Dispatch):
            done.append(dispatch.task)
            engine.say(result(dispatch))
        world.turn()
        world.commit()
    assert done == tasks
    assert [deliver.task for deliver in client.messages(m.Deliver)] == tasks


def test_nothing_is_recalled_while_commits_take_long(cluster):
    """Else what was given to engines would be given anew with each commit, written again, and make the next one longer."""
    world, client, engine = with_task(cluster, *(bytes([number]) * 16 for number in range(3)))
    for _ in range(3):
        for dispatch in engine.messages(m.Dispatch):
            engine.say(result(dispatch, finished=NOW + 0.0001))
        world.turn()
        world.commit()
    world.engine()
    world.hold()
    client.say(*(submit(bytes([number]) * 16) for number in range(10, 20)))
    world.turn()
    known = world.tasks.scheduler.state.engines.values()
    assert [len(one.held) for one in known] == [5, 5]
    world.pass_time(2.0, step=0.02)
    assert [(one.flags, one.recall_last) for one in known] == [(0, 0), (0, 0)]
    world.commit()
    assert len(engine.messages(m.Dispatch)) == 5
    # Commits are swift again: soon a head is late when it would have been.
    scheduler = world.tasks.scheduler.state
    assert scheduler.overrun > 2.0
    for number in range(100):
        client.say(m.Submit(b"swift" + bytes([number]) * 11, m.APPLY, FUNCTION.digest, engine.wire_id, b""))
        world.turn()
        world.commit()
        if scheduler.overrun < 0.1:
            break
        for dispatch in engine.messages(m.Dispatch):
            engine.say(result(dispatch, finished=NOW + 0.0001))
    assert scheduler.overrun < 0.1


def test_two_commits_of_a_lone_round_trip_are_waited_for_and_there_is_no_fourth(cluster):
    world, client, engine = with_task(cluster, A)
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result(dispatch))
    world.turn()
    world.commit()
    client.acknowledge()
    world.turn()
    assert world.store.flush()
    # What SQLite itself is told: with `durable: disk` each of these is an fsync.
    commits = []
    world.reins._backend._writer.set_trace_callback(lambda words: commits.append(words) if words == "COMMIT" else None)
    client.say(submit(B))
    world.turn()
    world.commit()
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result(dispatch))
    world.turn()
    world.commit()
    assert [deliver.task for deliver in client.messages(m.Deliver)] == [A, B]
    assert len(commits) == 2
    client.acknowledge()
    world.turn()
    assert world.store.flush()
    assert len(commits) == 3


def test_while_the_store_is_in_trouble_what_was_accepted_goes_on_and_new_work_is_refused(cluster):
    world, client, engine = with_task(cluster, A)
    (dispatch,) = engine.messages(m.Dispatch)
    world.store.flush()
    world.reins.trouble = "no space left on device"
    engine.say(result(dispatch))
    world.turn()
    world.store.flush(0.5)
    assert world.store.trouble
    client.say(submit(B))
    world.pass_time(0.3)
    engine.read()
    assert [deliver.task for deliver in client.messages(m.Deliver)] == [A]
    (failed,) = client.messages(m.Failed)
    assert (failed.task, failed.code) == (B, "storage")
    assert "no space left" in failed.message
    # The engine keeps the result: nobody else is sure to.
    assert engine.session.acked < engine.session.sent
    world.reins.trouble = ""
    world.commit()
    assert not world.store.trouble
    client.say(submit(B))
    world.turn()
    world.commit()
    assert [dispatch.task for dispatch in engine.messages(m.Dispatch)] == [B]
    assert engine.session.acked == engine.session.sent


def test_no_more_is_read_than_the_store_can_write(cluster):
    world = cluster.world
    client = world.client()
    world.hold()
    world.loop.backlog._full_bytes = 100_000
    client.say(FUNCTION, *(submit(bytes([number]) * 16) for number in range(200)))
    world.turn()
    assert world.loop.backlog.is_full
    told = world.requests.status(world.now)["commits"]
    assert told["is_full"]
    assert told["backlog"] > 100_000
    assert told["unacknowledged"] > 0
    world.commit()
    assert not world.loop.backlog.is_full


def test_what_was_not_committed_is_offered_again_and_taken_once(cluster):
    world = cluster.world
    client = world.client()
    world.hold()
    client.say(FUNCTION, submit(A))
    world.turn()
    world = cluster.succeed()
    assert not world.tasks.payloads
    client, engine = cluster.back(client), world.engine()
    client.say(FUNCTION, submit(A, is_offered_again=True), submit(A, is_offered_again=True))
    world.turn()
    world.commit()
    assert [dispatch.task for dispatch in engine.messages(m.Dispatch)] == [A]


def test_what_was_acknowledged_runs_without_its_client(cluster):
    world, client, _ = with_task(cluster, A, B, engine=False)
    world.pass_time(0.3)
    client.read()
    assert client.session.acked == client.session.sent
    world = cluster.succeed()
    engine = world.engine()
    world.commit()
    dispatches = [*engine.messages(m.Dispatch)]
    while len(dispatches) < 2:
        engine.say(result(dispatches[-1]))
        world.turn()
        world.commit()
        dispatches += engine.messages(m.Dispatch)
    assert [(each.task, each.attempt, each.body) for each in dispatches] == [
        (task, 0, b"args of " + task) for task in (A, B)
    ]
    engine.say(result(dispatches[-1]))
    world.turn()
    world.commit()
    owed = [msg_id for msg_id, _ in world.store.owed_to(client.uuid.hex())]
    assert [row.outcome.status for row in world.store.whole(owed)] == ["ok", "ok"]
    world.pass_time(2.5)
    assert client.uuid not in world.hub.clients
    # It comes after all, and is told what became of them until it acknowledges that, with what it says next.
    told = [(A, b"of " + A), (B, b"of " + B)]
    for _ in range(2):
        client = cluster.back(client)
        world.commit()
        assert [(each.task, each.body) for each in client.messages(m.Deliver)] == told
        client.vanish()
        world.turn()
    client = cluster.back(client)
    client.say(submit(A, is_offered_again=True))
    world.turn()
    world.commit()
    assert [(each.task, each.body) for each in client.messages(m.Deliver)] == told
    assert engine.messages(m.Dispatch) == []
    assert world.store.owed_to(client.uuid.hex()) == []
    assert FUNCTION.digest in world.store.functions()


def test_an_outcome_is_told_as_it_was(cluster):
    world, client, engine = with_task(cluster, A, B)
    client.vanish()
    world.turn()
    shown = [{"kind": "display_data", "data": {"text/plain": "x", "image/png": b"\x89"}, "metadata": {}}]
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(
        result(dispatch, status=1, stdout="out", stderr="err", frames=2, display=shown), payload=[b"one", b"two"]
    )
    world.turn()
    world.commit()
    world = cluster.succeed()
    client = cluster.back(client)
    world.commit()
    ((deliver, payload),) = client.hear(m.Deliver)
    assert (deliver.task, deliver.status, deliver.started, deliver.finished) == (A, 1, NOW, NOW + 1)
    assert (deliver.stdout, deliver.stderr, deliver.display) == ("out", "err", shown)
    assert list(map(bytes, payload)) == [b"one", b"two"]


def test_a_task_that_an_engine_holds_is_found_there(cluster):
    _, client, engine = with_task(cluster, A)
    (dispatch,) = engine.messages(m.Dispatch)
    world = cluster.succeed([HERE])
    state = m.EngineState(engine.uuid, 0, 1, "running", A, 0, id=engine.wire_id)
    world.agent(engines=[state])
    other = world.engine(slot=1)
    world.pass_time(1.0)
    engine = cluster.back(engine, engine.attach_message(held=[(A, 0)], wanted_id=engine.wire_id))
    world.pass_time(10.0)
    world.commit()
    assert other.messages(m.Dispatch) == engine.messages(m.Dispatch) == []
    engine.say(result(dispatch))
    world.turn()
    world.commit()
    client = cluster.back(client)
    world.commit()
    assert [(each.task, each.attempt) for each in client.messages(m.Deliver)] == [(A, 0)]


def test_a_task_waits_for_an_engine_that_is_stopped_and_others_do_not(cluster):
    world = cluster.world
    client, engine = world.client(), world.engine()
    client.say(FUNCTION, submit(A), submit(B))
    world.turn()
    world.commit()
    (dispatch,) = engine.messages(m.Dispatch)
    assert dispatch.task == A
    world = cluster.succeed([HERE])
    # Stopped before it began: what it holds it alone can say.
    world.agent(engines=[m.EngineState(engine.uuid, 0, 1, "idle", id=engine.wire_id)])
    other = world.engine(slot=1)
    world.commit()
    (mine,) = other.messages(m.Dispatch)
    assert mine.task == B
    other.say(result(mine))
    world.turn()
    world.pass_time(20.0)
    world.commit()
    assert other.messages(m.Dispatch) == []
    told = world.ask(world.operator(), m.DescribeTask(1, A.hex())).value["task"]
    assert (told["state"], told["name"], told["engine"]) == ("waiting", "work", "engines/0")
    assert "waits to hear what its engine holds" in told["why"]
    engine = cluster.back(engine, engine.attach_message(held=[], wanted_id=engine.wire_id))
    world.commit()
    dispatched = engine.messages(m.Dispatch) + other.messages(m.Dispatch)
    assert [(each.task, each.attempt) for each in dispatched] == [(A, 1)]
    assert cluster.back(client).messages(m.Failed) == []


def test_what_has_ended_is_not_waited_for_again(cluster):
    world, client, engine = with_task(cluster, A)
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result(dispatch))
    world.turn()
    world.commit()
    client.acknowledge()
    world.turn()
    first = b"1" * 16
    client.say(
        submit(first),
        submit(B, options=m.TaskOptions(after=m.Dependency([A, first]))),
    )
    world.turn()
    world.commit()
    world = cluster.succeed()
    engine = world.engine()
    world.pass_time(0.1)
    world.commit()
    done = []
    for _ in range(4):
        for dispatch in engine.messages(m.Dispatch):
            done.append(dispatch.task)
            engine.say(result(dispatch))
        world.turn()
        world.commit()
    assert done == [first, B]


def test_a_new_task_may_depend_on_one_that_waits_for_its_engine(cluster):
    world = cluster.world
    client, engine = world.client(), world.engine()
    client.say(FUNCTION, submit(A))
    world.turn()
    world.commit()
    assert len(engine.messages(m.Dispatch)) == 1
    world = cluster.succeed([HERE])
    client = cluster.back(client)
    client.say(FUNCTION, submit(B, options=m.TaskOptions(after=m.Dependency([A]))))
    world.turn()
    world.commit()
    assert client.messages(m.Failed) == []
    world.agent(engines=[m.EngineState(engine.uuid, 0, 1, "idle", id=engine.wire_id)])
    # Long after all others have said what they hold.
    world.pass_time(20.0)
    world.commit()
    engine = cluster.back(engine, engine.attach_message(held=[], wanted_id=engine.wire_id))
    done = []
    for _ in range(4):
        world.pass_time(0.1)
        world.commit()
        for dispatch in engine.messages(m.Dispatch):
            done.append(dispatch.task)
            engine.say(result(dispatch))
        world.turn()
        world.commit()
    assert done == [A, B]
    assert [message.task for message in client.messages(m.Deliver)] == [A, B]


def test_functions_of_tasks_that_wait_are_kept_though_they_are_many(cluster, monkeypatch):
    world = cluster.world
    client = world.client()
    digests = [bytes([number]) * 16 for number in range(5)]
    for digest in digests:
        client.say(m.Function(digest, "work", "3.11", b"code"), m.Submit(digest, m.APPLY, digest, None, b""))
    world.turn()
    world.commit()
    monkeypatch.setattr(functions, "MAX_IDLE", 2)
    world = cluster.succeed()
    engine = world.engine()
    done = []
    for _ in range(8):
        world.pass_time(0.1)
        world.commit()
        for dispatch in engine.messages(m.Dispatch):
            done.append(dispatch.task)
            engine.say(result(dispatch))
        world.turn()
        world.commit()
    assert done == digests
    assert len(world.tasks.functions) <= 3


def test_who_says_goodbye_wants_nothing_any_more(cluster):
    world, client, engine = with_task(cluster, A, B)
    (dispatch,) = engine.messages(m.Dispatch)
    engine.say(result(dispatch))
    world.turn()
    world.commit()
    client.say(m.Goodbye("done"))
    world.turn()
    world.commit()
    world = cluster.succeed()
    assert world.store.owed_to(client.uuid.hex()) == []
    assert not world.store.unfinished()


def test_it_needs_a_store_that_outlives_it(make_world):
    with pytest.raises(LaunchError, match="durable: disk needs"):
        make_world(durable="disk", database="memory", reuse=True)


@pytest.mark.parametrize("words", [["--database", "sqlite"], ["--reuse"], ["--reuse", "--database", "none"]])
def test_the_command_line_refuses_what_cannot_be_promised(words, tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse(["--profile-dir", str(tmp_path), "--durable", "process", *words])
    assert "--durable process needs --reuse and --database sqlite or mongodb" in capsys.readouterr().err

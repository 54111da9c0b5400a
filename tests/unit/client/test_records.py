"""Records of tasks: what is asked, how answers and refusals come back, and futures of what the controller runs once more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from clusterd.core.wire import messages as m
from clusterd.errors import BadQuery, ClusterdError, ControllerLost, NoRecords, TaskError, UnknownTask
from tests.waiting import until


@pytest.fixture
def answers(controller):
    """By type of request: the value to reply with, or an ErrorReply's fields."""
    answers = {}
    plain = controller._request

    def request(peer, message, frames):
        if type(message) in answers:
            controller.requests.append(message)
            answer = answers[type(message)]
            if isinstance(answer, tuple):
                controller._say(peer, m.ErrorReply(message.request, *answer))
            elif answer is not None:
                controller._say(peer, m.Reply(message.request, answer))
        else:
            plain(peer, message, frames)

    controller.do(lambda: setattr(controller, "_request", request))
    return answers


def asked(controller, kind):
    return [message for message in controller.requests if type(message) is kind]


def test_a_query_travels_and_its_records_come_back(client, controller, answers):
    when = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
    record = {"msg_id": "ab" * 16, "label": "fit", "submitted": when, "buffers": [b"x"], "completed": None}
    answers[m.QueryTasks] = [record]
    query = {"label": {"$in": {"fit"}}, "submitted": {"$gt": when}, "completed": None}
    assert client.task_records(query, keys=("label", "submitted"), limit=5) == [record]
    assert client.task_records() == [record]
    assert client.history() == ["ab" * 16]
    first, second, third = asked(controller, m.QueryTasks)
    assert first.query == {"label": {"$in": ["fit"]}, "submitted": {"$gt": when}, "completed": None}
    assert (first.keys, first.limit) == (["label", "submitted"], 5)
    assert (second.query, second.keys, second.limit) == ({}, None, 1000)
    assert third.keys == ["msg_id"]


def test_questions_that_cannot_travel_are_refused_here(client, controller):
    for query in ({"label": object()}, {"label": {"$eq": lambda: 1}}, {"attempt": 2**70}, {"label": "half \ud800"}):
        with pytest.raises(TypeError, match="the query can hold text, numbers"):
            client.task_records(query)
    with pytest.raises(TypeError, match="keys is a list"):
        client.task_records(keys="label")
    for limit in (-1, True, 1.5, 2**32):
        with pytest.raises(ValueError, match="limit"):
            client.task_records(limit=limit)
    assert asked(controller, m.QueryTasks) == []


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("bad_query", "records have no field 'colour'", BadQuery),
        ("no_records", "this controller keeps no records", NoRecords),
        ("unknown_task", "no record of task abc", UnknownTask),
        ("storage", "the disk is full", ClusterdError),
    ],
)
def test_refusals_have_their_types(client, answers, code, text, kind):
    answers[m.QueryTasks] = (code, text, "do this")
    with pytest.raises(kind, match=text) as caught:
        client.task_records({})
    assert type(caught.value) is kind
    assert caught.value.code == code
    if kind is UnknownTask:
        assert caught.value.task == "abc"


def test_a_query_is_asked_again_on_a_new_connection(client, controller, answers, in_thread):
    answers[m.QueryTasks] = None
    controller.do(lambda: None)

    def drop():
        until(lambda: asked(controller, m.QueryTasks), "the question")
        answers[m.QueryTasks] = []
        controller.drop_connections()

    import threading  # noqa: PLC0415

    dropper = threading.Thread(target=drop)
    dropper.start()
    assert in_thread(client.task_records) == []
    dropper.join(30)


def test_a_question_that_no_controller_understands_is_not_asked_for_ever(client, controller, in_thread):
    plain = controller._request

    def reset(peer, message, frames):
        plain(peer, message, frames)
        if type(message) is m.QueryTasks:
            controller._forget(peer)

    controller.do(lambda: setattr(controller, "_request", reset))
    with pytest.raises(ControllerLost, match="lost during QueryTasks"):
        in_thread(client.task_records)
    assert len(asked(controller, m.QueryTasks)) == 3
    assert client.queue_status()


def deliver(controller, task, value, kind=m.STATUS_OK):
    import pickle  # noqa: PLC0415

    controller.say(m.Deliver(task, 0, 1, kind, 1.0, 2.0, "printed", "", pickle.dumps(value)))


def test_what_is_run_once_more_has_futures(client, view, controller, answers):
    answers[m.Resubmit] = {"resubmitted": []}
    future = view.apply_async(abs, -3)
    assert future.result(10) == 3
    cells = client[:].execute("1")
    cells.result(10)
    again = client.resubmit(future)
    both = client.resubmit([cells, "ab" * 16, "a-stock_id_1"])
    requests = asked(controller, m.Resubmit)
    assert requests[0].tasks == [future._id]
    assert requests[0].new_ids == [again._id]
    assert requests[1].tasks == [*(task._id for task in cells.tasks), b"\xab" * 16, b"a-stock_id_1"]
    assert requests[1].new_ids == [each._id for each in both]
    assert len({again._id, *requests[1].new_ids, future._id}) == 6
    assert not again.done()
    deliver(controller, again._id, 3)
    assert again.result(10) == 3
    assert (again.engine_id, again.stdout, again.elapsed) == (1, "printed", 1.0)
    deliver(controller, both[0]._id, "1")
    assert both[0].result(10).text == "1"
    deliver(controller, both[2]._id, "raw")
    assert both[2].result(10) == "raw"
    controller.say(m.Failed(both[3]._id, 0, "overloaded", "you have too much"))
    with pytest.raises(TaskError, match="too much"):
        both[3].result(10)
    assert client.resubmit([]) == []
    for wrong in (5, None, [5], object()):
        with pytest.raises(TypeError, match="by its future or its id"):
            client.resubmit(wrong)
    with pytest.raises(ValueError, match="not the id"):
        client.resubmit("x" * 65)


def test_a_refused_rerun_leaves_nothing_behind(client, view, answers):
    answers[m.Resubmit] = ("unknown_task", "no record of task abab", "")
    pending = dict(client._connection.tasks.pending)
    with pytest.raises(UnknownTask):
        client.resubmit(["ab" * 16])
    assert client._connection.tasks.pending == pending


def test_a_rerun_survives_a_lost_connection_and_ends_with_its_controller(client, controller, answers):
    answers[m.Resubmit] = {"resubmitted": []}
    first = client.resubmit("ab" * 16)
    # The fake says always that it does not know the client: make it resume.
    attach = controller._attach

    def resume(peer, message, frames):
        attach(peer, message, frames)
        peer.outbox[-1].is_resumed = True

    controller.do(lambda: setattr(controller, "_attach", resume))
    before = len(controller.attached)
    controller.drop_connections()
    until(lambda: len(controller.attached) == before + 2, "both connections")
    assert client.queue_status()
    assert not first.done()
    deliver(controller, first._id, 5)
    assert first.result(10) == 5
    second, third = client.resubmit("ab" * 16), client.resubmit("cd" * 16)
    controller.do(lambda: setattr(controller, "_attach", attach))
    controller.drop_connections()
    # The next one has the records: it is asked to go on, by the same ids.
    until(lambda: len(asked(controller, m.Resubmit)) == 5, "each is asked for again")
    assert [(each.tasks, each.new_ids, each.is_asked_again) for each in asked(controller, m.Resubmit)[3:]] == [
        ([b"\xab" * 16], [second._id], True),
        ([b"\xcd" * 16], [third._id], True),
    ]
    deliver(controller, second._id, 6)
    assert second.result(10) == 6
    # And this one has not.
    answers[m.Resubmit] = ("unknown_task", "no record of task cdcd", "")
    controller.drop_connections()
    with pytest.raises(ControllerLost, match=r"ran this task once more was lost.*cannot go on with it: no record"):
        third.result(10)


def test_a_connection_that_is_lost_before_the_answer_is_asked_again(client, controller, answers):
    answers[m.Resubmit] = None
    rerun = ThreadPoolExecutor(1).submit(client.resubmit, "ab" * 16)
    until(lambda: asked(controller, m.Resubmit), "the request")
    answers[m.Resubmit] = {"resubmitted": []}
    controller.drop_connections()
    future = rerun.result(10)
    first, *others = asked(controller, m.Resubmit)
    assert not first.is_asked_again
    assert others
    assert all(again.is_asked_again and again.new_ids == first.new_ids == [future._id] for again in others)
    deliver(controller, future._id, 7)
    assert future.result(10) == 7


def test_a_rerun_can_be_aborted_and_ends_with_its_client(client, controller, answers):
    answers[m.Resubmit] = {"resubmitted": []}
    first, second = client.resubmit(["ab" * 16, "cd" * 16])
    assert client.abort([first]) == 0
    assert asked(controller, m.Abort)[-1].tasks == [first._id]
    controller.say(m.Failed(first._id, 0, "aborted", "aborted before it ran"))
    assert first.wait(10)
    client.close()
    with pytest.raises(ClusterdError, match="closed"):
        second.result(10)


def test_records_are_purged(client, view, controller, answers):
    answers[m.PurgeTasks] = {"purged": 3}
    future = view.apply_async(abs, -3)
    assert client.purge_tasks() == 3
    assert client.purge_tasks([future, "ab" * 16]) == 3
    assert [message.tasks for message in asked(controller, m.PurgeTasks)] == [None, [future._id, b"\xab" * 16]]


def test_a_client_that_was_forgotten_says_so(view, controller):
    controller.is_holding = True
    future = view.apply_async(abs, -1)
    until(lambda: controller.held, "the task")
    submitted = controller.submits[0]
    controller.do(controller.held.clear)
    controller.drop_connections()
    until(lambda: controller.held, "the task again")
    controller.say(m.Failed(submitted.task, 0, "malformed", "this task id belongs to another client"))
    with pytest.raises(ControllerLost, match=r"has given this client up.*may have run or not"):
        future.result(10)

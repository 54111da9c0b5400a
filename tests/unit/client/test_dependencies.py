"""What a task waits for, told to a controller that has never seen the tasks that have ended."""

from __future__ import annotations

import pytest

from clusterd.client import dependencies
from clusterd.client.task import TaskFuture
from clusterd.core.wire import messages as m
from tests.waiting import until


def ended(name, *, is_error=False, engine=3):
    future = TaskFuture(None)
    future._id = name
    future._state, future._is_error = "FINISHED", is_error
    future._answer = m.Deliver(name, 0, engine, 0, 0.0, 0.0, "", "", b"")
    return future


def pending(name):
    future = TaskFuture(None)
    future._id = name
    return future


def anew(*futures, after=None, follow=None, target=None):
    dependencies.name(futures)
    options = m.TaskOptions(2, 9.0, "label", after, follow)
    submit = m.Submit(b"task", m.APPLY, b"", target, b"", 0, options)
    dependencies.tell_anew(submit, dependencies.waited_for(options))
    assert submit.options.retries == 2
    assert submit.options.timeout == 9.0
    assert submit.options.label == "label"
    return submit


A, B = b"a", b"b"


@pytest.mark.parametrize(
    ("wait", "left"),
    [
        (m.Dependency([A]), None),
        (m.Dependency([A, b"pending"]), [b"pending"]),
        (m.Dependency([b"pending"]), [b"pending"]),
        (m.Dependency([A, b"failed"]), [A, b"failed"]),
        (m.Dependency([b"failed"], on_success=False, on_failure=True), None),
        (m.Dependency([A], on_success=False, on_failure=True), [A]),
        (m.Dependency([A, b"pending"], is_all=False), None),
        (m.Dependency([b"failed", b"pending"], is_all=False), [b"pending"]),
        (m.Dependency([b"failed"], is_all=False), [b"failed"]),
        (m.Dependency([b"never heard of"]), [b"never heard of"]),
    ],
)
def test_only_what_has_no_end_is_waited_for(wait, left):
    futures = [ended(A), ended(b"failed", is_error=True), pending(b"pending")]
    after = anew(*futures, after=wait).options.after
    assert (None if after is None else after.tasks) == left


@pytest.mark.parametrize(
    ("target", "wait", "expected", "left"),
    [
        (None, m.Dependency([A]), 3, None),
        ([2, 3], m.Dependency([A]), 3, None),
        (None, m.Dependency([A, b"pending"]), 3, [b"pending"]),
        (None, m.Dependency([A, B], is_all=False), [3, 4], None),
        # Nowhere, as before: the controller refuses it.
        (None, m.Dependency([A, B]), None, [A, B]),
        (5, m.Dependency([A]), 5, [A]),
        (None, m.Dependency([b"pending"]), None, [b"pending"]),
    ],
)
def test_it_still_follows_to_where_the_others_ran(target, wait, expected, left):
    futures = [ended(A), ended(B, engine=4), pending(b"pending")]
    submit = anew(*futures, follow=wait, target=target)
    assert submit.target == expected
    follow = submit.options.follow
    assert (None if follow is None else follow.tasks) == left


def test_a_task_without_dependencies_is_offered_as_it_was():
    submit = m.Submit(b"task", m.APPLY, b"", None, b"", 0, None)
    dependencies.tell_anew(submit, ())
    assert submit.options is None
    assert dependencies.waited_for(m.TaskOptions(1)) == ()


def test_a_new_controller_is_not_asked_for_what_it_never_saw(view, controller):
    first = view.apply_async(abs, -1)
    assert first.result(10) == 1
    controller.is_holding = True
    with view.temp_flags(after=[first]):
        second = view.apply_async(abs, -2)
    del first
    until(lambda: len(controller.held) == 1, "the task at the controller")
    assert controller.submits[-1].options.after is not None
    controller.do(controller.held.clear)
    controller.drop_connections()
    until(lambda: len(controller.held) == 1, "the task at the controller again")
    assert controller.submits[-1].options.after is None
    controller.release()
    assert second.result(10) == 2


def test_another_controller_knows_no_end_of_before(view, controller):
    first = view.apply_async(abs, -1)
    assert first.result(10) == 1
    last = len(controller.submits)
    controller.stop(is_crash=True)
    # Never sent to the one that knew `first`; and named only when that one was gone.
    with view.temp_flags(after=[first]):
        unsent = view.apply_async(abs, -2)
    controller.start()
    assert unsent.result(10) == 2
    with view.temp_flags(after=[first]):
        later = view.apply_async(abs, -3)
    assert later.result(10) == 3
    assert [submit.options.after for submit in controller.submits[last:]] == [None, None]

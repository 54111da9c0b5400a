"""condor_q and condor_history -json, after the manual's "Job ClassAd Attributes": a job in the queue, and how it left it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.launchers.answers.answer import JobReport, Reply
from clusterd.launchers.answers.htcondor import ATTRIBUTES, from_condor_history, from_condor_q
from clusterd.launchers.job_state import Completing, Ended, Held, Pending, Requeued, Running, Suspended, Unclear


def ad(**fields):
    return {
        "ClusterId": 42,
        "ProcId": 0,
        "JobStatus": 2,
        "JobBatchName": "cd-1f3c9a20-7",
        "Owner": "alice",
        "NumShadowStarts": 1,
        **fields,
    }


IN_QUEUE = [
    ({"JobStatus": 1, "NumShadowStarts": 0}, Pending()),
    ({"JobStatus": 1, "LastRemoteHost": "slot1@n2"}, Requeued("evicted from slot1@n2")),
    ({"JobStatus": 1}, Requeued("evicted from its machine")),
    ({"RemoteHost": "slot1@n2"}, Running("slot1@n2")),
    ({"JobStatus": 3, "RemoveReason": "via condor_rm (by user alice)"}, Completing("via condor_rm (by user alice)")),
    ({"JobStatus": 4, "ExitBySignal": False, "ExitCode": 7}, Ended("exit", 7)),
    ({"JobStatus": 5, "HoldReasonCode": 1, "HoldReason": "via condor_hold"}, Held("user", "via condor_hold")),
    ({"JobStatus": 5, "HoldReasonCode": 34, "HoldReason": "memory"}, Held("system", "memory")),
    ({"JobStatus": 5, "HoldReasonCode": 6, "HoldReason": "cannot execute"}, Held("error", "cannot execute")),
    ({"JobStatus": 5}, Held("error", "")),
    ({"JobStatus": 6}, Completing("its output is being transferred")),
    ({"JobStatus": 7}, Suspended()),
    ({"JobStatus": 8}, Unclear("JobStatus 8")),
]
IN_HISTORY = [
    ({"JobStatus": 4, "ExitBySignal": False, "ExitCode": 0}, Ended("exit", 0)),
    ({"JobStatus": 4, "ExitBySignal": True, "ExitSignal": 9}, Ended("signal", None, 9)),
    ({"JobStatus": 4}, Ended("unknown", reason="completed, without ExitCode")),
    (
        {"JobStatus": 3, "RemoveReason": "via condor_rm (by user alice)"},
        Ended("cancelled", reason="via condor_rm (by user alice)"),
    ),
    (
        {"JobStatus": 3, "RemoveReason": "The job's allowed_job_duration"},
        Ended("walltime", reason="The job's allowed_job_duration"),
    ),
    ({"JobStatus": 3}, Ended("cancelled")),
]


@pytest.mark.parametrize(
    ("parser", "fields", "state"),
    [(from_condor_q, *case) for case in IN_QUEUE] + [(from_condor_history, *case) for case in IN_HISTORY],
    ids=str,
)
def test_a_job(parser, fields, state):
    answer = parser(Reply(json.dumps([ad(**fields)])))
    assert answer.problems == ()
    (report,) = answer.jobs
    assert report == JobReport(
        id="42.0",
        state=state,
        words=report.words,
        name="cd-1f3c9a20-7",
        owner="alice",
        starts=ad(**fields)["NumShadowStarts"],
    )


def test_what_is_asked_for_is_what_is_read():
    assert {"ClusterId", "ProcId", "JobStatus", "NumShadowStarts"} <= set(ATTRIBUTES.split(","))
    assert ATTRIBUTES.count(",") + 1 == len(set(ATTRIBUTES.split(",")))


@pytest.mark.parametrize("stdout", ["", "\n", "[\n]\n", "[]"])
def test_an_empty_list_is_an_answer(stdout):
    answer = from_condor_q(Reply(stdout))
    assert (answer.jobs, answer.problems, answer.is_list) == ((), (), True)
    assert not from_condor_q(Reply(stdout), asked=["42.0"]).is_list
    assert not from_condor_history(Reply(stdout)).is_list


@pytest.mark.parametrize(
    "reply",
    [
        Reply("", "-- Failed to fetch ads from: <10.0.0.1:9618> : head\n", 1),
        Reply("[]", "-- Failed to fetch ads from: <10.0.0.1:9618> : head\n", 0),
        Reply("", "", -9),
        Reply("[" + json.dumps(ad())),
        Reply("[\n]\n[\n]\n"),
        Reply("{}"),
        Reply("[7]"),
        Reply(json.dumps([{"ClusterId": 1, "ProcId": 0}])),
        Reply(json.dumps([{"ClusterId": 1, "JobStatus": 4}])),
    ],
    ids=str,
)
def test_what_is_no_answer_is_a_problem(reply):
    for parser in (from_condor_q, from_condor_history):
        answer = parser(reply)
        assert answer.jobs == ()
        assert answer.problems


@given(st.text(max_size=300), st.text(max_size=50), st.integers(-15, 255))
def test_any_text_has_an_answer(stdout, stderr, status):
    for parser in (from_condor_q, from_condor_history):
        assert not parser(Reply(stdout, stderr, status)).jobs


@given(
    st.dictionaries(
        st.sampled_from(ATTRIBUTES.split(",")),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    )
)
def test_values_may_have_any_type(fields):
    # Expressions that could not be evaluated come as texts: "/Expr(...)/".
    answer = from_condor_q(Reply(json.dumps([ad(**fields)])))
    assert len(answer.jobs) + len(answer.problems) == 1

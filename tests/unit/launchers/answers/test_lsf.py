"""bjobs -json as Spectrum LSF 10.1 documents it (bjobs(1), options -o and -json): states, ends, and jobs that are not found."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.launchers.answers.answer import JobReport, Reply
from clusterd.launchers.answers.lsf import from_bjobs_json
from clusterd.launchers.job_state import Completing, Ended, Held, Pending, Requeued, Running, Suspended, Unclear


def record(**fields):
    return {
        "JOBID": "101",
        "JOBINDEX": "0",
        "STAT": "RUN",
        "USER": "alice",
        "JOB_NAME": "cd-1f3c9a20-7",
        "EXEC_HOST": "16*n1:16*n2",
        "PEND_REASON": "",
        "EXIT_CODE": "",
        "EXIT_REASON": "",
        **fields,
    }


def document(*records, jobs=None):
    return json.dumps({"COMMAND": "bjobs", "JOBS": len(records) if jobs is None else jobs, "RECORDS": list(records)})


STATES = [
    ({}, Running("16*n1:16*n2")),
    ({"STAT": "PEND", "PEND_REASON": "Job slot limit reached;"}, Pending("Job slot limit reached;")),
    ({"STAT": "PEND", "PEND_REASON": "-"}, Pending()),
    ({"STAT": "PROV"}, Pending("its host is being made ready (PROV)")),
    ({"STAT": "WAIT"}, Pending("waits in a chunk of jobs (WAIT)")),
    (
        {"STAT": "PSUSP", "PEND_REASON": "The job was suspended by its owner"},
        Held("unknown", "The job was suspended by its owner"),
    ),
    ({"STAT": "USUSP"}, Suspended("USUSP")),
    ({"STAT": "SSUSP"}, Suspended("SSUSP")),
    ({"STAT": "DONE"}, Ended("exit", 0)),
    ({"STAT": "EXIT", "EXIT_CODE": "7"}, Ended("exit", 7)),
    ({"STAT": "EXIT"}, Ended("unknown")),
    ({"STAT": "UNKWN"}, Unclear("UNKWN")),
    ({"STAT": "ZOMBI"}, Unclear("ZOMBI")),
    ({"STAT": "SOMETHING"}, Unclear("SOMETHING")),
]
REASONS = {
    "TERM_RUNLIMIT: job killed after reaching LSF run time limit": "walltime",
    "TERM_MEMLIMIT: job killed after reaching LSF memory usage limit": "out_of_memory",
    "TERM_OWNER: job killed by owner": "cancelled",
    "TERM_ADMIN: job killed by root or LSF administrator": "cancelled",
    "TERM_PREEMPT: job killed after preemption": "preempted",
    "TERM_CPULIMIT: job killed after reaching LSF CPU usage limit": "limit",
    "TERM_CWD_NOTEXIST: current working directory is not accessible or does not exist on the execution host": "start_failure",
    "TERM_REMOVE_HUNG_JOB: job removed from LSF": "node_failure",
}


@pytest.mark.parametrize(("fields", "state"), STATES, ids=str)
def test_a_job(fields, state):
    answer = from_bjobs_json(Reply(document(record(**fields))))
    assert answer.problems == ()
    word = fields.get("STAT", "RUN")
    assert answer.jobs == (JobReport(id="101", state=state, words=word, name="cd-1f3c9a20-7", owner="alice"),)


@pytest.mark.parametrize("reason", REASONS)
def test_why_it_was_ended(reason):
    (report,) = from_bjobs_json(Reply(document(record(STAT="EXIT", EXIT_CODE="140", EXIT_REASON=reason)))).jobs
    assert report.state == Ended(REASONS[reason], reason=reason)


def test_an_end_that_is_none():
    requeued = record(STAT="EXIT", EXIT_REASON="TERM_REQUEUE_OWNER: job killed and requeued by owner")
    saved = record(JOBID="102", STAT="EXIT", EXIT_REASON="TERM_CHKPNT: job killed after checkpointing")
    answer = from_bjobs_json(Reply(document(requeued, saved)))
    assert [type(report.state) for report in answer.jobs] == [Requeued, Completing]


def test_an_unknown_reason_leaves_the_exit_code():
    (report,) = from_bjobs_json(Reply(document(record(STAT="EXIT", EXIT_CODE="3", EXIT_REASON="TERM_NEW: x")))).jobs
    assert report.state == Ended("exit", 3, reason="TERM_NEW: x")


def test_ids_of_arrays():
    answer = from_bjobs_json(
        Reply(document(record(JOBINDEX="3"), record(JOBID="102[4]"), record(JOBID=103, JOBINDEX=0)))
    )
    assert [report.id for report in answer.jobs] == ["101[3]", "102[4]", "103"]


def test_jobs_that_are_not_found_are_denied():
    found = from_bjobs_json(
        Reply(document(record(), {"JOBID": "7", "ERROR": "Job <7> is not found"})), asked=["101", "7"]
    )
    assert found.denied == {"7": Ended("unknown", reason="Job <7> is not found")}
    assert found.problems == ()
    assert not found.is_list
    on_stderr = from_bjobs_json(Reply("", "Job <8[2]> is not found\n", 255), asked=["8[2]"])
    assert on_stderr.denied == {"8[2]": Ended("unknown", reason="Job <8[2]> is not found")}


def test_an_empty_list():
    for reply in (Reply(document()), Reply("", "No job found\n", 255), Reply("", "No unfinished job found\n", 255)):
        answer = from_bjobs_json(reply)
        assert (answer.jobs, answer.problems, answer.is_list) == ((), (), True)


@pytest.mark.parametrize(
    "reply",
    [
        Reply("", "Failed in an LSF library call: LIM is down; try later. Please wait ...\n", 255),
        Reply("", "LSF is down. Please wait ...\n", -9),
        Reply("", "", 0),
        Reply("", "", 255),
        Reply("{"),
        Reply("[]"),
        Reply('{"RECORDS": 7}'),
        Reply(document(7)),
        Reply(document({"JOBID": "7"})),
        Reply(document({"STAT": "RUN"})),
        Reply(document({"JOBID": "x", "STAT": "RUN"})),
        Reply(document({"JOBID": "7", "ERROR": "cannot say"})),
        Reply(document(jobs=3)),
    ],
    ids=str,
)
def test_what_is_no_answer_is_a_problem(reply):
    answer = from_bjobs_json(reply)
    assert answer.jobs == ()
    assert answer.denied == {}
    assert answer.problems


@given(st.text(max_size=300), st.text(max_size=50), st.integers(-15, 255))
def test_any_text_has_an_answer(stdout, stderr, status):
    assert not from_bjobs_json(Reply(stdout, stderr, status)).jobs


@given(
    st.dictionaries(st.sampled_from(sorted(record())), st.none() | st.integers() | st.floats() | st.text(max_size=5))
)
def test_values_may_have_any_type(fields):
    answer = from_bjobs_json(Reply(document(record(**fields))))
    assert len(answer.jobs) + len(answer.problems) == 1

"""qstat -f and -x of Torque, and what Slurm's wrappers for it print.

Documents after the Torque 6 Administrator Guide; of the wrappers (slurm-wlm-torque 22.05.8): states Q R S C alone, no exit status,
ids without a server, nothing at all and exit status 153 for an id that is not known.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.launchers.answers.answer import Reply
from clusterd.launchers.answers.torque import from_qstat_text, from_qstat_xml
from clusterd.launchers.job_state import Completing, Ended, Held, Pending, Requeued, Running, Suspended, Unclear


def fields(letter, **more):
    return {"Job_Name": "cd-1f3c9a20-7", "Job_Owner": "alice@login", "job_state": letter, **more}


def as_text(job, attributes):
    return f"Job Id: {job}\n" + "".join(f"    {name} = {value}\n" for name, value in attributes.items()) + "\n"


def as_xml(job, attributes):
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in attributes.items())
    return f"<Data><Job><Job_Id>{job}</Job_Id>{inner}<Resource_List><nodes>1</nodes></Resource_List></Job></Data>\n"


STATES = [
    (fields("Q"), Pending()),
    (fields("Q", comment="Not enough nodes"), Pending("Not enough nodes")),
    (fields("Q", start_count="1"), Requeued()),
    (fields("W"), Pending()),
    (fields("T"), Pending()),
    (fields("H", Hold_Types="u"), Held("user")),
    (fields("H", Hold_Types="o"), Held("operator")),
    (fields("H", Hold_Types="s", depend="afterok:1.head"), Held("dependency")),
    (fields("H", Hold_Types="s"), Held("system")),
    (fields("H"), Held("unknown")),
    (fields("R", exec_host="n1/1+n2/7"), Running("n1/1+n2/7")),
    (fields("S"), Suspended()),
    (fields("E"), Completing()),
    (fields("C", exit_status="0"), Ended("exit", 0)),
    (fields("C", exit_status="7"), Ended("exit", 7)),
    (fields("C", exit_status="271"), Ended("signal", None, 15)),
    (fields("C", exit_status="-11"), Ended("walltime", reason="exit_status -11")),
    (fields("C", exit_status="-10"), Ended("out_of_memory", reason="exit_status -10")),
    (fields("C", exit_status="-2"), Ended("start_failure", reason="exit_status -2")),
    (fields("C", exit_status="-4"), Ended("node_failure", reason="exit_status -4")),
    # The wrappers: failed, cancelled and completed are all this.
    (fields("C"), Ended("unknown", reason="completed, without exit_status")),
    (fields("Z"), Unclear("job_state Z")),
]


@pytest.mark.parametrize(("attributes", "state"), STATES, ids=str)
@pytest.mark.parametrize("job", ["12.head.site.org", "12[3].head", "12"])
def test_a_job(attributes, state, job):
    for answer in (
        from_qstat_text(Reply(as_text(job, attributes))),
        from_qstat_xml(Reply(as_xml(job, attributes))),
    ):
        assert answer.problems == ()
        (report,) = answer.jobs
        assert (report.id, report.state, report.name, report.owner) == (job, state, "cd-1f3c9a20-7", "alice")


def test_ids_that_are_not_known_are_denied():
    answer = from_qstat_text(Reply(as_text("12.head", fields("R")), "qstat: Unknown Job Id Error 13.head\n", 153))
    assert [report.id for report in answer.jobs] == ["12.head"]
    assert answer.denied == {"13.head": Ended("unknown", reason="Unknown Job Id")}
    assert answer.problems == ()
    # The wrappers say nothing; of several ids it is then not known which one was meant.
    silent = Reply("", "", 153)
    assert set(from_qstat_text(silent, asked=["13"]).denied) == {"13"}
    assert from_qstat_text(silent, asked=["13", "14"]).denied == {}
    assert from_qstat_text(silent, asked=["13", "14"]).problems
    assert from_qstat_text(silent).problems


def test_whether_it_is_a_list():
    assert from_qstat_text(Reply("")).is_list
    assert from_qstat_xml(Reply("")).is_list
    assert not from_qstat_xml(Reply(""), asked=["1"]).is_list


@pytest.mark.parametrize(
    ("parser", "reply"),
    [
        (from_qstat_text, Reply("", "qstat: cannot connect to server head (errno=111) Connection refused\n", 255)),
        (from_qstat_xml, Reply("", "Unknown option: x\nUsage: qstat\n", 2)),
        (from_qstat_text, Reply("", "", -9)),
        (from_qstat_text, Reply("Job id              Name             Username\n----\n12   a  b\n")),
        (from_qstat_text, Reply(as_text("12.head", {"Job_Name": "x"}))),
        (from_qstat_text, Reply(as_text("head", fields("C")))),
        (from_qstat_xml, Reply("<Data><Job>")),
        (from_qstat_xml, Reply("<Data><Job><job_state>C</job_state></Job></Data>")),
        (from_qstat_xml, Reply("<html/>")),
    ],
    ids=str,
)
def test_what_is_no_answer_is_a_problem(parser, reply):
    answer = parser(reply)
    assert answer.jobs == ()
    assert answer.denied == {}
    assert answer.problems


@given(st.text(max_size=300), st.text(max_size=50), st.integers(-15, 255))
def test_any_text_has_an_answer(stdout, stderr, status):
    for parser in (from_qstat_text, from_qstat_xml):
        assert not parser(Reply(stdout, stderr, status)).jobs

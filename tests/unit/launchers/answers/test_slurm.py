"""squeue, squeue --json and sacct as Slurm 22.05 prints them, with the JSON of later releases.

The lines follow squeue(1), sacct(1) and what 22.05.8 was seen to print: an array's last element takes the array's number as its
raw id, exit codes in JSON are statuses of wait(2), a job whose output cannot be opened has ExitCode 0:53.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.launchers.answers.answer import JobReport, Reply
from clusterd.launchers.answers.slurm import from_sacct, from_squeue, from_squeue_json
from clusterd.launchers.job_state import (
    Completing,
    Ended,
    Held,
    Pending,
    Requeued,
    Running,
    Suspended,
    Unclear,
)

# squeue(1), JOB STATE CODES: every one of 22.05, with a reason where it matters.
STATES = {
    ("BOOT_FAIL", "None"): Ended("node_failure"),
    ("CANCELLED", "None"): Ended("cancelled"),
    ("COMPLETED", "None"): Ended("exit", 0),
    ("CONFIGURING", "None"): Pending("Configuring: its nodes are being made ready"),
    ("COMPLETING", "None"): Completing(),
    ("DEADLINE", "DeadLine"): Ended("limit", reason="DeadLine"),
    ("FAILED", "NonZeroExitCode"): Ended("exit", reason="NonZeroExitCode"),
    ("FAILED", "JobLaunchFailure"): Ended("start_failure", reason="JobLaunchFailure"),
    ("FAILED", "BadConstraints"): Ended("start_failure", reason="BadConstraints"),
    ("FAILED", "None"): Ended("unknown"),
    ("NODE_FAIL", "NodeDown"): Ended("node_failure", reason="NodeDown"),
    ("OUT_OF_MEMORY", "OutOfMemory"): Ended("out_of_memory", reason="OutOfMemory"),
    ("PENDING", "None"): Pending(),
    ("PENDING", "Priority"): Pending("Priority"),
    ("PENDING", "Resources"): Pending("Resources"),
    ("PENDING", "ReqNodeNotAvail, Reserved for maintenance"): Pending("ReqNodeNotAvail, Reserved for maintenance"),
    ("PENDING", "PartitionTimeLimit"): Pending("PartitionTimeLimit", is_hopeless=True),
    ("PENDING", "PartitionNodeLimit"): Pending("PartitionNodeLimit", is_hopeless=True),
    ("PENDING", "PartitionConfig"): Pending("PartitionConfig", is_hopeless=True),
    ("PENDING", "DependencyNeverSatisfied"): Pending("DependencyNeverSatisfied", is_hopeless=True),
    ("PENDING", "Dependency"): Held("dependency", "Dependency"),
    ("PENDING", "JobHeldUser"): Held("user", "JobHeldUser"),
    ("PENDING", "JobHeldAdmin"): Held("operator", "JobHeldAdmin"),
    ("PENDING", "launch failed requeued held"): Held("error", "launch failed requeued held"),
    ("PREEMPTED", "None"): Ended("preempted"),
    ("RUNNING", "None"): Running("n[1-2]"),
    ("RESV_DEL_HOLD", "None"): Held("system"),
    ("REQUEUE_FED", "None"): Requeued(),
    ("REQUEUE_HOLD", "None"): Held("system"),
    ("REQUEUED", "None"): Requeued(),
    ("RESIZING", "None"): Running("n[1-2]"),
    ("REVOKED", "None"): Ended("cancelled"),
    ("SIGNALING", "None"): Running("n[1-2]"),
    ("SPECIAL_EXIT", "None"): Held("error"),
    ("STAGE_OUT", "None"): Completing(),
    ("STOPPED", "None"): Suspended(),
    ("SUSPENDED", "None"): Suspended(),
    ("TIMEOUT", "TimeLimit"): Ended("walltime", reason="TimeLimit"),
    ("HIBERNATED", "None"): Unclear("HIBERNATED"),
}


@pytest.mark.parametrize(("word", "reason"), STATES)
def test_a_line_of_squeue(word, reason):
    answer = from_squeue(Reply(f"4711|{word}|n[1-2]|alice|{reason}|cd-1f3c9a20-7\n"))
    assert answer.problems == ()
    assert answer.jobs == (
        JobReport(id="4711", state=STATES[word, reason], words=word, name="cd-1f3c9a20-7", owner="alice"),
    )


def test_a_list_of_squeue():
    answer = from_squeue(
        Reply(
            "12_[3-4%2]|PENDING||root|JobArrayTaskLimit|arr\n"
            "12_1|RUNNING|n1|root|None|arr\n"
            "13|RUNNING|n2|bob|None|a|b | c\n"
            "14+1|RUNNING|n3|bob|None|het\n"
        )
    )
    assert [(job.id, job.elements, job.name) for job in answer.jobs] == [
        ("12", "3-4%2", "arr"),
        ("12_1", "", "arr"),
        ("13", "", "a|b | c"),
        ("14+1", "", "het"),
    ]
    assert answer.is_list
    assert from_squeue(Reply("")).is_list
    assert not from_squeue(Reply(""), asked=["7"]).is_list


@pytest.mark.parametrize(
    "line", ["x|RUNNING|n|u|None|j", "12|RUNNING", "slurm_load_jobs error: Socket timed out", "|||||", "12.0|R|||r|n"]
)
def test_a_line_that_is_no_job_is_a_problem(line):
    answer = from_squeue(Reply(f"1|RUNNING|n1|u|None|j\n{line}\n"))
    assert [job.id for job in answer.jobs] == ["1"]
    assert len(answer.problems) == 1


# Seen with the controller killed, frozen, and without configuration.
SILENT = [
    Reply("", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", 1),
    Reply("", "slurm_load_jobs error: Socket timed out on send/recv operation\n", 1),
    Reply("", "squeue: fatal: Could not establish a configuration source\n", 1),
    Reply("", "", -9),
    Reply("1|RUNNING|n1|u|None|j\n", "error", 1),
]


@pytest.mark.parametrize("reply", SILENT, ids=str)
@pytest.mark.parametrize("read", [from_squeue, from_squeue_json, from_sacct])
def test_a_controller_that_does_not_answer_says_nothing(read, reply):
    answer = read(reply)
    assert answer.jobs == ()
    assert answer.denied == {}
    assert len(answer.problems) == 1


def test_an_id_that_the_controller_has_forgotten_is_denied():
    reply = Reply("", "slurm_load_jobs error: Invalid job id specified\n", 1)
    end = Ended("unknown", reason="Invalid job id specified")
    assert from_squeue(reply, asked=["7", "8"]).denied == {"7": end, "8": end}
    assert from_squeue_json(reply, asked=["7"]).denied == {"7": end}
    # Nobody asked for an id: then this is an error like any other.
    assert from_squeue(reply).denied == {}
    assert from_squeue(reply).problems


def v22(**fields):
    """One element of `jobs`, the fields that are read, as openapi/v0.0.38 has them."""
    return {
        "account": "lab",
        "array_job_id": 0,
        "array_task_id": None,
        "array_task_string": "",
        "exit_code": 0,
        "job_id": 4711,
        "job_state": "RUNNING",
        "name": "cd-1f3c9a20-7",
        "nodes": "n1",
        "restart_cnt": 0,
        "state_reason": "None",
        "user_name": "alice",
        **fields,
    }


def read(*jobs, **fields):
    return from_squeue_json(Reply(json.dumps({"meta": {}, "errors": [], "jobs": list(jobs), **fields})))


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, Running("n1")),
        ({"job_state": "COMPLETED"}, Ended("exit", 0)),
        ({"job_state": "FAILED", "exit_code": 7 << 8, "state_reason": "NonZeroExitCode"}, Ended("exit", 7, None, "NonZeroExitCode")),
        ({"job_state": "FAILED", "exit_code": 11, "state_reason": "JobLaunchFailure"}, Ended("signal", None, 11, "JobLaunchFailure")),
        ({"job_state": "FAILED", "exit_code": 128 + 11}, Ended("signal", None, 11)),
        ({"job_state": "FAILED", "exit_code": 53, "state_reason": "JobLaunchFailure"}, Ended("start_failure", reason="JobLaunchFailure")),
        ({"job_state": "TIMEOUT", "exit_code": 15}, Ended("walltime")),
        ({"job_state": "OUT_OF_MEMORY", "exit_code": 125}, Ended("out_of_memory")),
        ({"job_state": "PENDING", "state_reason": "BeginTime", "restart_cnt": 1}, Requeued("BeginTime")),
        ({"job_state": "PENDING", "state_reason": "JobHeldUser", "restart_cnt": 1}, Held("user", "JobHeldUser")),
        # 23.02 and later: numbers and exit codes are structs; from 23.11 on the state is a list, with flags.
        ({"job_state": ["RUNNING"], "restart_cnt": {"set": True, "infinite": False, "number": 0}}, Running("n1")),
        ({"job_state": ["CANCELLED", "COMPLETING"]}, Completing()),
        ({"job_state": ["PENDING", "REQUEUED"]}, Requeued()),
        (
            {
                "job_state": ["FAILED"],
                "exit_code": {"status": ["ERROR"], "return_code": {"set": True, "number": 7}, "signal": {"id": {"set": False}}},
            },
            Ended("exit", 7),
        ),
        (
            {
                "job_state": ["FAILED"],
                "exit_code": {"return_code": {"set": False}, "signal": {"id": {"set": True, "number": 9}, "name": "KILL"}},
            },
            Ended("signal", None, 9),
        ),
        ({"job_state": "FAILED", "exit_code": None}, Ended("unknown")),
    ],
    ids=str,
)  # fmt: skip
def test_a_job_of_the_json(fields, state):
    answer = read(v22(**fields))
    assert answer.problems == ()
    assert answer.jobs[0].state == state


def test_ids_of_arrays_in_the_json():
    answer = read(
        v22(job_id=12, array_job_id=12, array_task_string="3-4%2", job_state="PENDING"),
        v22(job_id=13, array_job_id=12, array_task_id=1),
        # The last element takes the array's own number.
        v22(job_id=12, array_job_id=12, array_task_id=4),
        v22(job_id=20, array_job_id={"set": True, "number": 0}, array_task_id={"set": False, "number": 0}),
    )
    assert [(job.id, job.elements) for job in answer.jobs] == [("12", "3-4%2"), ("12_1", ""), ("12_4", ""), ("20", "")]


def test_starts_are_counted():
    assert [job.starts for job in read(v22(), v22(job_id=2, restart_cnt=2)).jobs] == [1, 3]
    assert read(v22(job_state="PENDING")).jobs[0].starts == 0


@pytest.mark.parametrize(
    "stdout",
    ["", "{", "[]", "{}", '{"jobs": 7}', '{"jobs": [7]}', '{"jobs": [{"job_id": 7}]}', '{"jobs": [{"job_state": "RUNNING"}]}',
     '{"jobs": [{"job_id": 7, "job_state": []}]}',
     '{"jobs": [{"job_id": 7, "job_state": [1]}]}', '{"jobs": [], "errors": [{"error": "x"}]}'],
)  # fmt: skip
def test_json_of_another_shape_is_a_problem(stdout):
    answer = from_squeue_json(Reply(stdout))
    assert not answer.jobs
    assert answer.problems


SACCT = (
    "JobID|State|ExitCode|User|JobName\n"
    "12|COMPLETED|0:0|alice|a\n"
    "12.batch|COMPLETED|0:0||batch\n"
    "13|FAILED|7:0|alice|b|c\n"
    "14|FAILED|0:11|alice|d\n"
    "15|CANCELLED by 0|0:0|alice|e\n"
    "16|TIMEOUT|0:15|alice|f\n"
    "17|OUT_OF_MEMORY|0:125|alice|g\n"
    "18|FAILED|0:53|alice|h\n"
    "19|RUNNING|0:0|alice|i\n"
    "20|PENDING|0:0|alice|j\n"
    "21|NODE_FAIL|1:0|alice|k\n"
    "22_1|PREEMPTED|0:0|alice|l\n"
    "22_[2-4]|PENDING|0:0|alice|l\n"
)


def test_sacct():
    answer = from_sacct(Reply(SACCT))
    assert answer.problems == ()
    assert {job.id: job.state for job in answer.jobs} == {
        "12": Ended("exit", 0),
        "13": Ended("exit", 7),
        "14": Ended("signal", None, 11),
        "15": Ended("cancelled", reason="by 0"),
        "16": Ended("walltime"),
        "17": Ended("out_of_memory"),
        "18": Ended("start_failure"),
        "19": Running(),
        "20": Pending(),
        "21": Ended("node_failure"),
        "22_1": Ended("preempted"),
        "22": Pending(),
    }
    assert answer.job("13").name == "b|c"
    assert not answer.is_list


@pytest.mark.parametrize(
    "stdout", ["", "12|COMPLETED|0:0|a|b\n", "JobID|State\n12|COMPLETED\n", "Slurm accounting storage is disabled\n"]
)
def test_accounting_without_its_header_is_a_problem(stdout):
    assert from_sacct(Reply(stdout)).problems == ("sacct: no header with JobID, State and ExitCode",)


@pytest.mark.parametrize("line", ["", "x|COMPLETED|0:0|a|b", "12|COMPLETED", "12|COMPLETED|0|a|b", "12|COMPLETED||a|b"])
def test_a_line_of_sacct_that_is_no_job_is_a_problem(line):
    answer = from_sacct(Reply(f"JobID|State|ExitCode|User|JobName\n{line}\n"))
    assert not answer.jobs
    assert len(answer.problems) == 1


def test_a_job_without_a_nice_end_of_line():
    assert [job.id for job in from_squeue(Reply("\n1|RUNNING|n1|u|None|j")).jobs] == ["1"]
    assert from_squeue(Reply("\n1|RUNNING|n1|u|None|j")).problems == ()


@given(st.text(max_size=300), st.text(max_size=50), st.integers(-15, 255))
def test_any_text_has_an_answer(stdout, stderr, status):
    for parser in (from_squeue, from_squeue_json, from_sacct):
        assert not parser(Reply(stdout, stderr, status)).jobs


@given(
    st.dictionaries(
        st.sampled_from(sorted(v22())),
        st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.text(max_size=3)),
    )
)
def test_values_may_have_any_type(fields):
    answer = read(v22(**fields))
    assert len(answer.jobs) + len(answer.problems) == 1

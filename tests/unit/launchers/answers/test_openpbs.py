"""Every real output of OpenPBS is read as what it is; and nothing that is not the answer asked for becomes news of a job."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.launchers.answers.answer import Answer, Reply
from clusterd.launchers.answers.openpbs import from_qstat_json, from_qstat_text
from clusterd.launchers.job_state import Completing, Ended, Held, Pending, Requeued, Running, Suspended
from tests.unit.launchers.answers.captured import capture, names

EVERY_FILE = names()
BY_FOLDER: dict[str, list[str]] = {}
for _name in EVERY_FILE:
    BY_FOLDER.setdefault(_name.rpartition("/")[0] or ".", []).append(_name)

# What a letter may come to, whatever else stands in the record; written down once more, apart from the parser.
OF_LETTER = {
    "Q": (Pending, Requeued),
    "W": (Pending,),
    "H": (Held,),
    "R": (Running, Completing),
    "B": (Running,),
    "S": (Suspended,),
    "E": (Completing,),
    "F": (Ended,),
    "X": (Ended,),
}


def read(name: str) -> Answer:
    """Read a capture with the parser that its command asks for."""
    found = capture(name)
    return (from_qstat_json if "-F json" in found.command else from_qstat_text)(found.reply)


def shown_by_json(stdout):
    """Return letter by id of a valid document, None of an invalid one."""
    try:
        document = json.loads(stdout, strict=False) if stdout.strip() else {}
    except ValueError:
        return None
    jobs = document.get("Jobs", {}) if isinstance(document, dict) else {}
    return {job: fields.get("job_state") for job, fields in jobs.items()}


def shown_by_text(stdout):
    # Each "Job Id:" line and the first job_state below it.
    return dict(re.findall(r"^Job Id: (\S+)\n(?:(?!Job Id: ).*\n)*?    job_state = (\S)$", stdout, re.MULTILINE))


def test_there_are_some_seven_hundred_outputs():
    assert len(EVERY_FILE) > 700


@pytest.mark.parametrize("folder", BY_FOLDER)
def test_each_output_is_read_as_what_it_is(folder):
    for found in map(capture, BY_FOLDER[folder]):
        if found.reply is None:
            continue
        for parser, shown in ((from_qstat_json, shown_by_json), (from_qstat_text, shown_by_text)):
            answer = parser(found.reply)
            # What is in the record, once more by other means; half an output (`| head`) has records without their state.
            expected = {job: letter for job, letter in (shown(found.reply.stdout) or {}).items() if letter}
            assert {report.id for report in answer.jobs} == set(expected), found.name
            for report in answer.jobs:
                assert isinstance(report.state, OF_LETTER[expected[report.id]]), (found.name, report)
            # No job of which there is no record has ended, whatever else was printed.
            for job in answer.denied:
                assert re.search(rf"(Unknown Job Id|qstat:) {re.escape(job)}\b", found.reply.stderr), found.name
            assert not answer.is_list


@pytest.mark.parametrize("folder", BY_FOLDER)
def test_the_wrong_reader_of_an_output_learns_nothing_and_says_so(folder):
    for found in map(capture, BY_FOLDER[folder]):
        if found.reply is None or not found.reply.stdout.strip():
            continue
        for parser, is_its_own in (
            (from_qstat_json, found.reply.stdout.lstrip().startswith("{")),
            (from_qstat_text, "Job Id:" in found.reply.stdout),
        ):
            if not is_its_own:
                answer = parser(found.reply)
                assert not answer.jobs, found.name
                assert answer.problems or answer.denied, found.name


def test_both_forms_of_all_jobs_at_once_agree():
    as_json, as_text = read("states/qstat-f-json-all.txt"), read("states/qstat-f-all.txt")
    assert len(as_json.jobs) == 8
    states = {report.id: type(report.state) for report in as_json.jobs}
    assert {report.id: type(report.state) for report in as_text.jobs} == states
    assert {report.name for report in as_json.jobs} == {report.name for report in as_text.jobs}


STATES = {
    # file: id, what it comes to
    "states/Q-400-chunks.txt": ("1910.pbshost", Pending, {"is_hopeless": True}),
    "states/Q-max_run.txt": ("1906.pbshost", Pending, {"is_hopeless": False}),
    "states/f-B_array.txt": ("37[].pbshost", Running, {}),
    "states/f-W.txt": (None, Pending, {}),
    "states/f-S.txt": (None, Suspended, {}),
    "states/f-H_user.txt": (None, Held, {"by": "user"}),
    "states/f-H_depend.txt": (None, Held, {"by": "dependency"}),
    "states/f-E_stageout.txt": ("89.pbshost", Completing, {}),
    "states/f-R_two_nodes.txt": (None, Running, {}),
    "exit/prologue-exit-2.txt": (None, Held, {"by": "error"}),
    "rerun/rerun-of-held-after.txt": (None, Held, {"by": "user"}),
    "node-crash/after-400s-rerunnable.txt": (None, Requeued, {}),
    "node-crash/after-400s-sister.txt": (None, Requeued, {}),
    "qdel/state-between.txt": (None, Completing, {}),
    "qdel/suspended-after.txt": (None, Suspended, {}),
    # the ends
    "exit/exit0.txt": (None, Ended, {"cause": "exit", "exit_code": 0}),
    "exit/exit7.txt": (None, Ended, {"cause": "exit", "exit_code": 7}),
    "exit/exit127.txt": (None, Ended, {"cause": "exit", "exit_code": 127}),
    "exit/exit255.txt": (None, Ended, {"cause": "exit", "exit_code": 255}),
    "exit/segv.txt": (None, Ended, {"cause": "exit", "exit_code": 139}),
    "exit/kill9self.txt": (None, Ended, {}),
    "exit/wall3.txt": (None, Ended, {"cause": "walltime", "exit_code": None}),
    "exit/wall3trapexit.txt": (None, Ended, {"cause": "walltime"}),
    "exit/prologue-exit-1.txt": (None, Ended, {"cause": "start_failure"}),
    "exit/home-missing.txt": (None, Completing, {}),
    "node-crash/after-400s-norerun.txt": (None, Ended, {"cause": "node_failure"}),
    "mom-killed/norerun-after-mom-restart.txt": (None, Ended, {"cause": "node_failure"}),
    "mom-killed/norerun-ended-after-mom-restart.txt": (None, Ended, {"cause": "node_failure"}),
    "signal/kill-after.txt": (None, Ended, {"cause": "signal", "signal": 9}),
    "signal/term-after.txt": (None, Ended, {"cause": "signal", "signal": 15}),
    "qdel/running-after.txt": (None, Ended, {"cause": "cancelled", "exit_code": None}),
    "qdel/queued-after.txt": (None, Ended, {"cause": "cancelled"}),
    "qdel/force-running-after.txt": (None, Ended, {"cause": "cancelled"}),
    "depend/afterok-of-failed.txt": (None, Ended, {"cause": "cancelled"}),
    "array/parent-all0.txt": (None, Ended, {"cause": "exit", "exit_code": 0}),
    "array/parent-one5.txt": (None, Ended, {"cause": "exit", "exit_code": None}),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_is_told_apart(name):
    job, kind, fields = STATES[name]
    answer = read(name)
    report = answer.jobs[0] if job is None else answer.job(job)
    assert isinstance(report.state, kind)
    assert {field: getattr(report.state, field) for field in fields} == fields
    assert answer.problems == ()


def test_elements_of_an_array_have_their_own_ends():
    ends = {report.id: report.state for report in read("array/parent-one5-t.txt").jobs}
    assert 5 in {state.exit_code for job, state in ends.items() if "[]" not in job}
    assert 0 in {state.exit_code for job, state in ends.items() if "[]" not in job}
    killed = {report.id: report.state for report in read("qdel/array-whole-after-json.txt").jobs}
    # Deleting the array has overwritten how its ended elements ended: that is not known any more, and not said to be 1.
    assert {state.cause for state in killed.values()} == {"cancelled", "unknown"}


def test_how_often_a_job_was_started_is_told():
    answer = read("mom-killed/after-restart-ended.txt")
    assert answer.jobs[0].starts == 2


def test_an_unknown_id_is_denied_and_the_others_are_answered():
    answer = read("ids/unknown-x-json.txt")
    assert answer.denied == {"99999.pbshost": Ended("unknown", reason="Unknown Job Id")}
    assert answer.problems == ()
    finished = read("ids/finished-without-x-json.txt")
    assert finished.denied == {"217.pbshost": Ended("unknown", reason="Job has finished")}


@pytest.mark.parametrize("folder", ["server-down", "server-frozen", "network-cut", "db-killed"])
def test_a_server_that_does_not_answer_denies_nothing(folder):
    silent = [
        found
        for found in map(capture, BY_FOLDER[folder])
        if found.reply
        and "qstat" in found.command
        and found.reply.status
        and "Unknown Job Id" not in found.reply.stderr
    ]
    assert silent
    for found in silent:
        answer = read(found.name)
        assert not answer.jobs, found.name
        assert not answer.denied, found.name
        assert answer.problems, found.name


def test_json_that_is_spoilt_by_another_job_is_a_problem_and_the_text_is_not():
    answer = read("json-by-version/v22.05.11/name_nan.txt")
    assert not answer.jobs
    assert "no valid JSON" in answer.problems[0]
    # A name that was read as a number is no name.
    lost = read("json-by-version/v23.06.06/name_1234e567.txt")
    assert [report.name for report in lost.jobs] == [""]
    kept = read("json-by-version/this/name_1234e567.txt")
    assert [report.name for report in kept.jobs] == ["1234e567"]


def test_the_first_of_several_ids_says_nothing_of_the_second():
    answer = read("bugs/json-several-ids-only-first.txt")
    assert len(answer.jobs) == 1
    assert not answer.denied
    assert not answer.is_list


def test_a_value_with_line_ends_does_not_end_its_record():
    forged = "Job Id: 1.s\n    Job_Name = a\n    Variable_List = X=1\n    job_state\nmore\n\tcut\n    job_state = R\n"
    answer = from_qstat_text(Reply(forged))
    assert [(report.id, report.words) for report in answer.jobs] == [("1.s", "R")]


def test_a_forged_record_makes_both_worthless():
    forged = "Job Id: 1.s\n    job_state = R\n    Variable_List = X=\nJob Id: 1.s\n    job_state = F\n"
    answer = from_qstat_text(Reply(forged))
    assert answer.jobs == ()
    assert answer.problems == ("two reports of job 1.s that differ",)


@pytest.mark.parametrize(
    "stdout",
    [
        "[]",
        "3",
        '{"Jobs": []}',
        '{"Jobs": {"1.s": 7}}',
        '{"Jobs": {"x": {"job_state": "F"}}}',
        "{" * 9999,
        "[" * 99999,
        "{",
    ],
)
def test_json_of_another_shape_is_a_problem(stdout):
    answer = from_qstat_json(Reply(stdout))
    assert not answer.jobs
    assert answer.problems


def test_a_letter_that_is_not_known_is_unclear():
    (report,) = from_qstat_json(Reply('{"Jobs": {"1.s": {"job_state": "M", "comment": "moved"}}}')).jobs
    assert report.state.reason == "job_state M: moved"


def test_a_job_that_had_to_make_room_was_preempted():
    document = {"Jobs": {"1.s": {"job_state": "F", "substate": 91, "comment": "Job deleted as result of preemption"}}}
    (report,) = from_qstat_json(Reply(json.dumps(document))).jobs
    assert report.state.cause == "preempted"


def test_a_denial_of_something_that_is_no_id_is_a_problem():
    answer = from_qstat_text(Reply("", "qstat: Unknown Job Id 12\n", 153))
    assert answer.denied == {}
    assert answer.problems == ("qstat: Unknown Job Id: 12",)


@given(st.text(max_size=400), st.text(max_size=60), st.integers(-15, 255))
def test_any_text_has_an_answer(stdout, stderr, status):
    for parser in (from_qstat_json, from_qstat_text):
        answer = parser(Reply(stdout, stderr, status))
        assert not any(isinstance(report.state, Ended) for report in answer.jobs)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = [
    "job_state",
    "substate",
    "Exit_status",
    "comment",
    "Hold_Types",
    "run_count",
    "Job_Name",
    "Job_Owner",
    "exec_host",
]


@given(
    st.dictionaries(st.sampled_from(FIELDS), values), st.sampled_from(["Q", "H", "R", "F", "X", "E", "B", "S", "?", ""])
)
def test_values_may_have_any_type(attributes, letter):
    answer = from_qstat_json(Reply(json.dumps({"Jobs": {"12[].s": {**attributes, "job_state": letter}}})))
    assert len(answer.jobs) == bool(letter)
    assert bool(answer.problems) is not bool(letter)

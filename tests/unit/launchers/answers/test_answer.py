"""What follows from a round of answers: the queue's word first, then accounting and denials; absence hardly ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.launchers.answers import lenient, xml
from clusterd.launchers.answers.answer import Answer, JobReport, Reading, Reply, standing
from clusterd.launchers.job_state import Alive, Ended, Gone, Pending, Requeued, Running, UnknownSince

CANCELLED = Ended("cancelled", reason="deleted")


def report(state, job="7", **fields):
    return JobReport(id=job, state=state, words="x", **fields)


def queue(*jobs, is_list=True, **fields):
    return Answer(source="qstat", jobs=jobs, is_list=is_list, **fields)


def accounting(*jobs, **fields):
    return Answer(source="qacct", jobs=jobs, **fields)


def test_the_queue_is_believed_before_the_accounting():
    # A requeued job has a record for the run that it was taken from.
    found = standing(None, "7", [queue(report(Requeued())), accounting(report(Ended("exit", 1)))], 5.0)
    assert found == Alive(Requeued(), 5.0, "qstat: was requeued and waits")


def test_the_accounting_knows_the_end():
    found = standing(None, "7", [queue(report(Running(), "8")), accounting(report(Ended("exit", 1)))], 5.0)
    assert found == Gone(Ended("exit", 1), 5.0, "qacct: ended (exit status 1)")


def test_a_denial_is_an_end_unless_somebody_knows_more():
    denied = queue(denied={"7": Ended("unknown", reason="Unknown Job Id")}, is_list=False)
    assert standing(None, "7", [denied], 5.0) == Gone(
        Ended("unknown", reason="Unknown Job Id"), 5.0, "qstat: Unknown Job Id"
    )
    assert standing(None, "7", [denied, accounting(report(Ended("walltime")))], 5.0).end.cause == "walltime"


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [queue()],
        [queue(is_list=False)],
        [queue(problems=("exit status 1",))],
        [queue(report(Running(), "70"))],
        [queue(), accounting(problems=("slurmdbd",))],
        [queue(report(Running(), "7_1"))],
    ],
    ids=str,
)
def test_absence_is_no_end(answers):
    assert isinstance(standing(None, "7", answers, 5.0), UnknownSince)


def test_absence_from_whole_answers_is_an_end_where_the_launcher_says_so():
    found = standing(None, "7", [queue(), accounting()], 5.0, vanished=CANCELLED)
    assert found == Gone(CANCELLED, 5.0, "qstat and qacct: no record of it")


@pytest.mark.parametrize(
    "answers",
    [[], [accounting()], [queue(is_list=False)], [queue(problems=("p",))], [queue(), accounting(problems=("p",))]],
    ids=str,
)
def test_and_not_from_any_other(answers):
    assert isinstance(standing(None, "7", answers, 5.0, vanished=CANCELLED), UnknownSince)


def test_the_evidence_of_silence_is_its_cause():
    assert (
        standing(None, "7", [queue(problems=("squeue: exit status 1: no",))], 5.0).evidence
        == "squeue: exit status 1: no"
    )
    assert standing(None, "7", [queue(is_list=False)], 5.0).evidence == "qstat: no word of it"


def test_reports_that_differ_cancel_each_other_and_equal_ones_are_one():
    reading = Reading("qstat")
    reading.add(report(Running()))
    reading.add(report(Running()))
    assert reading.answer().jobs == (report(Running()),)
    reading.add(report(Pending()))
    reading.deny("7", CANCELLED)
    reading.deny("8", CANCELLED)
    answer = reading.answer()
    assert answer.jobs == ()
    # What is shown, whatever it says, is not denied.
    assert answer.denied == {"8": CANCELLED}
    assert answer.problems == ("two reports of job 7 that differ",)


def test_a_failure_is_told_in_one_line():
    reading = Reading("squeue")
    reading.failed(Reply("out", "\n  slurm_load_jobs error: Unable\n  more", 1))
    reading.failed(Reply("first\nsecond", "", -9))
    reading.failed(Reply("", "", 2))
    assert reading.answer().problems == (
        "squeue: exit status 1: slurm_load_jobs error: Unable",
        "squeue: killed by signal 9: first",
        "squeue: exit status 2",
    )


def test_problems_are_bounded():
    reading = Reading("x")
    for number in range(1000):
        reading.problem(f"{number} " * 1000)
    assert len(reading.answer().problems) == 20
    assert max(map(len, reading.answer().problems)) <= 200


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (7, 7), ("7", 7), (" -7\n", -7), (7.0, 7), (7.5, None), (float("inf"), None), (float("nan"), None), (True, None),
        (None, None), ("", None), ("7x", None), ("9" * 30, None), ([7], None), ({"set": True, "infinite": False, "number": 7}, 7),
        ({"set": False, "infinite": False, "number": 0}, None), ({"number": 7}, None), ({}, None),
    ],
    ids=str,
)  # fmt: skip
def test_a_whole_number_is_found_in_every_dress(value, number):
    assert lenient.whole(value) == number


@pytest.mark.parametrize("document", ["", "{", "nan", "[" * 100_000, "1" * 5000, "\x00"])
def test_what_is_no_json_is_unreadable(document):
    with pytest.raises(lenient.Unreadable, match="no valid JSON"):
        lenient.load(document)


@given(st.text(max_size=200))
def test_xml_is_read_or_unreadable(document):
    with pytest.raises(lenient.Unreadable):
        xml.parse(document + "<")


def test_xml_expands_nothing_and_survives_control_characters():
    with pytest.raises(lenient.Unreadable, match="document type"):
        xml.parse('<!DOCTYPE a [<!ENTITY b "bbbb">]><a>&b;</a>')
    assert xml.parse("<?xml version='1.0' encoding='latin-1'?>\n<a>x\x07é\ud800</a>").text == "x\ufffdé\ufffd"

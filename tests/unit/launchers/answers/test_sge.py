"""qstat -xml and qacct of Grid Engine 8.1.9: the states that were seen or are documented, and how jobs ended.

The documents follow qstat(1), qstat.xsd and accounting(5); the codes of `failed` are those of sge_status(5), of which 0, 25, 26, 30,
37 and 100 were seen on a real 8.1.9.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.launchers.answers.answer import JobReport, Reply
from clusterd.launchers.answers.sge import from_qacct, from_qstat_xml
from clusterd.launchers.job_state import Completing, Ended, Held, Pending, Requeued, Running, Suspended, Unclear

HEAD = """<?xml version='1.0'?>
<job_info  xmlns:xsd="http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/schemas/qstat/qstat.xsd">
"""


def job(number, letters, *, name="cd-1f3c9a20-7", tasks="", queue=""):
    is_running = bool(queue)
    return f"""    <job_list state="{"running" if is_running else "pending"}">
      <JB_job_number>{number}</JB_job_number>
      <JAT_prio>0.55500</JAT_prio>
      <JB_name>{name}</JB_name>
      <JB_owner>alice</JB_owner>
      <state>{letters}</state>
      <JB_submission_time>2026-11-22T15:51:01</JB_submission_time>
      <queue_name>{queue}</queue_name>
      <slots>4</slots>
{f"      <tasks>{tasks}</tasks>" if tasks else ""}    </job_list>
"""


def document(*jobs):
    running = "".join(text for text in jobs if 'state="running"' in text)
    pending = "".join(text for text in jobs if 'state="pending"' in text)
    return f"{HEAD}  <queue_info>\n{running}  </queue_info>\n  <job_info>\n{pending}  </job_info>\n</job_info>\n"


LETTERS = {
    "qw": Pending(),
    "r": Running("n2"),
    "t": Running("n2"),
    "Rr": Running("n2"),
    "Rt": Running("n2"),
    "hr": Running("n2"),
    "hqw": Held("unknown", "hqw"),
    "hRwq": Held("unknown", "hRwq"),
    "Eqw": Held("error", "Eqw: see qstat -j, `error reason`"),
    "Ehqw": Held("error", "Ehqw: see qstat -j, `error reason`"),
    "Rq": Requeued("Rq"),
    "Rqw": Requeued("Rqw"),
    "dr": Completing("being deleted (dr)"),
    "dt": Completing("being deleted (dt)"),
    "dRr": Completing("being deleted (dRr)"),
    "s": Suspended("s"),
    "S": Suspended("S"),
    "T": Suspended("T"),
    "tsT": Suspended("tsT"),
    "P": Suspended("P"),
    "z": Ended("unknown", reason="finished (z)"),
    "N": Suspended("N"),
    "X": Unclear("state X"),
    "r?": Unclear("state r?"),
}


@pytest.mark.parametrize("letters", LETTERS)
def test_letters(letters):
    answer = from_qstat_xml(Reply(document(job(7, letters, queue="all.q@n2"))))
    assert answer.problems == ()
    assert answer.jobs == (
        JobReport(id="7", state=LETTERS[letters], words=letters, name="cd-1f3c9a20-7", owner="alice"),
    )


def test_a_list():
    answer = from_qstat_xml(
        Reply(
            document(
                job(5, "r", tasks="3", queue="all.q@n1"),
                job(5, "r", tasks="4", queue="all.q@n2"),
                job(5, "qw", tasks="5-9:2"),
                job(6, "qw", name="a &amp; b"),
            )
        )
    )
    assert [(found.id, found.elements, found.name) for found in answer.jobs][2:] == [
        ("5", "5-9:2", "cd-1f3c9a20-7"),
        ("6", "", "a & b"),
    ]
    assert [found.id for found in answer.jobs][:2] == ["5.3", "5.4"]
    assert answer.is_list
    assert from_qstat_xml(Reply(document())).jobs == ()
    assert from_qstat_xml(Reply(document())).problems == ()


def test_a_name_with_control_characters_spoils_nothing():
    (report,) = from_qstat_xml(Reply(document(job(7, "qw", name="a\x07b")))).jobs
    assert report.name == "a\ufffdb"


@pytest.mark.parametrize(
    "reply",
    [
        # Seen with the qmaster killed.
        Reply("", "error: commlib error: got select error (Connection refused)\n", 1),
        Reply("", "", -9),
        Reply("", "", 0),
        Reply(document(job(7, "r"))[:-40]),
        Reply("<comm_error/>"),
        Reply(HEAD + "<job_list><state>r</state></job_list></job_info>"),
        Reply(HEAD + "<job_list><JB_job_number>7</JB_job_number></job_list></job_info>"),
    ],
    ids=str,
)
def test_what_is_no_list_is_a_problem(reply):
    answer = from_qstat_xml(reply)
    assert answer.jobs == ()
    assert answer.problems


def record(**fields):
    values = {
        "qname": "all.q",
        "hostname": "n2",
        "owner": "alice",
        "jobname": "cd-1f3c9a20-7",
        "jobnumber": "7",
        "taskid": "undefined",
        "failed": "0",
        "exit_status": "0",
        "ru_wallclock": "3s",
        "category": "-u alice -l h_rt=3",
        **fields,
    }
    return "=" * 62 + "\n" + "".join(f"{name:12} {value:20}\n" for name, value in values.items())


ENDS = [
    ({}, Ended("exit", 0)),
    ({"exit_status": "7"}, Ended("exit", 7)),
    ({"exit_status": "127"}, Ended("exit", 127)),
    (
        {"failed": "100 : assumedly after job", "exit_status": "137    (Killed)"},
        Ended("signal", None, 9, "assumedly after job"),
    ),
    (
        {"failed": "26  : opening input/output file", "exit_status": "0"},
        Ended("start_failure", reason="opening input/output file"),
    ),
    (
        {"failed": "30  : rescheduling on application error", "exit_status": "100"},
        Ended("exit", 100, reason="rescheduling on application error"),
    ),
    ({"failed": "19  : before writing exit_status"}, Ended("node_failure", reason="before writing exit_status")),
    ({"failed": "1"}, Ended("start_failure", reason="failed 1")),
    ({"failed": "15  : in epilog", "exit_status": "3"}, Ended("exit", 3, reason="in epilog")),
    ({"failed": "25  : rescheduling", "exit_status": "99"}, Requeued("rescheduling")),
    ({"exit_status": "99"}, Requeued("exit status 99")),
    (
        {"failed": "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", "exit_status": "137", "ru_wallclock": "4s"},
        Ended("walltime", reason="qmaster enforced h_rt, h_cpu, or h_vmem limit"),
    ),
    (
        {"failed": "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", "exit_status": "137", "ru_wallclock": "2s"},
        Ended("limit", reason="qmaster enforced h_rt, h_cpu, or h_vmem limit"),
    ),
    ({"failed": "37  : limit", "category": "-u alice"}, Ended("limit", reason="limit")),
]


@pytest.mark.parametrize(("fields", "state"), ENDS, ids=str)
def test_a_record_of_the_accounting(fields, state):
    answer = from_qacct(Reply(record(**fields)))
    assert answer.problems == ()
    assert [(found.id, found.state, found.name) for found in answer.jobs] == [("7", state, "cd-1f3c9a20-7")]


def test_the_last_record_of_a_job_counts():
    answer = from_qacct(
        Reply(
            record(failed="25  : rescheduling", exit_status="99")
            + record(exit_status="5")
            + record(taskid="2", exit_status="6")
        )
    )
    assert {found.id: found.state.exit_code for found in answer.jobs} == {"7": 5, "7.2": 6}


def test_no_record_is_a_whole_answer_that_says_nothing():
    answer = from_qacct(Reply("", "error: job id 99 not found\n", 1))
    assert (answer.jobs, answer.denied, answer.problems, answer.is_list) == ((), {}, (), False)


@pytest.mark.parametrize(
    "reply",
    [
        Reply("", "error: no such file or directory: accounting", 1),
        Reply("Total System Usage\n    WALLCLOCK         UTIME\n"),
        Reply(record(failed="")),
        Reply(record(exit_status="?")),
        Reply(record(jobnumber="")),
    ],
    ids=str,
)
def test_what_is_no_record_is_a_problem(reply):
    answer = from_qacct(reply)
    assert answer.jobs == ()
    assert answer.problems


@given(st.text(max_size=300), st.text(max_size=50), st.integers(-15, 255))
def test_any_text_has_an_answer(stdout, stderr, status):
    for parser in (from_qstat_xml, from_qacct):
        assert not parser(Reply(stdout, stderr, status)).jobs

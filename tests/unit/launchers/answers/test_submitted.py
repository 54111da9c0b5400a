"""Accepted, refused, or lost: a job that may exist is never taken for refused, nor one with an id for lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.launchers.answers.answer import Reply
from clusterd.launchers.answers.submitted import Accepted, Lost, Refused, submission
from tests.unit.launchers.answers.captured import capture, names

ACCEPTED = [
    ("slurm", "Submitted batch job 12\n", Accepted("12")),
    ("slurm", "12\n", Accepted("12")),
    ("slurm", "12;cluster\n", Accepted("12")),
    ("slurm", "Submitted batch job 12 on cluster big\n", Accepted("12")),
    ("pbs", "12.pbshost\n", Accepted("12.pbshost")),
    ("pbs", "12[].pbshost.site.org\n", Accepted("12[].pbshost.site.org")),
    ("torque", "23\n", Accepted("23")),
    ("torque", "23.head\n", Accepted("23.head")),
    ("sge", 'Your job 1 ("hello") has been submitted\n', Accepted("1")),
    ("sge", 'Your job-array 5.1-4:1 ("arr") has been submitted\n', Accepted("5", "1-4:1")),
    ("sge", "3\n", Accepted("3")),
    ("sge", "6.1-7:2\n", Accepted("6", "1-7:2")),
    ("lsf", "Job <1234> is submitted to default queue <normal>.\n", Accepted("1234")),
    ("lsf", "Job <1234> is submitted to queue <long>.\n", Accepted("1234")),
    ("htcondor", "Submitting job(s).\n1 job(s) submitted to cluster 42.\n", Accepted("42")),
    ("htcondor", "42.0 - 42.3\n", Accepted("42")),
]


@pytest.mark.parametrize(("system", "stdout", "expected"), ACCEPTED, ids=str)
def test_an_id_is_an_acceptance(system, stdout, expected):
    assert submission(system, Reply(stdout)) == expected
    # Whatever follows: a site's wrapper, a warning, a signal.
    assert submission(system, Reply(f"\nWelcome to the cluster!\n{stdout}", "warning: x", 1)) == expected
    assert submission(system, Reply(stdout, "", -9)) == expected


REFUSED = [
    ("slurm", "", "sbatch: error: Batch job submission failed: Requested node configuration is not available\n", 1),
    ("slurm", "", "sbatch: error: This does not look like a batch script.\n", 1),
    ("slurm", "", "sbatch: unrecognized option '--nonsense'\nTry \"sbatch --help\"\n", 255),
    ("torque", "There was an error running the Slurm sbatch command.\nThe command was:\n", "", 1),
    ("torque", "", "qsub: submit error (Unknown queue MSG=cannot locate queue)\n", 170),
    ("sge", "", 'Unable to run job: Job was rejected because job requests unknown queue "x".\nExiting.\n', 1),
    ("lsf", "", "no: No such queue. Job not submitted.\n", 255),
    ("lsf", "", "Request aborted by esub. Job not submitted.\n", 255),
    ("htcondor", "Submitting job(s)", "\nERROR: Executable file /nothing does not exist\n", 1),
]


@pytest.mark.parametrize(("system", "stdout", "stderr", "status"), REFUSED, ids=str)
def test_a_refusal_has_its_words(system, stdout, stderr, status):
    found = submission(system, Reply(stdout, stderr, status))
    assert isinstance(found, Refused)
    assert found.words.startswith((stderr or stdout).strip()[:40])


LOST = [
    (
        "slurm",
        "",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n",
        1,
    ),
    ("slurm", "", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n", 1),
    ("slurm", "", "", -9),
    ("slurm", "", "", 0),
    ("slurm", "12\n13\n", "", 0),
    ("slurm", "", "Killed\n", 137),
    ("sge", "", "Unable to run job: got no response from qmaster\n", 1),
    ("sge", "", "Unable to run job: error: commlib error: got select error\n", 1),
    ("sge", "", "Error reading answer list from qmaster\n", 1),
    ("lsf", "", "Failed in an LSF library call: Communication time out\n", 255),
    ("htcondor", "", "ERROR: Failed to commit job submission into the queue.\n", 1),
    ("htcondor", "", "Segmentation fault\n", 139),
]


@pytest.mark.parametrize(("system", "stdout", "stderr", "status"), LOST, ids=str)
def test_what_nobody_knows_is_lost(system, stdout, stderr, status):
    assert isinstance(submission(system, Reply(stdout, stderr, status)), Lost)


def qsubs():
    """Return every capture of a single qsub of OpenPBS."""
    found = [capture(name) for name in names()]
    return [one for one in found if one.reply and re.match(r"(timeout -s KILL \d+ )?qsub ", one.command)]


def test_every_captured_qsub_is_told_apart():
    kinds = {Accepted: 0, Refused: 0, Lost: 0}
    for one in qsubs():
        if ";" in one.command or "|" in one.command:
            continue  # its output is that of several commands
        found = submission("pbs", one.reply)
        kinds[type(found)] += 1
        printed = re.findall(r"^[0-9]+(?:\[\])?\.\S+$", one.reply.stdout, re.MULTILINE)
        assert isinstance(found, Accepted) == (len(printed) == 1), (one.name, found)
        if isinstance(found, Refused):
            # The server, or qsub itself, has looked at it and said no.
            assert one.reply.status > 0
            assert "connect" not in one.reply.stderr, (one.name, found)
        if one.name.startswith(("server-down/", "server-frozen/", "network-cut/")) and not printed:
            assert isinstance(found, Lost), (one.name, found)
    assert min(kinds.values()) > 0, kinds


@given(
    st.sampled_from(["slurm", "pbs", "torque", "sge", "lsf", "htcondor"]), st.text(max_size=60), st.text(max_size=60)
)
def test_success_and_death_are_never_refusals(system, stdout, stderr):
    for status in (0, -9):
        assert not isinstance(submission(system, Reply(stdout, stderr, status)), Refused)

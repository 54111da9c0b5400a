"""Alive, gone, or unknown since when: only the system's own word ends a job, and nothing brings one back."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.launchers import job_state
from clusterd.launchers.job_state import (
    CAUSES,
    Alive,
    Completing,
    Ended,
    Gone,
    Held,
    Pending,
    Requeued,
    Running,
    Suspended,
    Unclear,
    UnknownSince,
    after_silence,
    after_word,
    age,
    in_words,
    is_failure,
)

SEEN = Alive(Running("n1"), 10.0, "squeue: RUNNING")


def test_a_word_is_believed():
    assert after_word(None, Running("n1"), 10.0, "squeue: RUNNING") == SEEN
    assert after_word(SEEN, Pending("x"), 11.0, "e") == Alive(Pending("x"), 11.0, "e")
    assert after_word(SEEN, Ended("exit", 0), 11.0, "e") == Gone(Ended("exit", 0), 11.0, "e")


def test_silence_keeps_what_was_known_and_since_when_it_is_old():
    first = after_silence(SEEN, 20.0, "squeue: exit status 1")
    assert first == UnknownSince(20.0, 20.0, "squeue: exit status 1", SEEN)
    second = after_silence(first, 50.0, "timed out")
    assert second == UnknownSince(20.0, 50.0, "timed out", SEEN)
    assert (age(second, 80.0), age(SEEN, 80.0)) == (60.0, 70.0)
    assert after_word(second, Running("n1"), 60.0, "e") == Alive(Running("n1"), 60.0, "e")


def test_silence_about_what_was_never_seen_is_unknown():
    assert after_silence(None, 5.0, "e") == UnknownSince(5.0, 5.0, "e", None)
    assert after_silence(after_silence(None, 5.0, "e"), 6.0, "f") == UnknownSince(5.0, 6.0, "f", None)


def test_an_unclear_word_is_silence():
    assert after_word(SEEN, Unclear("UNKWN"), 20.0, "bjobs: UNKWN") == UnknownSince(20.0, 20.0, "bjobs: UNKWN", SEEN)


def test_an_older_question_corrects_no_newer_answer():
    assert after_word(SEEN, Ended("exit", 0), 9.0, "e") is SEEN
    assert after_silence(SEEN, 9.0, "e") is SEEN


states = st.sampled_from(
    [
        Pending(),
        Running(),
        Held("user"),
        Suspended(),
        Requeued(),
        Completing(),
        Unclear(),
        Ended("exit", 0),
        Ended("walltime"),
    ]
)
steps = st.lists(st.tuples(st.one_of(st.none(), states), st.integers(0, 30)), max_size=30)


@given(steps)
def test_a_job_is_gone_by_a_word_alone_and_for_ever(history):
    standing = None
    ends = 0
    for state, asked_at in history:
        before = standing
        if state is None:
            standing = after_silence(standing, float(asked_at), "silence")
            assert isinstance(standing, Gone) == isinstance(before, Gone)
        else:
            standing = after_word(standing, state, float(asked_at), "word")
            ends += isinstance(standing, Gone) and not isinstance(before, Gone)
            if not isinstance(state, Ended):
                assert isinstance(standing, Gone) == isinstance(before, Gone)
        if isinstance(before, Gone):
            assert standing is before
        # What is known never grows older.
        assert before is None or standing.asked_at >= before.asked_at
    assert ends <= 1


FAILURES = {
    "exit": True,
    "signal": True,
    "walltime": False,
    "limit": True,
    "out_of_memory": True,
    "preempted": False,
    "node_failure": True,
    "cancelled": False,
    "start_failure": True,
    "unknown": True,
}


def test_every_cause_is_a_failure_or_none():
    assert {cause: is_failure(Ended(cause)) for cause in CAUSES} == FAILURES
    assert not is_failure(Ended("exit", 0))
    assert is_failure(Ended("exit", 1))


WORDS = {
    Pending("Priority"): "is pending: Priority",
    Pending("Can Never Run: ncpus", is_hopeless=True): "can never run as things are: Can Never Run: ncpus",
    Running("n[1-4]"): "is running on n[1-4]",
    Running(): "is running",
    Held("error", "Eqw"): "is held after an error: Eqw",
    Held("dependency"): "waits for another job",
    Held("operator"): "is held by operator",
    Held("unknown"): "is held",
    Suspended(): "is suspended",
    Requeued("BeginTime"): "was requeued and waits: BeginTime",
    Completing(): "is completing",
    Unclear("M"): "is in an unclear state: M",
    Ended("exit", 7): "ended (exit status 7)",
    Ended("signal", None, 9, "by qdel"): "was killed (signal 9): by qdel",
    Ended("walltime"): "reached its walltime",
}


@pytest.mark.parametrize("state", WORDS, ids=str)
def test_a_state_has_words(state):
    assert in_words(state) == WORDS[state]


def test_every_state_and_every_cause_has_words():
    assert {type(state) for state in WORDS} == set(get_args(job_state.JobState))
    assert len({in_words(Ended(cause)) for cause in CAUSES}) == len(CAUSES)


def test_states_travel():
    for state in WORDS:
        assert msgspec.json.decode(msgspec.json.encode(state), type=job_state.JobState) == state

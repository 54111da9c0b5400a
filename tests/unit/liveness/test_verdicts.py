"""The table is total, and each of its claims is one that somebody relies on."""

from __future__ import annotations

from itertools import product

import pytest

from clusterd.core.liveness.verdicts import TABLE, Link, Process, Verdict, Word

ALL = list(product(Word, Process, Link))


def verdict(word, process, link):
    return TABLE[word][process][link]


def test_the_table_is_total():
    assert set(TABLE) == set(Word)
    for by_process in TABLE.values():
        assert set(by_process) == set(Process)
        for by_link in by_process.values():
            assert set(by_link) == set(Link)


@pytest.mark.parametrize(("word", "process", "link"), ALL)
def test_lost_takes_proof_or_that_nobody_is_left_to_prove(word, process, link):
    is_proof = word is Word.EXITED or process is Process.GONE
    is_nobody_left = word is Word.NONE and process is Process.UNKNOWN and link is Link.EXPIRED
    assert (verdict(word, process, link) is Verdict.LOST) == (is_proof or is_nobody_left)


@pytest.mark.parametrize(("process", "link"), list(product(Process, Link)))
def test_an_engine_whose_agent_says_it_lives_is_never_lost_by_silence(process, link):
    if process is not Process.GONE:
        assert verdict(Word.ALIVE, process, link) is not Verdict.LOST


@pytest.mark.parametrize(("process", "link"), list(product([Process.UNKNOWN, Process.RUNNING], Link)))
def test_a_frozen_engine_is_suspect_and_no_more(process, link):
    assert verdict(Word.FROZEN, process, link) is Verdict.SUSPECT


@pytest.mark.parametrize("word", [Word.STALE, Word.GONE])
@pytest.mark.parametrize("link", Link)
def test_without_its_agent_an_engine_is_judged_by_its_link_and_at_most_suspect(word, link):
    expected = Verdict.ALIVE if link is Link.FRESH else Verdict.SUSPECT
    assert verdict(word, Process.UNKNOWN, link) is expected


@pytest.mark.parametrize(("word", "process", "link"), ALL)
def test_nothing_is_trusted_that_cannot_be_reached(word, process, link):
    if link in {Link.CLOSED, Link.EXPIRED}:
        assert verdict(word, process, link) is not Verdict.ALIVE


@pytest.mark.parametrize(("word", "link"), list(product(Word, Link)))
def test_a_process_that_is_seen_to_run_never_makes_things_worse(word, link):
    worse = [Verdict.ALIVE, Verdict.SUSPECT, Verdict.LOST]
    unknown, running = verdict(word, Process.UNKNOWN, link), verdict(word, Process.RUNNING, link)
    assert worse.index(running) <= worse.index(unknown)

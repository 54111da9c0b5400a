"""A successor places what is offered again when it knows what the engines hold; never much later."""

from __future__ import annotations

import pytest

from clusterd.controller.recovery import Recovery, place
from clusterd.core.wire.messages import EngineState

HERE, THERE = place("engines", "here"), place("engines", "there")


def listed(state="running", *, has_results=False):
    return EngineState(b"u" * 16, 0, 1, state, b"task" if state == "running" else b"", id=7, has_results=has_results)


def test_the_first_controller_has_nothing_to_recover():
    assert Recovery().is_over(0.0)


def test_a_predecessor_without_agents_left_nothing():
    assert Recovery([], 0.0).is_over(0.1)


def test_every_agent_is_waited_for():
    recovery = Recovery([HERE, THERE], 0.0)
    recovery.agent_reported(HERE)
    assert not recovery.is_over(0.1)
    assert recovery.places(0.1) == {THERE}
    recovery.agent_reported(THERE)
    assert recovery.is_over(0.1)
    assert recovery.places(0.1) == set()


@pytest.mark.parametrize("state", ["idle", "starting", "stopping"])
def test_an_engine_that_does_not_run_is_waited_for(state):
    recovery = Recovery([HERE], 0.0)
    recovery.engine_listed(7, listed(state))
    recovery.agent_reported(HERE)
    assert not recovery.is_over(0.1)
    recovery.engine_settled(7)
    assert recovery.is_over(0.1)


def test_an_engine_that_runs_is_known_by_its_page():
    recovery = Recovery([HERE], 0.0)
    recovery.engine_listed(7, listed())
    recovery.agent_reported(HERE)
    assert recovery.is_over(0.1)


def test_an_engine_that_runs_and_holds_results_is_waited_for():
    recovery = Recovery([HERE], 0.0)
    recovery.engine_listed(7, listed(has_results=True))
    recovery.agent_reported(HERE)
    assert not recovery.is_over(0.1)


def test_an_agent_is_waited_for_longer_than_an_engine():
    recovery = Recovery([HERE], 0.0)
    assert not recovery.is_over(9.9)
    assert recovery.is_over(10.0)
    assert recovery.places(10.0) == set()


def test_an_engine_that_is_listed_and_does_not_come_is_not_waited_for_longer():
    recovery = Recovery([HERE], 0.0)
    recovery.engine_listed(7, listed("idle"))
    recovery.agent_reported(HERE)
    assert not recovery.is_over(1.9)
    assert recovery.is_over(2.0)


def test_where_nobody_knows_the_agents_the_limit_decides():
    recovery = Recovery(None, 0.0)
    recovery.agent_reported(HERE)
    assert not recovery.is_over(1.9)
    assert recovery.is_over(2.0)


def test_once_over_it_stays_over():
    recovery = Recovery([HERE], 0.0)
    recovery.agent_reported(HERE)
    assert recovery.is_over(0.1)
    recovery.engine_listed(7, listed("idle"))
    assert recovery.is_over(0.1)

"""Drains: by name and by scaling, with a successor and without, over restarts of daemon, controller and agent."""

from __future__ import annotations

import pytest

from clusterd.core.supervisor import actions, events, records
from tests.unit.supervisor.bench import Bench, identity, kinds, launch


def drains(bench, unit="engines"):
    return bench.supervisor.state.draining.get(unit, {})


def asked(bench, *slots, replace=False, patience=None, unit="engines"):
    return bench.send(events.DrainRequested(5, {unit: slots}, replace, patience), 10.0)


def test_the_named_engine_goes_when_it_is_idle_and_the_number_goes_down():
    bench = Bench().up()
    done = asked(bench, 1)
    assert done[1:] == [actions.Drain("engines", (1,))]
    assert bench.supervisor.state.desired["engines"].n == 3
    assert bench.view("engines").draining == (1,)
    assert not bench.view("engines").is_converged
    assert bench.send(events.EnginesDrained("engines", (1,)), 12.0) == [
        actions.SetDesired(launch(1), "engines", 3, (0, 2, 3))
    ]
    assert drains(bench) == {}
    bench.report(1, 0, 2, 3)
    bench.observe("engines", 0, 2, 3)
    assert bench.view("engines").is_converged


def test_what_it_runs_has_the_time_of_the_command():
    bench = Bench().up()
    asked(bench, 1, patience=2.0)
    assert bench.supervisor.next_deadline() == 12.0
    assert kinds(bench.wait(12.0)) == ["SetDesired"]
    # The next drain goes by the profile again.
    asked(bench, 2)
    assert bench.supervisor.next_deadline() == 12.0 + 30.0


def test_a_replaced_engine_is_given_up_first_and_its_slot_is_filled_when_the_agent_says_that_it_is_gone():
    bench = Bench().up()
    done = asked(bench, 1, replace=True)
    assert done[1:] == [actions.Drain("engines", (1,))]
    assert bench.supervisor.state.desired["engines"].n == 4
    done = bench.send(events.EnginesDrained("engines", (1,)), 12.0)
    assert done == [actions.SetDesired(launch(1), "engines", 2, (0, 2, 3))]
    assert drains(bench)[1].is_given_up
    # An order that the agent has not confirmed gives nothing back: it could be lost, and the old engine would stay.
    assert bench.observe("engines", 0, 2, 3) == []
    assert bench.report(1, 0, 2, 3, 1, generation=1) == [actions.SetDesired(launch(1), "engines", 2, (0, 2, 3))]
    assert bench.report(1, 0, 2, 3, generation=2) == [actions.SetDesired(launch(1), "engines", 3, (0, 1, 2, 3))]
    assert drains(bench) == {}
    bench.report(1)
    bench.observe("engines", 0, 1, 2, 3)
    assert bench.view("engines").is_converged


def test_a_replaced_engine_that_dies_meanwhile_has_a_successor_already():
    bench = Bench().up()
    asked(bench, 1, replace=True)
    bench.now = 11.0
    assert bench.observe("engines", 0, 2, 3) == []
    assert drains(bench) == {}


def test_the_daemon_may_be_started_anew_and_the_deadline_stays():
    bench = Bench().up()
    asked(bench, 1, patience=20.0)
    asked(bench, 2, replace=True, patience=25.0)
    again = bench.crashed()
    again.send(events.JournalReplayed())
    for number in (0, 1):
        again.send(events.AdoptionResult(launch(number), "found", identity(number)))
    assert again.view("engines").draining == (1, 2)
    # The controller may have been another one, which knows of no drain.
    assert again.send(events.ControllerReady(launch(0))) == [actions.Drain("engines", (1, 2))]
    again.report(1)
    again.observe("engines", 0, 1, 2, 3)
    assert again.supervisor.next_deadline() == 30.0
    assert again.wait(30.0) == [actions.SetDesired(launch(1), "engines", 3, (0, 2, 3))]
    assert again.wait(35.0) == [actions.SetDesired(launch(1), "engines", 4, (0, 3))]
    assert kinds(again.report(1, 0, 3)) == ["SetDesired"]
    assert again.slots(1) == (0, 2, 3)


def test_the_clock_of_an_earlier_boot_begins_the_drain_anew():
    bench = Bench().up()
    bench.now = 1000.0
    asked(bench, 1, patience=20.0)
    again = bench.crashed()
    again.now = 3.0
    again.send(events.JournalReplayed())
    again.send(events.AdoptionResult(launch(1), "found", identity(1)))
    assert 3.0 < again.supervisor.next_deadline() <= 23.0


def test_an_agent_that_dies_leaves_the_drain_to_its_successor():
    bench = Bench().up()
    asked(bench, 1, replace=True)
    bench.send(events.EnginesDrained("engines", (1,)), 12.0)
    # It was told, and nobody knows whether it came to do it.
    assert kinds(bench.send(events.LaunchExited(launch(1), "killed by SIGKILL"), 13.0)) == ["Start"]
    assert bench.slots(2) == (0, 1, 2, 3)
    assert not drains(bench)[1].is_given_up
    bench.send(events.Started(launch(2), identity(2)))
    bench.report(2)
    assert kinds(bench.send(events.EnginesDrained("engines", (1,)), 14.0)) == ["SetDesired"]
    bench.report(2, 0, 2, 3)
    assert bench.slots(2) == (0, 1, 2, 3)


def test_an_agent_that_ends_cleanly_has_ended_its_engines():
    bench = Bench().up()
    asked(bench, 1, replace=True)
    bench.send(events.LaunchExited(launch(1), "ended", is_clean=True), 13.0)
    assert drains(bench) == {}


def test_wanted_after_all():
    bench = Bench().up()
    asked(bench, 1)
    done = bench.send(events.ScaleRequested(6, "engines", 4), 11.0)
    assert done[1:] == [actions.Drain("engines", (1,), is_draining=False)]
    assert drains(bench) == {}
    # One that is to be replaced stays so, however many are wanted.
    asked(bench, 1, replace=True)
    bench.send(events.ScaleRequested(6, "engines", 5), 12.0)
    assert list(drains(bench)) == [1]


def test_stop_ends_all_drains():
    bench = Bench().up()
    asked(bench, 1, replace=True)
    asked(bench, 2)
    assert records.RunChanged("local", is_wanted=False) in (bench.send(events.StopRequested(6)), bench.records)[1]
    assert bench.supervisor.state.draining == {}


@pytest.mark.parametrize(
    ("unit", "slot", "text"), [("engines", 9, "engines/9: not wanted"), ("gpu", 0, "no engine set 'gpu'")]
)
def test_what_is_not_there_is_refused_and_nothing_changed(unit, slot, text):
    bench = Bench().up()
    [refusal] = bench.send(events.DrainRequested(5, {"engines": (1,), unit: (slot,)}))
    assert isinstance(refusal, actions.Refuse)
    assert text in refusal.message
    assert bench.records == []


def test_what_goes_already_goes_and_gets_no_successor():
    bench = Bench().up()
    asked(bench, 1)
    assert kinds(asked(bench, 1)) == ["Answer"]
    assert bench.records == []
    [refusal] = asked(bench, 1, replace=True)
    assert "on its way out" in refusal.message


def test_nothing_is_drained_in_a_cluster_that_is_stopped():
    bench = Bench()
    bench.send(events.JournalReplayed())
    [refusal] = asked(bench, 1)
    assert "stopped" in refusal.message


def test_a_place_without_an_engine_needs_no_drain():
    bench = Bench().up()
    bench.send(events.LaunchExited(launch(1), "killed by SIGKILL"), 5.0)
    bench.send(events.LaunchExited(launch(2), "killed by SIGKILL"), 5.0)
    assert bench.supervisor.state.of_unit("engines") == []
    asked(bench, 1, replace=True)
    assert drains(bench) == {}

"""Plans: what they tell, that they change nothing, and that the deed is the same."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterd.core.supervisor import actions, events
from clusterd.core.supervisor.footprint import Footprint, SetFootprint, footprint, plan
from tests.unit.supervisor.bench import ONLY_BATCH, TWO_SETS, Bench, identity, launch


def planned(bench, command):
    """Plan a command, see that nothing has changed, carry it out, and see that it was as planned."""
    before = copy.deepcopy(bench.supervisor)
    told = plan(bench.supervisor, command, bench.now)
    assert vars(bench.supervisor.state) == vars(before.state)
    assert list(bench.supervisor.story) == list(before.story)
    assert bench.supervisor.next_deadline() == before.next_deadline()
    done = bench.send(command)
    if isinstance(told, actions.Refuse):
        assert told in done
    else:
        assert footprint(before, bench.supervisor) == told
    return told


def test_scale_down_drains_idle_and_youngest():
    bench = Bench().up()
    bench.observe("engines", 0, 1, 2, 3, busy=(3,))
    told = planned(bench, events.ScaleRequested(5, "engines", 2, 7.0))
    assert told == Footprint("", {"engines": SetFootprint(drains=(1, 2), patience=7.0)})


def test_scale_up_and_no_change():
    bench = Bench().up()
    assert planned(bench, events.ScaleRequested(5, "engines", 6)).sets == {"engines": SetFootprint(starts=(4, 5))}
    assert planned(bench, events.ScaleRequested(6, "engines", 6)) == Footprint("", {})


def test_restart_of_a_set_of_the_controller_and_of_all():
    four = SetFootprint(ends=(0, 1, 2, 3), starts=(0, 1, 2, 3))
    assert planned(Bench().up(), events.RestartRequested(5, "engines")) == Footprint("", {"engines": four})
    assert planned(Bench().up(), events.RestartRequested(5, "controller")) == Footprint("restarts", {})
    assert planned(Bench().up(), events.RestartRequested(5)) == Footprint("restarts", {"engines": four})


def test_stop_and_start():
    bench = Bench().up()
    assert planned(bench, events.StopRequested(5)) == Footprint("ends", {"engines": SetFootprint(ends=(0, 1, 2, 3))})
    assert planned(bench, events.StopRequested(6)) == Footprint("", {})
    fresh = Bench()
    fresh.send(events.JournalReplayed())
    assert planned(fresh, events.StartRequested(0)) == Footprint(
        "starts", {"engines": SetFootprint(starts=(0, 1, 2, 3))}
    )


def test_drain_with_and_without_a_successor():
    bench = Bench().up()
    told = planned(bench, events.DrainRequested(5, {"engines": (1,)}))
    assert told.sets == {"engines": SetFootprint(drains=(1,), patience=30.0)}
    told = planned(bench, events.DrainRequested(6, {"engines": (2,)}, is_replaced=True, drain_timeout=3.0))
    assert told.sets == {"engines": SetFootprint(drains=(2,), starts=(2,), patience=3.0)}


def test_what_would_be_refused_is_refused():
    told = planned(Bench().up(), events.ScaleRequested(5, "engines", 99))
    assert isinstance(told, actions.Refuse)


COMMANDS = st.one_of(
    st.builds(
        events.StartRequested, st.just(5), st.dictionaries(st.sampled_from(["engines", "batch"]), st.integers(0, 9))
    ),
    st.builds(events.StopRequested, st.just(5)),
    st.builds(
        events.ScaleRequested,
        st.just(5),
        st.sampled_from(["engines", "batch"]),
        st.integers(0, 9),
        st.none() | st.floats(0, 40),
    ),
    st.builds(
        events.DrainRequested,
        st.just(5),
        st.dictionaries(
            st.sampled_from(["engines", "batch"]),
            st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True).map(tuple),
            min_size=1,
        ),
        st.booleans(),
        st.none() | st.floats(0, 40),
    ),
    st.builds(events.RestartRequested, st.just(5), st.sampled_from(["", "controller", "engines", "batch"])),
    st.builds(events.ResumeRequested, st.just(5), st.sampled_from(["", "controller", "engines"])),
)
FACTS = st.one_of(
    st.builds(lambda n: events.LaunchExited(launch(n), "killed"), st.integers(0, 6)),
    st.builds(lambda n: events.Started(launch(n), identity(n)), st.integers(0, 6)),
    st.builds(lambda n: events.ControllerReady(launch(n)), st.integers(0, 6)),
    st.builds(
        lambda unit, slots: events.EnginesDrained(unit, tuple(slots)),
        st.sampled_from(["engines", "batch"]),
        st.sets(st.integers(0, 5)),
    ),
)


@pytest.mark.parametrize("sets", [TWO_SETS, ONLY_BATCH], ids=["two", "batch"])
@settings(max_examples=60, deadline=None)
@given(script=st.lists(st.tuples(st.floats(0, 20), COMMANDS | FACTS), max_size=14))
def test_plan_and_deed_never_differ(sets, script):
    bench = Bench(sets)
    bench.begin()
    for pause, event in script:
        bench.wait(bench.now + pause)
        if isinstance(event, events.CommandEvent):
            planned(bench, event)
        else:
            bench.send(event)

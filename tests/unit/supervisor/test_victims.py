from hypothesis import given
from hypothesis import strategies as st

from clusterd.core.model.engine import EngineView
from clusterd.core.supervisor.victims import choose_victims


def engine(slot, *, idle=True, started=0.0):
    return EngineView(slot, "x", idle, started)


def test_empty_places_go_first_then_idle_then_youngest():
    engines = [engine(0, idle=False, started=9), engine(1, started=1), engine(2, started=5), engine(3, idle=False)]
    slots = [0, 1, 2, 3, 4]
    assert [choose_victims(slots, engines, n) for n in range(6)] == [
        [], [4], [2, 4], [1, 2, 4], [0, 1, 2, 4], [0, 1, 2, 3, 4],
    ]  # fmt: skip


def test_of_equals_the_highest_number_goes():
    assert choose_victims([0, 1, 2], [engine(n) for n in range(3)], 1) == [2]
    assert choose_victims([0, 1, 2], [], 2) == [1, 2]


def test_whole_launches_go_least_busy_first():
    engines = [engine(0), engine(1, idle=False), engine(2), engine(3), engine(4), engine(5, idle=False)]
    groups = {0: "a", 1: "a", 2: "b", 3: "b", 4: "c", 5: "c"}
    assert choose_victims(range(6), engines, 2, groups) == [2, 3]
    assert choose_victims(range(6), engines, 3, groups) == [2, 3, 4]


def test_slots_of_no_launch_go_before_any_launch():
    assert choose_victims([0, 1, 2], [engine(0), engine(1)], 1, {0: "a", 1: "a"}) == [2]


@given(
    st.sets(st.integers(0, 30), min_size=1),
    st.lists(st.builds(EngineView, st.integers(0, 40), st.just("x"), st.booleans(), st.floats(0, 9)), max_size=30),
    st.data(),
)
def test_as_many_as_asked_for_and_only_wanted_ones(slots, engines, data):
    count = data.draw(st.integers(0, len(slots)))
    groups = data.draw(st.none() | st.dictionaries(st.integers(0, 30), st.sampled_from("abc")))
    victims = choose_victims(sorted(slots), engines, count, groups)
    assert len(victims) == count == len(set(victims))
    assert set(victims) <= slots
    busy = {e.slot for e in {e.slot: e for e in engines}.values() if not e.is_idle} & slots
    if groups is None and set(victims) & busy:
        assert set(victims) >= slots - busy

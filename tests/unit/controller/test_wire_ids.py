"""Wire ids: never twice, in the order of slots where that is free, reserved before they are given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clusterd.controller.wire_ids import BLOCK, WireIds


def test_first_engines_get_the_numbers_of_their_slots_in_whatever_order_they_come():
    ids = WireIds(0, None)
    assert [ids.take(slot, ()) for slot in (3, 0, 2, 1)] == [3, 0, 2, 1]


def test_a_second_engine_in_a_slot_gets_a_new_number():
    ids = WireIds(0, None)
    assert [ids.take(slot, ()) for slot in (0, 1, 0, 2)] == [0, 1, 2, 3]


def test_a_slot_far_away_is_no_number():
    assert WireIds(0, None).take(31_337, ()) == 0


def test_numbers_of_an_earlier_controller_are_not_given():
    ids = WireIds(BLOCK, None)
    assert [ids.take(slot, {BLOCK}) for slot in (0, 1)] == [BLOCK + 1, BLOCK + 2]


@given(
    st.lists(st.tuples(st.integers(0, 3 * BLOCK), st.sets(st.integers(0, 40), max_size=5)), max_size=60),
    st.integers(0, 20),
)
def test_an_id_is_given_once_is_free_and_is_reserved_before(engines, first):
    reserved = [first]
    ids = WireIds(first, reserved.append)
    given_before = set()
    for slot, taken in engines:
        wire_id = ids.take(slot, taken)
        assert wire_id not in given_before | taken
        assert first <= wire_id < reserved[-1]
        given_before.add(wire_id)
        assert ids.next > max(given_before)
    assert reserved == sorted(reserved)

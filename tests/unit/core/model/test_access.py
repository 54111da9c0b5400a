"""The table of rights: what comes with what, who holds it by which number, and what nobody was given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.core.model.access import (
    IMPLIED,
    RIGHTS,
    Access,
    Numbers,
    Subjects,
    givers,
    holders,
    numbers_of,
    rights_of,
    strongest,
)

LAB = Access(
    admin=Subjects(users=["bob"]),
    operate=Subjects(groups=["helpdesk"]),
    connect=Subjects(users=["carol"], groups=["physics"]),
    view=Subjects(users=["alice", "gone"]),
)
GRANTED = numbers_of(LAB, {"bob": 1, "carol": 2, "alice": 3}, {"helpdesk": 100, "physics": 200})


@pytest.mark.parametrize(
    ("uid", "gids", "held"),
    [
        (1, (), {"admin", "operate", "connect", "view"}),
        (2, (), {"connect", "view"}),
        (3, (), {"view"}),
        (9, (100,), {"operate", "view"}),
        (9, (200,), {"connect", "view"}),
        (9, (100, 200), {"operate", "connect", "view"}),
        (3, (100, 300), {"operate", "view"}),
        # A uid is no gid.
        (100, (1,), set()),
        (9, (), set()),
        (9, (300,), set()),
    ],
)
def test_who_may_what(uid, gids, held):
    assert rights_of(GRANTED, uid, gids) == held


def test_a_name_without_a_number_grants_nothing():
    assert GRANTED["view"] == Numbers(frozenset({3}), frozenset())
    assert rights_of(numbers_of(LAB, {}, {}), 1, (100, 200)) == frozenset()


def test_operate_and_connect_do_not_bring_each_other():
    assert "connect" not in IMPLIED["operate"]
    assert "operate" not in IMPLIED["connect"]


def test_those_who_hold_a_right_are_all_who_have_it_by_another():
    assert holders(GRANTED, "view") == Numbers(frozenset({1, 2, 3}), frozenset({100, 200}))
    assert holders(GRANTED, "connect") == Numbers(frozenset({1, 2}), frozenset({200}))
    assert holders(GRANTED, "operate") == Numbers(frozenset({1}), frozenset({100}))
    assert holders(GRANTED, "admin") == Numbers(frozenset({1}), frozenset())
    assert holders({}, "view") == Numbers()


_numbers = st.builds(Numbers, st.frozensets(st.integers(0, 4)), st.frozensets(st.integers(0, 4)))


@given(
    st.dictionaries(st.sampled_from(RIGHTS), _numbers),
    st.integers(0, 5),
    st.frozensets(st.integers(0, 5)),
    st.sampled_from(RIGHTS),
)
def test_holders_are_exactly_those_with_the_right(granted, uid, gids, right):
    found = holders(granted, right)
    assert (right in rights_of(granted, uid, gids)) == (uid in found.uids or bool(gids & found.gids))


def test_every_right_brings_itself_and_view_and_admin_all():
    assert IMPLIED["admin"] == set(RIGHTS)
    for right, brought in IMPLIED.items():
        assert {right, "view"} <= brought


def test_words_for_people():
    assert givers(Access(admin=Subjects(users=["bob"], groups=["hpc-admins"]))) == ["bob", "group hpc-admins"]
    assert strongest(frozenset(RIGHTS)) == ["admin"]
    assert strongest(frozenset({"operate", "connect", "view"})) == ["operate", "connect"]
    assert strongest(frozenset()) == []


def test_a_section_in_which_nobody_is_named_is_closed():
    assert Access().is_closed
    assert Access(view=Subjects()).is_closed
    assert not Access(view=Subjects(groups=["x"])).is_closed
    assert (LAB.users, LAB.groups) == ({"alice", "bob", "carol", "gone"}, {"helpdesk", "physics"})

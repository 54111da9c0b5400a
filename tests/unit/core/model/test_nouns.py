import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.core.model import ids, launch
from clusterd.core.model.desired import DesiredSet
from clusterd.core.model.observed import Observation
from clusterd.errors import LaunchError

PATHS = {"profile_dir": "/p", "runtime_dir": "/r", "log_dir": "/l"}
AGENT = launch.AgentSpec(
    launch="1f3c9a20-17", cluster="local", engine_set="gpu", connection_file="/c", slots=(0, 2), env={"A": "ä"}, **PATHS
)


@pytest.mark.parametrize(
    ("text", "slot"),
    [("3", ("engines", 3)), ("engines/0", ("engines", 0)), ("engine/3", ("engines", 3)), ("gpu-a/12", ("gpu-a", 12))],
)
def test_slots_as_people_type_them(text, slot):
    assert ids.parse_slot(text) == slot
    assert ids.parse_slot(str(ids.parse_slot(text))) == slot


@pytest.mark.parametrize("text", ["", "engines", "engines/", "/3", "engines/03", "engines/-1", "a/b/3", "3 ", "٣"])
def test_what_is_no_slot_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="engines/3"):
        ids.parse_slot(text)


def test_launch_ids():
    assert ids.format_launch("1f3c9a20", 17) == "1f3c9a20-17"
    assert ids.parse_launch("1f3c9a20-17") == ("1f3c9a20", 17)
    for stranger in ("", "job", "1f3c9a20", "1f3c9a20-", "1F3C9A20-1", "x1f3c9a20-1", "1f3c9a20-01", "1f3c9a20-1\n"):
        assert ids.parse_launch(stranger) is None


def test_engine_uuids():
    assert ids.engine_uuid(ids.engine_hex(bytes(range(16)))) == bytes(range(16))
    with pytest.raises(ValueError, match="16 bytes"):
        ids.engine_hex(b"short")
    with pytest.raises(ValueError, match="32 hex"):
        ids.engine_uuid("00ff")


@pytest.mark.parametrize("spec", [AGENT, launch.ControllerSpec(launch="1f3c9a20-0", cluster="local", **PATHS)])
def test_specs_survive_their_file(spec):
    assert launch.decode(launch.encode(spec), type(spec), "x.json") == spec


def test_spec_of_a_newer_release_is_read_as_far_as_it_is_understood():
    content = msgspec.json.decode(launch.encode(AGENT)) | {"invented_later": 1}
    assert launch.decode(msgspec.json.encode(content), launch.AgentSpec, "x.json") == AGENT


@pytest.mark.parametrize("change", [{"format": 2, "software": "9.9"}, {"slots": "many"}, {"launch": None}])
def test_spec_that_would_be_misread_is_refused_with_the_file(change):
    content = msgspec.json.decode(launch.encode(AGENT)) | change
    with pytest.raises(LaunchError, match=r"x\.json"):
        launch.decode(msgspec.json.encode(content), launch.AgentSpec, "x.json")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]"])
def test_spec_that_is_no_json_is_refused(data):
    with pytest.raises(LaunchError, match=r"x\.json"):
        launch.decode(data, launch.AgentSpec, "x.json")


def test_scaling_up_fills_the_lowest_free_slots():
    desired = DesiredSet(4).without([0, 2])
    assert desired.slots == (1, 3)
    assert desired.grown(3).slots == (0, 1, 3)
    assert desired.grown(5).slots == (0, 1, 2, 3, 4)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.sets(st.integers(0, 20)))))
def test_wishes_keep_their_invariants(changes):
    desired = DesiredSet(0)
    for is_growth, n, victims in changes:
        before = desired
        if is_growth:
            desired = desired.grown(max(n, desired.n))
            assert set(before.slots) <= set(desired.slots)
        else:
            desired = desired.without(victims)
            assert set(desired.slots) == set(before.slots) - victims
        assert len(desired.slots) == desired.n
        assert list(desired.excluded) == sorted(set(desired.excluded))
        assert not desired.excluded or desired.excluded[-1] < desired.slots[-1]
        assert desired.generation == before.generation + 1


def test_observations_have_an_age():
    seen = Observation(3, 10.0, "pidfd")
    assert seen.age(12.5) == 2.5
    assert seen.is_newer_than(9.9)
    assert not seen.is_newer_than(10.0)
    assert DesiredSet(1, 2).at(7) == DesiredSet(1, 7)

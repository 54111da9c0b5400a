"""Tables are total, unions closed, records and snapshots faithful."""

import typing

import msgspec
import pytest

from clusterd.core.model.cluster import Cluster
from clusterd.core.model.desired import DesiredSet
from clusterd.core.model.launch import ProcessIdentity
from clusterd.core.supervisor import actions, events, invariants, records
from clusterd.core.supervisor.phases import TRANSITIONS, Fact, Phase
from clusterd.core.supervisor.state import State
from clusterd.errors import StorageError
from tests.unit.supervisor.bench import Bench, launch

CLUSTER = Cluster("local", "1f3c9a20", 1000)
IDENTITY = ProcessIdentity("host", "boot", 4711, 12345, 1)
A, B, C = "1f3c9a20-0", "1f3c9a20-1", "1f3c9a20-2"

# One of each kind, in an order that makes sense.
STORY = [
    records.ClusterCreated("local", CLUSTER),
    records.RunChanged("local", is_wanted=True),
    records.DesiredChanged("local", "engines", DesiredSet(2, 1, (1,))),
    records.LaunchIntended("local", A, "controller"),
    records.LaunchIntended("local", B, "engines", is_job=False, slots=(0, 2), generation=1),
    records.LaunchIntended("local", C, "batch", is_job=True, slots=(0,), generation=4),
    records.LaunchStarted("local", A, IDENTITY),
    records.LaunchStarted("local", C, None, "4711.head"),
    records.LaunchConfirmed("local", A),
    records.SlotsAssigned("local", B, (0,), 3, lingering=(1, 2)),
    records.SlotsReleased("local", B, (2,)),
    records.StopIntended("local", C, "not ready", is_failure=True),
    records.UnitOrphaned("local", "engines"),
    records.UnitFailed("local", "batch", 3, (1.0, 2.5), "SIGKILL", 7.0),
    records.UnitFailed("local", "engines", 1, (2.0,), "SIGSEGV"),
    records.UnitHalted("local", "batch", "crash loop"),
    records.DrainIntended("local", "engines", (0,), 3.0, 30.0, is_replaced=True),
    records.DrainIntended("local", "batch", (0, 1, 2), 4.0),
    records.DrainEnded("local", "batch", (1, 7)),
]
MORE = [
    records.LaunchEnded("local", A, "SIGKILL"),
    records.EnginesReaped("local", "engines"),
    records.UnitResumed("local", "batch"),
    records.DrainEnded("local", "engines", (0,)),
    # About launches that have ended: without effect.
    records.LaunchEnded("local", A, "again"),
    records.LaunchStarted("local", A, IDENTITY),
    records.SlotsAssigned("local", A, (7,), 9),
    records.SlotsReleased("local", A, (7,)),
]


def fold(story):
    state = State()
    for record in story:
        state.apply(record)
    return state


def test_every_phase_knows_every_fact():
    assert TRANSITIONS.keys() == set(Phase)
    for phase in Phase:
        assert TRANSITIONS[phase].keys() == set(Fact)


def test_only_certain_facts_end_a_launch():
    ends = {(phase, fact) for phase in Phase for fact in Fact if TRANSITIONS[phase][fact] is Phase.ENDED} - {
        (Phase.ENDED, fact) for fact in Fact
    }
    assert ends == {
        (Phase.REQUESTED, Fact.REFUSED),
        (Phase.REQUESTED, Fact.EXITED),
        (Phase.UNRESOLVED, Fact.REFUSED),
        (Phase.UNRESOLVED, Fact.ABSENT),
        (Phase.UNRESOLVED, Fact.EXITED),
        (Phase.PRESENT, Fact.ABSENT),
        (Phase.PRESENT, Fact.EXITED),
    }
    assert set(TRANSITIONS[Phase.ENDED].values()) == {Phase.ENDED}


@pytest.mark.parametrize(("module", "base"), [(events, "Event"), (actions, "Action"), (records, "Record")])
def test_unions_hold_every_kind(module, base):
    kinds = {
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, getattr(module, f"_{base}"))
        and not kind.__name__.startswith("_")
    }
    assert set(typing.get_args(getattr(module, base))) == kinds


def test_every_kind_of_record_is_in_the_story():
    assert {type(record) for record in STORY + MORE} == set(typing.get_args(records.Record))


@pytest.mark.parametrize("record", STORY + MORE, ids=lambda record: type(record).__name__)
def test_records_survive_the_journal_and_name_their_cluster(record):
    data = records.encode(record)
    assert records.decode(data) == record
    assert msgspec.json.decode(data)["cluster"] == "local"


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"record":"InventedLater","cluster":"x"}', b'{"record":"RunChanged"}', b"\xff"]
)
def test_unknown_records_are_refused_not_skipped(data):
    with pytest.raises(StorageError, match="does not understand"):
        records.decode(data)


def test_unknown_fields_are_ignored():
    data = b'{"record":"RunChanged","cluster":"local","is_wanted":true,"invented_later":1}'
    assert records.decode(data) == records.RunChanged("local", is_wanted=True)


@pytest.mark.parametrize("length", range(len(STORY + MORE) + 1))
def test_snapshot_is_the_state(length):
    state = fold((STORY + MORE)[:length])
    assert vars(fold(state.snapshot())) == vars(state)


def test_what_the_records_mean():
    state = fold(STORY)
    assert state.next_number == 3
    assert state.desired["engines"] == DesiredSet(2, 3, (1,))
    assert state.launches[B].slots == (0,)
    assert state.launches[B].lingering == (1,)
    assert state.launches[C].is_stopping
    assert state.launches[C].is_failed
    assert [launch.id for launch in state.of_unit("controller")] == [A]
    later = fold(STORY + MORE)
    assert later.launches.keys() == {B, C}
    assert not later.orphaned
    assert not later.halted
    # A number is never used twice, also when its launch is long forgotten.
    assert later.next_number == 3


def test_broken_invariants_are_named():
    bench = Bench().up()
    del bench.supervisor.launches[launch(1)]
    with pytest.raises(invariants.InvariantBroken, match="exactly one watch"):
        invariants.check(bench.supervisor)

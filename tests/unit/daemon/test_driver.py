"""The order of deciding, keeping and acting; and what happens when nothing can be kept."""

from __future__ import annotations

import logging

import pytest

from clusterd.core.model.cluster import Cluster
from clusterd.core.model.launch import ProcessIdentity
from clusterd.core.supervisor import actions, events, records
from clusterd.core.supervisor.machine import Supervisor
from clusterd.core.supervisor.settings import Settings, UnitSettings
from clusterd.daemon.driver import Driver
from clusterd.daemon.story import Story
from clusterd.errors import ControlError, StorageError

SETTINGS = Settings(UnitSettings(), {"engines": UnitSettings(n=2, max=8)})


class FakeJournal:
    """Keeps records in memory; fails as long as `is_full`."""

    def __init__(self, told):
        self.told, self.records, self.is_full = told, [], False
        self.is_compaction_due = False

    def append(self, batch):
        if self.is_full:
            raise StorageError("no space left on device")
        self.records += batch
        self.told += [("journal", records.decode(record)) for record in batch]

    def compact(self, snapshot):
        self.records = list(snapshot)
        self.is_compaction_due = False


class FakeEffects:
    """Starts whatever it is told to, at once."""

    def __init__(self, told):
        self.told, self.forgotten = told, []

    def perform(self, action):
        self.told.append(("act", action))
        if isinstance(action, actions.Start):
            return [events.Started(action.launch, ProcessIdentity("host", "boot", 1000 + int(action.launch[9:]), 1))]
        return []

    def forget(self, launch):
        self.forgotten.append(launch)


class World:
    def __init__(self):
        self.told = []
        self.journal, self.effects, self.story = FakeJournal(self.told), FakeEffects(self.told), Story()
        self.driver = Driver(Supervisor(Cluster("c", "0" * 8, 0), SETTINGS), self.journal, self.effects, self.story)
        self.driver.feed(events.JournalReplayed())

    def start(self):
        request = self.driver.new_request()
        return self.driver.command(events.StartRequested(request), request)

    def kinds(self):
        return [type(what).__name__ for _, what in self.told]


@pytest.fixture
def world():
    return World()


def test_nothing_is_done_before_it_is_recorded(world):
    assert world.start()["sets"]["engines"]["n"] == 2
    kinds = world.kinds()
    intended = [index for index, kind in enumerate(kinds) if kind == "LaunchIntended"]
    started = [index for index, kind in enumerate(kinds) if kind == "Start"]
    assert len(intended) == len(started) == 2
    assert max(intended) < min(started)
    # What follows at once (the processes exist) is recorded, too, before anybody is told that the command was taken.
    assert kinds.count("LaunchStarted") == 2


def test_events_of_one_moment_are_one_append(world):
    batches = []
    append = world.journal.append
    world.journal.append = lambda batch: (batches.append(len(batch)), append(batch))
    world.start()
    # The wish and both intents together; then both processes' identities.
    assert [count for count in batches if count] == [4, 2]


def test_a_refused_command_says_why_and_records_nothing(world):
    world.start()
    before = list(world.journal.records)
    request = world.driver.new_request()
    with pytest.raises(ControlError, match="max: 8"):
        world.driver.command(events.ScaleRequested(request, "engines", 9), request)
    assert world.journal.records == before


def test_a_wish_that_cannot_be_recorded_leaves_no_trace(world):
    world.start()
    world.journal.is_full = True
    del world.told[:]
    request = world.driver.new_request()
    with pytest.raises(StorageError, match="could not be recorded: no space left"):
        world.driver.command(events.ScaleRequested(request, "engines", 5), request)
    assert world.told == []
    assert world.driver.supervisor.state.desired["engines"].n == 2
    assert world.driver.broken is None
    world.journal.is_full = False
    request = world.driver.new_request()
    assert world.driver.command(events.ScaleRequested(request, "engines", 5), request)["sets"]["engines"]["n"] == 5


def test_a_fact_that_cannot_be_recorded_ends_the_daemon(world, caplog):
    caplog.set_level(logging.CRITICAL)
    world.start()
    ended = []
    world.driver.on_broken = lambda: ended.append(True)
    world.journal.is_full = True
    del world.told[:]
    with pytest.raises(StorageError):
        world.driver.feed(events.LaunchExited("00000000-0", "was killed"))
    assert ended == [True]
    assert world.told == []
    # It decides nothing any more, not even what needs no record.
    world.driver.feed(events.TimePassed())
    assert world.told == []
    assert "the journal cannot be written" in caplog.text


def test_what_ended_is_cleared_away(world):
    world.start()
    world.driver.feed(events.LaunchExited("00000000-1", "ended", is_clean=True))
    assert world.effects.forgotten == ["00000000-1"]


def test_the_journal_is_compacted_to_the_same_state(world):
    world.start()
    world.journal.is_compaction_due = True
    world.driver.feed(events.TimePassed())
    again = Supervisor(Cluster("other", "1" * 8, 0), SETTINGS)
    for record in world.journal.records:
        again.apply(records.decode(record))
    assert again.snapshot() == world.driver.supervisor.snapshot()


def test_every_change_is_news(world):
    before = world.story.number
    called = []
    world.story.call_at_next_change(lambda: called.append(world.story.number))
    world.start()
    assert called
    assert world.story.number > before

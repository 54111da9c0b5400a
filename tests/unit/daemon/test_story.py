from __future__ import annotations

from clusterd.daemon import story as module
from clusterd.daemon.story import Story


def test_events_are_numbered_and_told_since(caplog):
    story = Story()
    story.tell("a", "one", unit="engines")
    middle = story.number
    story.touch()
    story.tell("b", "two")
    assert [event["text"] for event in story.since(0)] == ["one", "two"]
    assert story.since(0)[0]["unit"] == "engines"
    [event] = story.since(middle)
    assert (event["event"], event["seq"]) == ("b", story.number)
    assert story.since(story.number) == []
    # The number of an earlier daemon's life means nothing here.
    assert len(story.since(10_000)) == 2


def test_a_slow_reader_is_told_that_it_missed_some(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    story = Story()
    story._events = module.deque(maxlen=3)
    for number in range(10):
        story.tell("e", str(number))
    told = story.since(2)
    assert [event["event"] for event in told] == ["missed", "e", "e", "e"]
    assert [event["text"] for event in told[1:]] == ["7", "8", "9"]


def test_waiting_is_for_one_change_and_can_be_taken_back():
    story = Story()
    called = []

    def note():
        called.append(story.number)

    story.call_at_next_change(note)
    story.touch()
    story.touch()
    assert called == [2]
    story.call_at_next_change(note)
    story.forget(note)
    story.forget(note)
    story.touch()
    assert called == [2]

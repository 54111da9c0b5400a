"""What is told of engines and decisions: once, in groups, and with the word that makes it abnormal."""

from __future__ import annotations

import pytest

from clusterd.core.model.desired import DesiredSet
from clusterd.core.supervisor import records
from clusterd.core.supervisor.state import State
from clusterd.core.wire.messages import AgentNotice, EngineGone, EngineInfo, EnginesChanged, SlotReport
from clusterd.daemon.engine_story import EngineStory
from clusterd.daemon.record_story import RecordStory
from clusterd.daemon.roster import Roster
from clusterd.daemon.story import Story
from clusterd.system import clock


class Teller:
    def __init__(self):
        self.story, self.roster = Story(), Roster()
        self.engines = EngineStory(self.story, self.roster, lambda: ["engines"])
        self.known = None

    def changed(self, added=(), removed=()):
        message = EnginesChanged(list(added), list(removed))
        return self.told(lambda: (self.engines.changed(message), self.roster.change(message.added, message.removed)))

    def reported(self, *slots, warnings=(), event="report"):
        notice = AgentNotice(event, "l-1", "engines", "host", 77, 1, list(slots), list(warnings))
        before, self.known = self.known, notice
        return self.told(lambda: self.engines.reported(notice, before))

    def told(self, act):
        number = self.story.number
        act()
        return [(event["event"], event.get("level", ""), event.get("slots")) for event in self.story.since(number)]


@pytest.fixture
def teller():
    return Teller()


def info(wire_id, slot, unit="engines", state="idle"):
    return EngineInfo(wire_id, bytes([wire_id]) * 16, unit, slot, "l-1", "host", 100 + wire_id, "3.11", state, 0.0)


def gone(wire_id, slot, cause="killed by SIGKILL", *, wanted=False):
    return EngineGone(wire_id, bytes([wire_id]) * 16, "engines", slot, cause, wanted)


def test_many_that_come_and_go_together_are_one_event_each(teller):
    assert teller.changed([info(n, n) for n in range(5)]) == [("engine_ready", "", [0, 1, 2, 3, 4])]
    assert teller.story.all()[-1]["text"] == "engines/0-4 are ready"
    # What only changes its state has not come.
    assert teller.changed([info(1, 1, state="busy")]) == []
    told = teller.changed(
        removed=[gone(0, 0), gone(1, 1), gone(2, 2, "stopped: its set was made smaller", wanted=True)]
    )
    assert told == [("engine_gone", "warning", [0, 1]), ("engine_gone", "", [2])]
    assert "engine engines/2 (id 2) is gone" in teller.story.all()[-1]["text"]


def test_silence_is_told_once(teller):
    teller.changed([info(1, 1)])
    assert teller.changed([info(1, 1, state="suspect")]) == [("engine_suspect", "warning", [1])]
    assert teller.changed([info(1, 1, state="suspect")]) == []


def test_engines_of_others_join_and_leave_without_alarm(teller):
    assert [event for event, _, _ in teller.changed([info(7, 0, unit="stock")])] == ["engine_joined"]
    left = EngineGone(7, b"\7" * 16, "stock", 0, "it said goodbye")
    assert teller.changed(removed=[left]) == [("engine_gone", "", [0])]


def test_an_engine_that_never_became_ready(teller):
    teller.reported()
    first = SlotReport(3, "starting", 10, b"a" * 16)
    assert teller.reported(first) == [("engine_started", "", [3])]
    again = SlotReport(3, "starting", 11, b"b" * 16, "exit status 3", 1)
    assert teller.reported(again) == [("engine_failed", "warning", [3]), ("engine_started", "", [3])]
    assert teller.reported(again) == []
    waits = SlotReport(3, "backoff", reason="exit status 3", restarts=1, retry_at=clock.wall() + 9)
    assert [event for event, _, _ in teller.reported(waits)] == ["engine_failed", "engine_waits"]
    loop = SlotReport(3, "crash-loop", reason="crash loop: exit status 3", restarts=2)
    assert teller.reported(loop) == [("crash_loop", "error", [3])]
    assert teller.reported(loop) == []


def test_an_end_that_the_controller_told_is_not_told_again(teller):
    teller.changed([info(1, 3)])
    teller.reported(SlotReport(3, "running", 101, b"\1" * 16))
    teller.changed(removed=[gone(1, 3)])
    assert teller.reported(SlotReport(3, "starting", 102, b"c" * 16, "killed by SIGKILL", 1)) == [
        ("engine_started", "", [3])
    ]


def test_an_agent_is_connected_once_and_after_a_loss_again(teller):
    assert teller.reported()[0][0] == "agent_attached"
    assert teller.reported(event="attached") == []
    teller.known = AgentNotice("lost", "l-1", "engines", "host", 77, 1, [])
    assert teller.reported(event="attached", warnings=["numpy: threads"]) == [
        ("agent_attached", "", None),
        ("warning", "warning", None),
    ]
    assert teller.reported(warnings=["numpy: threads"]) == []


def test_decisions_in_words():
    story, state = Story(), State()
    state.apply(records.DesiredChanged("lab", "engines", DesiredSet(2, 1)))
    teller = RecordStory(story)
    teller.begin(state)
    teller.tell(
        [
            records.DesiredChanged("lab", "engines", DesiredSet(3, 2, (0,))),
            records.DesiredChanged("lab", "engines", DesiredSet(3, 3, (0,))),
            records.LaunchIntended("lab", "l-1", "engines"),
            records.StopIntended("lab", "l-1", "not ready within 20 s", is_failure=True),
            records.LaunchEnded("lab", "l-1", "killed"),
            records.UnitHalted("lab", "controller", "crash loop"),
            records.DrainIntended("lab", "engines", (1, 2), 5.0, 30.0, is_replaced=True),
            records.DrainIntended("lab", "engines", (1, 2), 5.0, 30.0, is_replaced=True, is_given_up=True),
        ]
    )
    assert [(event["text"], event.get("level")) for event in story.all()] == [
        ("3 engines are wished in engines (new: engines/2-3; no more: engines/0)", None),
        ("the agent of engines is to end: not ready within 20 s", "warning"),
        ("the controller is not started any more: crash loop", "error"),
        (
            "engines/1-2: no new tasks; to end when there is none left, after 30 s at the latest. Then each is replaced.",
            None,
        ),
    ]

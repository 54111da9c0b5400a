from __future__ import annotations

import typing

import pytest

from clusterd.core.liveness import Liveness, Settings, Standing, actions, events
from clusterd.core.liveness.invariants import InvariantViolation, check
from clusterd.core.liveness.machine import HANDLERS


class Story:
    """A Liveness with a clock; ticks come when they are due, and everything is checked at each step."""

    def __init__(self, **settings):
        self.liveness = Liveness(Settings(**settings))
        self.now = 1000.0
        self.out = []

    def do(self, *events_):
        out = []
        for event in events_:
            out += self.liveness.handle(event, self.now)
            check(self.liveness.state, self.now)
        return out

    def wait(self, seconds):
        out = []
        until = self.now + seconds
        while True:
            deadline = self.liveness.next_deadline()
            if deadline is None or deadline > until:
                break
            self.now = deadline
            out += self.do(events.Tick())
        self.now = until
        return out

    def keep_hearing(self, seconds, *heard):
        out = []
        for _ in range(round(seconds)):
            out += self.wait(1.0)
            out += self.do(*heard)
        return out

    def standing(self, engine=1):
        return self.liveness.standing(engine)


def kinds(out):
    return [type(action) for action in out]


@pytest.fixture
def story():
    return Story()


@pytest.fixture
def watched(story):
    story.do(events.AgentHeard("a"), events.EngineAttached(1, "a"))
    return story


def test_every_event_has_a_handler_and_nothing_else_does():
    assert set(HANDLERS) == set(typing.get_args(events.AnyEvent))


def test_every_action_is_in_the_union():
    found = {value for value in vars(actions).values() if isinstance(value, type) and issubclass(value, actions.Action)}
    assert found - {actions.Action} == set(typing.get_args(actions.AnyAction))


def test_silence_during_a_long_task_is_nothing_while_the_agent_speaks(watched):
    assert watched.keep_hearing(7200, events.AgentHeard("a")) == []
    assert watched.standing() is Standing.ALIVE
    assert "its link is silent" in watched.liveness.why(1, watched.now)


def test_a_lost_link_makes_a_suspect_and_a_new_one_ends_that(watched):
    out = watched.do(events.EngineUnlinked(1))
    assert out == [
        actions.Suspect(1, "its connection has been closed for 0.0 s; its agent a says it lives"),
        actions.AskAgent("a", 1),
    ]
    assert watched.do(events.EngineUnlinked(1)) == []
    assert watched.do(events.EngineAttached(1, "a")) == [actions.Trust(1)]


def test_a_suspect_stays_one_for_as_long_as_its_agent_says_it_lives(watched):
    watched.do(events.EngineUnlinked(1))
    out = watched.keep_hearing(7200, events.AgentHeard("a"), events.EngineReported(1, "a"))
    assert set(kinds(out)) == {actions.AskAgent}
    assert len(out) == 1440, "every five seconds"
    assert watched.standing() is Standing.SUSPECT


def test_the_agents_word_of_an_end_is_proof_and_is_passed_on_whole(watched):
    exited = events.EngineExited(1, "killed by signal 9", "last words", b"task", is_wanted=True)
    assert watched.do(exited) == [actions.Lose(1, "killed by signal 9", "last words", b"task", is_wanted=True)]
    assert watched.standing() is None
    assert watched.liveness.why(1, watched.now) == ""
    assert watched.do(exited) == []


def test_a_frozen_engine_is_suspect_and_comes_back(watched):
    out = watched.do(events.EngineReported(1, "a", is_frozen=True))
    assert kinds(out) == [actions.Suspect, actions.AskAgent]
    assert "its agent a says it is stopped" in out[0].why
    watched.keep_hearing(3600, events.AgentHeard("a"), events.EngineHeard(1))
    assert watched.standing() is Standing.SUSPECT
    assert watched.do(events.EngineReported(1, "a")) == [actions.Trust(1)]


def test_an_old_word_does_not_undo_a_later_one(watched):
    watched.do(events.EngineReported(1, "a", is_frozen=True))
    watched.wait(1.0)
    assert watched.do(events.EngineReported(1, "a", age=2.0)) == []
    assert watched.standing() is Standing.SUSPECT


def test_a_silent_agent_says_nothing_and_its_engines_are_judged_by_their_links(watched):
    watched.do(events.EngineAttached(2, "a"))
    out = watched.keep_hearing(15, events.EngineHeard(1))
    assert kinds(out) == [actions.Suspect, actions.AskDaemon, actions.AskDaemon]
    assert watched.standing(1) is Standing.ALIVE
    assert watched.standing(2) is Standing.SUSPECT
    assert "its agent a was heard" in watched.liveness.why(2, watched.now)
    assert watched.do(events.AgentHeard("a")) == [actions.Trust(2)]


@pytest.mark.parametrize(
    ("event", "text"), [(events.AgentGone("a"), "is dead"), (events.AgentUnlinked("a"), "was heard")]
)
def test_engines_survive_their_agent_and_the_next_one_adopts_them(watched, event, text):
    assert watched.do(event) == []
    out = watched.wait(4.0)
    assert kinds(out) == [actions.Suspect, actions.AskDaemon]
    assert text in out[0].why
    watched.do(events.AgentHeard("b"))
    assert watched.do(events.EngineReported(1, "b")) == [actions.Trust(1)]
    assert set(watched.liveness.state.agents) == {"b"}


def test_when_the_agent_is_gone_the_daemon_decides(watched):
    watched.do(events.AgentGone("a"), events.EngineUnlinked(1))
    assert set(kinds(watched.wait(3600.0))) == {actions.AskDaemon}
    assert watched.standing() is Standing.SUSPECT
    assert watched.do(events.ProcessSeen(1, True, "pid 7 runs")) == []
    (loss,) = watched.do(events.ProcessSeen(1, False, "pid 7 is gone"))
    assert loss.cause == "its connection has been closed for 3600.0 s; its agent a is dead; pid 7 is gone 0.0 s ago"
    assert watched.liveness.state.agents == {}


def test_a_process_that_runs_keeps_a_silent_engine_trusted_until_that_is_old_news(watched):
    watched.do(events.AgentGone("a"), events.ProcessSeen(1, True, "pid 7 runs"))
    assert watched.wait(29.0) == []
    assert kinds(watched.wait(2.0)) == [actions.Suspect, actions.AskDaemon]


@pytest.mark.parametrize(("age", "is_lost"), [(0.0, True), (5.0, False)])
def test_a_look_that_is_older_than_the_agents_word_proves_nothing(watched, age, is_lost):
    watched.wait(2.0)
    watched.do(events.AgentHeard("a"), events.EngineReported(1, "a"))
    watched.do(events.ProcessSeen(1, False, "pid 7 is gone", age))
    assert (watched.standing() is None) == is_lost


def test_an_older_look_does_not_replace_a_later_one(watched):
    watched.do(events.AgentGone("a"), events.ProcessSeen(1, True, "pid 7 runs"))
    watched.wait(5.0)
    watched.do(events.ProcessSeen(1, False, "not yet there", 999.0))
    assert watched.standing() is Standing.ALIVE


def test_only_an_engine_that_nobody_watches_is_given_up_and_only_when_it_was_away_for_very_long(story):
    story.do(events.EngineAttached(1), events.EngineUnlinked(1))
    out = story.wait(119.0)
    assert set(kinds(out)) == {actions.AskDaemon}
    (loss,) = [action for action in story.wait(2.0) if isinstance(action, actions.Lose)]
    assert loss.cause == "its connection has been closed for 120.0 s; no agent watches it"


def test_an_engine_that_nobody_watches_and_that_is_silent_is_suspect(story):
    story.do(events.EngineAttached(1))
    assert story.keep_hearing(20, events.EngineHeard(1)) == []
    assert kinds(story.wait(4.0)) == [actions.Suspect, actions.AskDaemon]
    assert story.do(events.EngineHeard(1)) == [actions.Trust(1)]


def test_one_that_says_goodbye_is_judged_no_more(watched):
    watched.do(events.AgentUnlinked("a"), events.EngineLeft(1))
    assert watched.wait(3600.0) == []
    assert watched.liveness.state.agents == {}


def flap(story, times):
    out = []
    for _ in range(times):
        out += story.do(events.AgentHeard("a"), events.EngineUnlinked(1))
        out += story.wait(1.0)
        out += story.do(events.EngineAttached(1, "a"))
    return out


def test_one_that_flaps_is_quarantined_and_released_when_it_was_calm(watched):
    out = flap(watched, 5)
    assert kinds(out)[-1] is actions.Quarantine
    assert out[-1].why == "suspect 5 times in 60 s"
    assert watched.standing() is Standing.QUARANTINED
    out = watched.keep_hearing(58, events.AgentHeard("a"), events.EngineHeard(1))
    assert out == []
    assert watched.keep_hearing(3, events.AgentHeard("a"), events.EngineHeard(1)) == [actions.Trust(1)]
    assert actions.Quarantine not in kinds(flap(watched, 4)), "it begins anew"


def test_one_that_becomes_suspect_in_quarantine_stays_there_longer(watched):
    flap(watched, 5)
    watched.keep_hearing(50, events.AgentHeard("a"))
    out = watched.do(events.EngineUnlinked(1))
    assert kinds(out) == [actions.AskAgent], "the scheduler has it as a suspect"
    watched.do(events.EngineAttached(1, "a"))
    watched.keep_hearing(50, events.AgentHeard("a"))
    assert watched.standing() is Standing.QUARANTINED


def test_flaps_long_ago_do_not_count(watched):
    for _ in range(12):
        flap(watched, 1)
        watched.keep_hearing(30, events.AgentHeard("a"))
    assert watched.standing() is Standing.ALIVE


def test_an_agent_that_was_taken_for_dead_and_speaks_is_not(watched):
    watched.do(events.AgentGone("a"))
    watched.wait(5.0)
    assert watched.do(events.AgentHeard("a")) == [actions.Trust(1)]


def test_who_was_silent_before_our_own_delay_is_so_after_it(story):
    story.do(events.EngineAttached(1), events.EngineAttached(2, "a"))
    story.wait(20.0)
    story.now += 600.0
    story.do(events.Tick())
    assert [story.standing(1), story.standing(2)] == [Standing.SUSPECT, Standing.SUSPECT]


def test_our_own_delay_is_not_held_against_others(story):
    story.do(events.EngineAttached(1), events.EngineAttached(2), events.ClientAttached(7), events.AgentHeard("a"))
    story.do(events.EngineAttached(3, "a"), events.ClientAttached(8))
    story.do(events.EngineUnlinked(2), events.ClientUnlinked(8))
    story.now += 600.0  # stopped, or starved
    assert set(kinds(story.liveness.handle(events.Tick(), story.now))) <= {actions.AskDaemon}
    check(story.liveness.state, story.now)
    assert story.standing(2) is Standing.SUSPECT
    out = story.wait(4.0)
    assert actions.Suspect in kinds(out), "what stays silent from now on counts"
    assert actions.DetachClient(7) in out


# --- clients ---


def test_a_client_that_is_away_is_forgotten_after_its_grace(story):
    story.do(events.ClientAttached(7))
    assert story.do(events.ClientUnlinked(7)) == [actions.DetachClient(7)]
    assert story.do(events.ClientUnlinked(7)) == []
    assert story.wait(119.0) == []
    assert story.wait(2.0) == [actions.ForgetClient(7)]
    assert story.do(events.ClientHeard(7)) == []


def test_a_client_that_comes_back_in_time_is_not(story):
    story.do(events.ClientAttached(7), events.ClientUnlinked(7))
    story.wait(100.0)
    assert story.do(events.ClientAttached(7)) == [actions.ReturnClient(7)]
    assert story.keep_hearing(300, events.ClientHeard(7)) == []


def test_a_client_that_is_silent_is_away_until_it_is_heard(story):
    story.do(events.ClientAttached(7))
    assert story.wait(4.0) == [actions.DetachClient(7)]
    assert story.do(events.ClientHeard(7)) == [actions.ReturnClient(7)]
    story.wait(4.0)
    assert story.wait(121.0) == [actions.ForgetClient(7)]


def test_a_client_that_says_goodbye_is_forgotten_at_once(story):
    story.do(events.ClientAttached(7))
    assert story.do(events.ClientLeft(7)) == [actions.ForgetClient(7)]
    assert story.do(events.ClientLeft(7)) == []
    assert story.wait(300.0) == []


@pytest.mark.parametrize(
    "event",
    [
        events.EngineHeard(9),
        events.EngineUnlinked(9),
        events.EngineReported(9, "z"),
        events.EngineExited(9, "gone"),
        events.EngineLeft(9),
        events.ProcessSeen(9, True, ""),
        events.AgentUnlinked("z"),
        events.AgentGone("z"),
        events.ClientHeard(9),
        events.ClientUnlinked(9),
        events.ClientLeft(9),
    ],
)
def test_news_of_what_is_not_known_change_nothing(story, event):
    assert story.do(event) == []
    assert story.liveness.next_deadline() is None


def test_the_story_has_what_changed_something(watched):
    watched.do(events.EngineHeard(1), events.EngineUnlinked(1))
    ((at, event, followed),) = watched.liveness.story
    assert (at, event, kinds(followed)) == (
        watched.now,
        events.EngineUnlinked(1),
        [actions.Suspect, actions.AskAgent],
    )


def test_the_invariants_bite(watched):
    watched.liveness.state.engines[1].standing = Standing.SUSPECT
    with pytest.raises(InvariantViolation, match="engine 1 is alive and stands as suspect"):
        check(watched.liveness.state, watched.now)

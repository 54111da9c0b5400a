from __future__ import annotations

import pytest

from clusterd.daemon.explanation import STEPS, Subject, is_about, parse, story_of
from clusterd.errors import ControlError

SETS = ["engines", "gpu"]
THREE = Subject("engine", "engines", 3)


def event(word, time=0.0, level=None, **fields):
    told = {"seq": 1, "time": time, "event": word, "text": f"{word} at {time:g}", **fields}
    return told if level is None else {**told, "level": level}


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("engines/3", THREE),
        ("engine/3", THREE),
        ("3", THREE),
        ("gpu/0", Subject("engine", "gpu", 0)),
        ("gpu", Subject("set", "gpu")),
        ("controller", Subject("controller", "controller")),
        ("agent/gpu", Subject("agent", "gpu")),
    ],
)
def test_what_people_name(text, subject):
    assert parse(text, SETS) == subject


def test_the_agent_of_the_only_set_needs_no_name():
    assert parse("agent", ["gpu"]) == Subject("agent", "gpu")
    assert str(parse("agent", ["gpu"])) == "agent/gpu"


@pytest.mark.parametrize("text", ["agent", "cpu", "cpu/3", "engines/x", "nothing"])
def test_what_there_is_not_is_refused_with_what_there_is(text):
    with pytest.raises(ControlError) as caught:
        parse(text, SETS)
    assert caught.value.code == "not_found"
    assert "agent/gpu" in caught.value.hint


@pytest.mark.parametrize(
    ("told", "is_told"),
    [
        (event("engine_ready", unit="engines", slots=[2, 3]), True),
        (event("engine_ready", unit="engines", slots=[2]), False),
        (event("engine_ready", unit="gpu", slots=[3]), False),
        (event("launch_ended", unit="engines"), True),
        (event("launch_ended", unit="gpu"), False),
        (event("launch_ended", unit="controller"), True),
        (event("daemon_started"), True),
        (event("command"), True),
        (event("command", unit="engines"), True),
        (event("command", unit="engines", slots=[2]), False),
        (event("command", unit="gpu"), False),
        (event("engine_joined", engine="hand/0"), False),
    ],
)
def test_whose_story_an_event_belongs_to(told, is_told):
    assert is_about(told, THREE) is is_told


def test_of_an_agent_its_engines_are_left_out_and_of_a_set_they_are_not():
    told = event("engine_gone", unit="engines", slots=[3])
    assert not is_about(told, Subject("agent", "engines"))
    assert is_about(told, Subject("set", "engines"))
    assert not is_about(told, Subject("controller", "controller"))


def ready(time):
    return event("engine_ready", time, unit="engines", slots=[3])


def trouble(time, word="engine_gone"):
    return event(word, time, "warning", unit="engines", slots=[3])


def first(*told, is_well=False):
    story = story_of(THREE, told, is_well=is_well)
    return story["first_abnormal"] and story["first_abnormal"]["time"]


def test_the_first_abnormal_step_is_where_the_last_trouble_began():
    assert first(ready(1)) is None
    assert first(ready(1), trouble(20), trouble(21)) == 20
    # It was well for a while in between: the earlier trouble is over.
    assert first(trouble(2), ready(3), trouble(20), trouble(21)) == 20
    # It was up for a second only, each time: one trouble.
    assert first(ready(1), trouble(20), ready(21), trouble(22), ready(23), trouble(24)) == 20


def test_a_lost_connection_is_not_the_reason_where_the_reason_follows_at_once():
    assert first(ready(1), trouble(20, "engine_suspect"), trouble(20.1)) == 20.1
    assert first(ready(1), trouble(20, "engine_suspect"), trouble(40)) == 20
    assert first(ready(1), trouble(20, "engine_suspect")) == 20


def test_a_trouble_that_has_passed_is_told_as_that():
    assert story_of(THREE, [trouble(1), ready(2)], is_well=True)["is_over"]
    assert not story_of(THREE, [trouble(1)], is_well=False)["is_over"]
    assert not story_of(THREE, [ready(1)], is_well=True)["is_over"]


def test_old_steps_are_counted_and_the_first_abnormal_one_is_named_all_the_same():
    told = [ready(0), *(trouble(number + 10) for number in range(STEPS + 7))]
    story = story_of(THREE, told, is_well=False)
    assert len(story["steps"]) == STEPS
    assert story["left_out"] == 8
    assert story["first_abnormal"]["time"] == 10

"""The model by itself: names, ports, placeholders."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.core.model import placeholder
from clusterd.core.model.profile import (
    LAUNCHERS,
    PROFILE_NAME_PATTERN,
    EngineSet,
    Profile,
    RestartPolicy,
    port_range,
)

VALUES = {"local_rank": 1, "slot": 7, "engine_set": "gpu", "n": 16}


def test_the_defaults_travel_as_json():
    profile = Profile(version=1, engine_sets={"engines": EngineSet(n=4)})
    assert msgspec.json.decode(msgspec.json.encode(profile), type=Profile) == profile


def test_a_part_that_travels_to_an_older_release_may_have_fields_it_does_not_know():
    assert msgspec.json.decode(b'{"policy": "never", "jitter": 1}', type=RestartPolicy) == RestartPolicy(policy="never")


def test_launchers():
    assert frozenset({"local"}) == LAUNCHERS


def test_ports():
    assert port_range("50000-50100") == (50000, 50100)
    assert port_range(None) is None


def test_a_profile_name_is_one_path_component():
    assert re.fullmatch(PROFILE_NAME_PATTERN, "pbs-2.x")
    assert not re.fullmatch(PROFILE_NAME_PATTERN, "a/b")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{local_rank}", "1"),
        ("{set}/{slot} of {n}", "gpu/7 of 16"),
        ("{{n}}", "{n}"),
        ("{{{n}}}", "{16}"),
        ("{{}}", "{}"),
    ],
)
def test_placeholders(template, expected):
    assert list(placeholder.mistakes(template)) == []
    assert placeholder.expand(template, **VALUES) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{rank}", [("unknown placeholder", "{rank}")]),
        ("{}", [("unknown placeholder", "{}")]),
        ("{slot.__class__}", [("unknown placeholder", "{slot.__class__}")]),
        ("{slot:03d}", [("unknown placeholder", "{slot:03d}")]),
        ("a{b", [("a single brace", "{")]),
        ("{n}}", [("a single brace", "}")]),
        ("{x}{y}", [("unknown placeholder", "{x}"), ("unknown placeholder", "{y}")]),
    ],
)
def test_placeholders_that_mean_nothing(template, expected):
    assert list(placeholder.mistakes(template)) == expected
    # Refused by the reader; an agent that meets one all the same must not crash an engine over it.
    assert placeholder.expand(template, **VALUES)


@given(st.text(alphabet="{}nslotx", max_size=12))
def test_doubling_every_brace_makes_any_text_literal(text):
    literal = text.replace("{", "{{").replace("}", "}}")
    assert list(placeholder.mistakes(literal)) == []
    assert placeholder.expand(literal, **VALUES) == text

from __future__ import annotations

import time

import click
import pytest

from clusterctl.moments import AGO, SPAN, Since


def test_a_time_of_day_is_the_last_one():
    now = time.time()
    for ago in (60, 3600, 23 * 3600):
        clock = time.localtime(now - ago)
        moment = AGO.convert(time.strftime("%H:%M", clock), None, None)
        assert 0 <= now - moment <= 25 * 3600
        assert time.localtime(moment)[3:5] == clock[3:5]


def test_a_number_is_that_of_an_event_and_all_else_a_moment():
    assert Since().convert("1000017", None, None) == 1000017
    assert isinstance(Since().convert("17", None, None), int)
    assert 599 < time.time() - Since().convert("10m", None, None) < 700
    with pytest.raises(click.BadParameter, match="14:30"):
        Since().convert("soon", None, None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("60", 60.0), ("60s", 60.0), ("1.5 min", 90.0), ("2h", 7200.0), ("0", 0.0)]
)
def test_a_length_of_time(text, seconds):
    assert SPAN.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["soon", "-1s", "8d", "5 parsecs", ""])
def test_what_is_no_length_of_time(text):
    with pytest.raises(click.BadParameter, match=r"length of time|more than a week"):
        SPAN.convert(text, None, None)

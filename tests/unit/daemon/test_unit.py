"""What systemd is told, and when not: without a loop that runs, and without systemd."""

from __future__ import annotations

import os

import pytest

from clusterd.daemon import unit
from clusterd.daemon.unit import ServiceManager


class Loop:
    """Keeps what is to be called later, for the test to call."""

    def __init__(self):
        self.later = []

    def call_later(self, seconds, function):
        self.later.append((seconds, function))
        return self

    def cancel(self):
        self.later.clear()


@pytest.fixture
def told(monkeypatch):
    told = []
    monkeypatch.setattr(unit, "notify", lambda *assignments: told.extend(assignments))
    return told


def test_the_watchdog_is_patted_twice_in_its_time_while_the_daemon_is_able(told, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    loop, able = Loop(), [True]
    manager = ServiceManager(loop, lambda: able[0])
    manager.ready()
    assert told == ["READY=1", "WATCHDOG=1"]
    [(seconds, pat)] = loop.later
    assert seconds == 30
    pat()
    assert told[2:] == ["WATCHDOG=1"]
    # The journal cannot be written: systemd is to notice. When it can be again, all is well.
    able[0] = False
    pat()
    pat()
    assert told[3:] == []
    able[0] = True
    pat()
    assert told[3:] == ["WATCHDOG=1"]
    manager.close()
    assert loop.later == []


@pytest.mark.parametrize(
    "environment", [{}, {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}]
)
def test_without_a_watchdog_of_ours_nothing_is_patted(told, monkeypatch, environment):
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    loop = Loop()
    ServiceManager(loop, lambda: True).ready()
    assert (told, loop.later) == (["READY=1"], [])

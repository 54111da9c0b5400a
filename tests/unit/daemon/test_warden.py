"""The process that stays root, over its socketpair: what it does and what it refuses."""

from __future__ import annotations

import socket
import threading

import msgspec
import pytest

from clusterd.core.model.profile import Limits
from clusterd.daemon import warden
from clusterd.errors import LaunchError
from clusterd.launchers.base import Unknown
from clusterd.launchers.transient import Order


def order(**changes):
    fields = {"unit": "clusterd-lab-engines-0-1.service", "description": "the agent", "script": "/s/0-1.sh"}
    return Order(**{**fields, **changes})


class Starter:
    def __init__(self):
        self.started, self.forgotten, self.problem = [], [], None

    def start(self, what):
        if self.problem:
            raise self.problem
        self.started.append(what)

    def forget(self, unit):
        self.forgotten.append(unit)


@pytest.fixture
def starter():
    return Starter()


@pytest.fixture
def ends(monkeypatch):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def client(starter, ends):
    """A warden whose other end is answered by a thread."""
    ours, theirs = ends

    def answer():
        while data := theirs.recv(warden._MAX):
            theirs.send(msgspec.json.encode(warden._answer(data, "clusterd-lab-", starter)))

    thread = threading.Thread(target=answer)
    thread.start()
    client = warden.Warden(ours)
    yield client
    client.close()
    thread.join()


def test_what_is_asked_for_is_done(client, starter):
    asked = order(limits=Limits(memory=2**30), fields={"CLUSTERD_SET": "engines"})
    client.start(asked)
    client.forget(asked.unit)
    assert (starter.started, starter.forgotten) == ([asked], [asked.unit])


def test_refusals_and_silence_come_back_as_they_are(client, starter):
    starter.problem = LaunchError("no", hint="why")
    with pytest.raises(LaunchError, match="no") as refused:
        client.start(order())
    assert refused.value.hint == "why"
    starter.problem = Unknown("late")
    with pytest.raises(Unknown, match="late"):
        client.start(order())


@pytest.mark.parametrize(
    "changes",
    [
        {"unit": "sshd.service"},
        {"unit": "clusterd-other-engines-0-1.service"},
        {"unit": "clusterd-lab-a/../b.service"},
        {"unit": "clusterd-lab-engines-0-1.scope"},
        {"description": "a\nUser=root"},
        {"description": ""},
        {"script": "s.sh"},
        {"fields": {"A": "b\nUser=root"}},
        {"fields": {"A b": "c"}},
        {"stop_timeout": -1.0},
    ],
)
def test_what_a_daemon_never_asks_for_is_refused(client, starter, changes):
    with pytest.raises(LaunchError, match="no unit that this daemon may start"):
        client.start(order(**changes))
    assert starter.started == []


def test_only_own_units_are_forgotten(client, starter):
    client.forget("sshd.service")
    assert starter.forgotten == []


def test_what_is_no_order_is_answered(starter):
    assert warden._answer(b"{", "clusterd-lab-", starter).problem.startswith("this is no order")
    assert warden._answer(b'{"number": 1, "start": {"unit": 7}}', "clusterd-lab-", starter).problem


def test_a_late_answer_is_not_taken_for_the_next_one(ends):
    ours, theirs = ends
    client = warden.Warden(ours)
    ours.settimeout(0.01)
    with pytest.raises(Unknown):
        client.start(order())
    ours.settimeout(10)
    theirs.send(msgspec.json.encode(warden._Reply(1, "too late")))
    theirs.send(msgspec.json.encode(warden._Reply(2)))
    client.start(order())


def test_a_warden_that_has_ended_is_told(ends):
    ours, theirs = ends
    theirs.close()
    with pytest.raises(LaunchError, match="has ended"):
        warden.Warden(ours).start(order())

"""Strays: who is one and who never is, and that nobody else is ended."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys

import pytest

from clusterd.core.supervisor import events, records
from clusterd.core.wire.messages import AgentNotice, SlotReport
from clusterd.daemon import strays as module
from clusterd.daemon.roster import Roster
from clusterd.daemon.strays import described, end, strays
from clusterd.system import process
from tests.unit.supervisor.bench import Bench, launch

UUID = "0f" * 16


@pytest.fixture
def units(tmp_path):
    return tmp_path


@pytest.fixture
def started():
    """Start a program that ends when its input does, or not even when it is asked to."""
    begun = []

    def start(code="import sys; print(flush=True); sys.stdin.read()"):
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
        begun.append(child)
        return child

    yield start
    for child in begun:
        child.kill()
        child.communicate()


def identify(units, child, kind="engine", **fields):
    who = process.of(child.pid)._asdict()
    name = fields.get("uuid", UUID) if kind == "engine" else fields["launch"]
    content = {"kind": kind, "launch": launch(1), **who, **fields}
    if kind == "engine":
        content = {"uuid": UUID, "engine_set": "engines", "slot": 3, **content}
    (units / f"{kind}-{name}.json").write_text(json.dumps(content))


def found(units, bench, roster=None):
    return [(stray.kind, stray.slot) for stray in strays(units, bench.supervisor, roster or Roster())]


def agent_of(bench, *uuids, event="report"):
    roster = Roster()
    slots = [SlotReport(number, "running", 1, bytes.fromhex(uuid)) for number, uuid in enumerate(uuids)]
    roster.note_agent(AgentNotice(event, launch(1), "engines", "host", 1, 1, slots))
    assert bench.supervisor.state.launches[launch(1)].unit == "engines"
    return roster


def test_an_engine_is_a_stray_when_its_agent_does_not_hold_it(units, started):
    bench = Bench().up()
    identify(units, started())
    assert found(units, bench, agent_of(bench, UUID)) == []
    assert found(units, bench, agent_of(bench, "aa" * 16)) == [("engine", 3)]


def test_an_engine_is_none_while_somebody_may_come_for_it(units, started):
    bench = Bench().up()
    identify(units, started())
    # Its agent has not said anything yet, or not lately.
    assert found(units, bench) == []
    assert found(units, bench, agent_of(bench, "aa" * 16, event="lost")) == []
    # Its agent died: the next one adopts it, or the daemon ends it.
    bench.send(events.LaunchExited(launch(1), "killed by SIGKILL"), 50.0)
    assert found(units, bench) == []


def test_an_engine_of_a_set_that_the_journal_does_not_know_of(units, started):
    bench = Bench()
    bench.send(events.JournalReplayed())
    identify(units, started(), engine_set="gpu")
    [stray] = strays(units, bench.supervisor, Roster())
    assert "no agent" in stray.why
    [told] = described([stray])
    assert (told["unit"], told["slot"], told["pid"]) == ("gpu", 3, stray.identity.pid)
    assert told["uptime"] >= 0


def test_launches_that_are_not_in_the_journal(units, started):
    bench = Bench().up()
    identify(units, started(), "agent", launch=launch(1), engine_set="engines")
    identify(units, started(), "controller", launch=launch(0))
    assert found(units, bench) == []
    identify(units, started(), "agent", launch="ffffffff-1", engine_set="engines")
    identify(units, started(), "controller", launch="ffffffff-0")
    assert found(units, bench) == [("agent", -1), ("controller", -1)]
    bench.supervisor.apply(records.LaunchEnded("local", launch(0), "given up"))
    assert len(found(units, bench)) == 3


@pytest.mark.parametrize(
    "changes",
    [{"pid": 1}, {"start_time": 1}, {"boot_id": "earlier"}, {"pid_namespace": 1}, {"host": "other-12345678"}],
    ids=str,
)
def test_who_is_not_the_very_process_is_no_stray_and_is_not_ended(units, started, changes):
    child = started()
    bench = Bench()
    bench.send(events.JournalReplayed())
    identify(units, child, **changes)
    assert found(units, bench) == []
    # It was there when the list was made, and its pid is somebody else's when it is to be ended.
    identify(units, child)
    [stray] = strays(units, bench.supervisor, Roster())
    other = stray._replace(identity=_changed(stray.identity, changes))
    asyncio.run(end([other], 0.01))
    assert child.poll() is None


def _changed(identity, changes):
    fields = {name: changes.get(name, getattr(identity, name)) for name in identity.__struct_fields__}
    return type(identity)(**fields)


def test_what_is_no_identity_file_is_left_alone(units):
    for name, text in (("a", "{"), ("b", "[]"), ("c", '{"kind": "engine"}'), ("d", '{"kind": "called off"}')):
        (units / f"{name}.json").write_text(text)
    bench = Bench()
    bench.send(events.JournalReplayed())
    assert found(units, bench) == []


def test_strays_are_asked_then_killed_and_their_files_go(units, started, monkeypatch):
    monkeypatch.setattr(module, "AFTER_KILL", 10.0)
    willing = started()
    stubborn = started(
        "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); sys.stdin.read()"
    )
    bench = Bench()
    bench.send(events.JournalReplayed())
    identify(units, willing, uuid="aa" * 16)
    identify(units, stubborn, uuid="bb" * 16)
    (units / f"{'aa' * 16}.page").touch()
    both = strays(units, bench.supervisor, Roster())
    answer = asyncio.run(end(both, 0.3))
    assert answer == {"done": [f"engine-{'aa' * 16}", f"engine-{'bb' * 16}"], "failed": {}}
    assert (willing.wait(10), stubborn.wait(10)) == (-signal.SIGTERM, -signal.SIGKILL)
    assert list(units.iterdir()) == []

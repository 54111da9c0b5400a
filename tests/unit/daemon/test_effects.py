from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from typing import get_args

import pytest
from msgspec import to_builtins

from clusterd.core.model.launch import ProcessIdentity
from clusterd.core.model.profile import EngineSet, Limits, Profile
from clusterd.core.supervisor import actions, events
from clusterd.core.supervisor.settings import LOCAL
from clusterd.daemon import adoption
from clusterd.daemon.effects import Effects
from clusterd.daemon.places import Places
from clusterd.daemon.processes import Processes
from clusterd.daemon.story import Story
from clusterd.launchers.base import Unknown
from clusterd.system import process

PROFILE = Profile(version=1, engine_sets={"engines": EngineSet(n=1)})
LAUNCH = "0123abcd-1"


class World:
    def __init__(self, isolated, profile=PROFILE):
        self.places = Places.of("test")
        for directory in (self.places.specs, self.places.units, self.places.logs):
            directory.mkdir(parents=True, mode=0o700)
        self.processes = Processes()
        self.effects = Effects(self.places, lambda: profile, self.processes, Story())


@pytest.fixture
def world(isolated):
    world = World(isolated)
    yield world
    world.processes.close()


@pytest.fixture
def sleeper():
    """A child, and its identity as the journal would have it."""
    child = subprocess.Popen(["sleep", "60"])
    yield child, ProcessIdentity(*process.of(child.pid))
    child.kill()
    child.wait()


def test_every_action_has_somebody_to_perform_it(world):
    mine = {actions.Append, actions.Answer, actions.Refuse}
    assert set(world.effects._performers) | mine == set(get_args(actions.Action))


def test_a_program_that_cannot_be_started_is_refused_for_certain(isolated):
    profile = Profile(version=1, engine_sets={"engines": EngineSet(n=1, python="/nonexistent/python")})
    world = World(isolated, profile)
    [event] = world.effects.perform(actions.Start(LAUNCH, "engines", (0,), 1))
    assert event == events.LaunchRefused(
        LAUNCH, "cannot start the agent of test/engines: /nonexistent/python does not exist"
    )
    assert world.processes.all() == []


def test_a_living_launch_is_adopted_and_its_end_is_seen(world, sleeper):
    child, identity = sleeper
    [result] = world.effects.perform(actions.Adopt(LAUNCH, "engines", identity))
    assert (result.verdict, result.identity) == ("found", identity)
    assert world.processes.collect(LAUNCH) is None
    world.effects.perform(actions.Stop(LAUNCH, "engines", "term", identity))
    assert child.wait() == -signal.SIGTERM
    # Somebody else (Popen) has reaped it: that it is over is known, how is not.
    assert world.processes.collect(LAUNCH).status is None


def test_our_own_child_is_reaped_with_its_status(world):
    program = "import sys; sys.stdin.read(); raise SystemExit(7)"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as child:
        log = world.places.log_file("engines")
        log.write_text("the reason\n")
        assert world.processes.watch(LAUNCH, ProcessIdentity(*process.of(child.pid)), log)
        descriptor = dict(world.processes.all())[LAUNCH]
        child.stdin.close()
        select.select([descriptor], [], [])
        ended = world.processes.collect(LAUNCH)
        assert (ended.status, ended.reason) == (7, "ended with exit status 7; its log ends: the reason")
        assert world.processes.collect(LAUNCH) is None
        child.returncode = 7  # reaped, and not by Popen


def test_a_launch_whose_process_is_gone_is_absent(world, sleeper):
    child, identity = sleeper
    child.kill()
    child.wait()
    [result] = world.effects.perform(actions.Adopt(LAUNCH, "controller", identity))
    assert result.verdict == "absent"


def test_a_process_elsewhere_is_unknown(world):
    identity = ProcessIdentity("another-host-00000000", "boot", 1, 1)
    [result] = world.effects.perform(actions.Adopt(LAUNCH, "controller", identity))
    assert result.verdict == "unknown"
    assert "another-host" in result.evidence


def test_a_launch_that_has_not_begun_never_will(world):
    adopt = actions.Adopt(LAUNCH, "engines", None)
    [result] = world.effects.perform(adopt)
    assert result.verdict == "absent"
    path = world.places.identity_file("agent", LAUNCH)
    # This is what the late process finds, and ends.
    assert json.loads(path.read_bytes())["kind"] == "called off"
    assert world.effects.perform(adopt)[0].verdict == "absent"


def test_a_launch_whose_identity_was_not_recorded_is_found_by_its_file(world, sleeper):
    _, identity = sleeper
    content = {"kind": "agent", "launch": LAUNCH, **process.of(sleeper[0].pid)._asdict()}
    world.places.identity_file("agent", LAUNCH).write_text(json.dumps(content))
    [result] = world.effects.perform(actions.Adopt(LAUNCH, "engines", None))
    assert (result.verdict, result.identity) == ("found", identity)


def test_engines_are_found_by_their_files_and_the_dead_are_cleared_away(world, sleeper):
    def write(uuid, identity, engine_set):
        content = {"kind": "engine", "uuid": uuid, "engine_set": engine_set, **identity}
        (world.places.units / f"engine-{uuid}.json").write_text(json.dumps(content))

    alive = process.of(sleeper[0].pid)._asdict()
    write("aa", alive, "engines")
    write("bb", alive, "gpu")
    write("cc", {**alive, "start_time": 1}, "engines")
    (world.places.units / "cc.page").write_bytes(b"")
    (world.places.units / "engine-dd.json").write_text("{half")
    assert [path.name for path, _ in adoption.engines_of("engines", world.places)] == ["engine-aa.json"]
    assert sorted(path.name for path in world.places.units.iterdir()) == [
        "engine-aa.json",
        "engine-bb.json",
        "engine-dd.json",
    ]


def test_what_needs_the_controller_waits_for_nobody_without_a_link(world):
    assert world.effects.perform(actions.SetDesired(LAUNCH, "engines", 2, (0, 1))) == []
    assert world.effects.perform(actions.Reap("engines")) == []
    assert world.effects.reap_later == ["engines"]


def test_jobs_are_refused_by_what_has_no_queue(world):
    [event] = world.effects.perform(actions.Submit(LAUNCH, "engines", (0,), 1))
    assert isinstance(event, events.LaunchRefused)
    assert isinstance(world.effects.perform(actions.Query("engines"))[0], events.QueryFailed)


# --- units ---


class Units:
    """A launcher of units whose manager answers late, or not at all."""

    traits = LOCAL

    def __init__(self, outcome):
        self.outcome, self.asked = outcome, []

    def start(self, program):
        self.asked.append(program.unit)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def how_it_ended(self, unit, log, *, is_unit):
        return (f"{unit} ended", 3) if is_unit else None


def with_units(isolated, outcome):
    limits = Limits(memory=2**30, tasks=100)
    world = World(isolated, Profile(version=1, engine_sets={"engines": EngineSet(n=1, limits=limits)}))
    world.effects = Effects(world.places, world.effects._profile, world.processes, Story(), Units(outcome))
    return world


def test_limits_that_are_not_held_are_noted(isolated, sleeper):
    world = with_units(isolated, sleeper[1])
    [started] = world.effects.perform(actions.Start(LAUNCH, "engines", (0,), 1))
    assert started == events.Started(LAUNCH, sleeper[1])
    # It is in no unit: what was started here is a child of the test.
    assert world.effects.notes["engines"].startswith("limits: memory is bounded for each process by itself")
    world.processes.close()


def test_with_a_loop_nobody_waits_for_the_manager(isolated, sleeper):
    world = with_units(isolated, sleeper[1])
    later = []
    world.effects.aside = lambda work, then: later.append((work, then))
    assert world.effects.perform(actions.Start(LAUNCH, "engines", (0,), 1)) == []
    [(work, then)] = later
    assert then(work()) == [events.Started(LAUNCH, sleeper[1])]
    world.processes.close()


def test_without_an_answer_the_identity_file_decides(isolated, sleeper):
    world = with_units(isolated, Unknown("systemd did not answer"))
    # Nobody has claimed it: now nobody will.
    [refused] = world.effects.perform(actions.Start(LAUNCH, "engines", (0,), 1))
    assert refused == events.LaunchRefused(LAUNCH, "systemd did not answer; it was called off")
    path = world.places.identity_file("agent", "0123abcd-2")
    path.write_text(json.dumps(to_builtins(sleeper[1])))
    [started] = world.effects.perform(actions.Start("0123abcd-2", "engines", (0,), 1))
    assert started == events.Started("0123abcd-2", sleeper[1])
    world.processes.close()


def test_what_is_no_unit_nobody_asks_the_manager_about(isolated, sleeper):
    world = with_units(isolated, sleeper[1])
    assert world.effects.how_it_ended("engines", LAUNCH) is None
    world.effects._in_units.add(LAUNCH)
    assert world.effects.how_it_ended("engines", LAUNCH) == (f"clusterd-test-engines-{LAUNCH}.service ended", 3)
    world.effects.forget(LAUNCH)
    assert world.effects.how_it_ended("engines", LAUNCH) is None

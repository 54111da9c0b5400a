"""What a unit's failures were is known to the next daemon: the series, the pause, the reason."""

from __future__ import annotations

from clusterd.core.supervisor import events
from tests.unit.supervisor.bench import Bench, identity, launch


def again_of(bench, **changes):
    again = bench.crashed()
    for name, value in changes.items():
        setattr(again, name, value)
    again.send(events.JournalReplayed())
    again.send(events.AdoptionResult(launch(0), "found", identity(0)))
    return again


def fail(bench, count):
    """Let the agent fail, as often as that, and whatever time that takes."""
    for _ in range(count):
        while not bench.supervisor.state.of_unit("engines"):
            bench.wait(bench.supervisor.next_deadline())
        [agent] = bench.supervisor.state.of_unit("engines")
        bench.send(events.LaunchExited(agent.id, "killed by the kernel: out of memory"))


def test_a_crash_loop_is_counted_over_restarts_of_the_daemon():
    bench = Bench().up()
    fail(bench, 3)
    again = again_of(bench)
    assert again.supervisor.unit("engines").restarts.failures == 3
    fail(again, 1)
    assert "engines" not in again.supervisor.state.halted
    fail(again, 1)
    assert "out of memory" in again.supervisor.state.halted["engines"]
    last = again_of(again)
    assert "crash loop: 5 failures" in last.view("engines").reason
    assert "out of memory" in last.view("engines").reason


def test_the_pause_goes_on_and_its_reason_is_told():
    bench = Bench().up()
    fail(bench, 4)
    retry_at = bench.supervisor.next_deadline()
    assert retry_at > bench.now + 1.0
    again = again_of(bench)
    assert again.supervisor.state.of_unit("engines") == []
    assert again.supervisor.next_deadline() == retry_at
    assert "out of memory" in again.view("engines").reason


def test_resume_forgets():
    bench = Bench().up()
    fail(bench, 3)
    bench.send(events.ResumeRequested(5, "engines"))
    again = again_of(bench)
    assert again.supervisor.unit("engines").restarts.failures == 0
    assert again.supervisor.state.failures == {}


def test_the_clock_of_an_earlier_boot_counts_for_nothing():
    bench = Bench().up()
    bench.now = 1000.0
    fail(bench, 4)
    again = again_of(bench, now=5.0)
    assert again.supervisor.unit("engines").restarts.failures == 0
    assert [launch.unit for launch in again.supervisor.state.launches.values()] == ["controller", "engines"]
    assert again.view("engines").last_end == "killed by the kernel: out of memory"

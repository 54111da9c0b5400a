"""The agent's decisions, event by event, and under random events with the invariants after each."""

from __future__ import annotations

import itertools
import signal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clusterd.agent.slots import Signal, Slots, Start
from clusterd.core.model.profile import CrashLoop, RestartPolicy

STOP = 10.0
START = 60.0


def make(policy="always", **settings_of_policy):
    numbers = itertools.count(1)
    restart = RestartPolicy(policy=policy, **settings_of_policy)
    return Slots(restart, START, STOP, lambda: next(numbers).to_bytes(16, "big"), "seed")


def started(slots, wanted=(0,), now=0.0):
    """Slots with running engines; the uuids by slot."""
    found = {}
    for action in slots.set_desired(slots.generation + 1, wanted, now):
        assert isinstance(action, Start)
        found[action.slot] = action.uuid
        slots.forked(action.uuid, 1000 + action.slot, now)
        slots.ready(action.uuid, now)
    return found


def report(slots, number=0):
    return next(item for item in slots.reports(0.0) if item.slot == number)


def test_each_wanted_slot_gets_an_engine():
    slots = make()
    actions = slots.set_desired(1, [2, 0], 0.0)
    assert [action.slot for action in actions] == [0, 2]
    assert len({action.uuid for action in actions}) == 2
    assert [item.state for item in slots.reports(0.0)] == ["starting", "starting"]


def test_a_repeated_wish_changes_nothing_and_an_older_one_is_ignored():
    slots = make()
    started(slots, [0, 1])
    assert slots.set_desired(slots.generation, [0, 1], 1.0) == []
    assert slots.set_desired(slots.generation - 1, [], 1.0) == []
    assert len(slots.engines) == 2


def test_a_surplus_engine_gets_sigterm_then_sigkill_and_is_not_replaced():
    slots = make()
    uuids = started(slots, [0, 1])
    assert slots.set_desired(9, [0], 5.0) == [Signal(uuids[1], signal.SIGTERM)]
    assert report(slots, 1).state == "stopping"
    assert slots.tick(5.0 + STOP - 0.1) == []
    assert slots.next_deadline() == 5.0 + STOP
    assert slots.tick(5.0 + STOP) == [Signal(uuids[1], signal.SIGKILL)]
    assert slots.tick(5.0 + STOP + 1) == []
    assert slots.exited(uuids[1], "killed", 20.0, is_failure=False) == []
    assert [item.slot for item in slots.reports(0.0)] == [0]


def test_a_slot_that_is_wanted_again_while_its_engine_ends_gets_a_new_one_afterwards():
    slots = make()
    uuids = started(slots, [0])
    slots.set_desired(8, [], 1.0)
    assert slots.set_desired(9, [0], 2.0) == []
    (start,) = slots.exited(uuids[0], "stopped", 3.0, is_failure=False)
    assert isinstance(start, Start)


def test_a_dead_engine_is_replaced_at_once_then_with_backoff_then_not_any_more():
    slots = make(initial_backoff=1.0, max_backoff=8.0, crash_loop=CrashLoop(failures=4, within=100.0))
    uuid = started(slots)[0]
    (start,) = slots.exited(uuid, "it failed", 0.0, is_failure=True)
    now, pauses = 0.0, []
    for _ in range(2):
        slots.forked(start.uuid, 1, now)
        assert slots.exited(start.uuid, "it failed", now, is_failure=True) == []
        assert report(slots).state == "backoff"
        assert report(slots).reason == "it failed"
        pauses.append(slots.next_deadline() - now)
        now = slots.next_deadline()
        (start,) = slots.tick(now)
    assert 0.75 <= pauses[0] <= 1.0
    assert 1.5 <= pauses[1] <= 2.0
    assert slots.exited(start.uuid, "it failed", now, is_failure=True) == []
    assert report(slots).state == "crash-loop"
    assert "it failed" in report(slots).reason
    assert slots.next_deadline() is None
    (start,) = slots.resume(None, now)
    assert start.slot == 0


def test_an_engine_that_was_healthy_begins_a_new_series():
    slots = make(crash_loop=CrashLoop(failures=2, within=1000.0))
    uuid = started(slots)[0]
    for now in (100.0, 200.0, 300.0):
        (start,) = slots.exited(uuid, "it failed", now, is_failure=True)
        uuid = start.uuid
        slots.forked(uuid, 1, now)
        slots.ready(uuid, now)


@pytest.mark.parametrize(
    ("policy", "command", "is_replaced"),
    [
        ("always", "stop", True),
        ("always", "kill", True),
        ("on-failure", "stop", False),
        ("on-failure", "kill", True),
        ("never", "stop", False),
        ("never", "kill", False),
        ("always", "restart", True),
        ("on-failure", "restart", True),
        ("never", "restart", True),
    ],
)
def test_what_follows_an_end_by_command(policy, command, is_replaced):
    slots = make(policy)
    uuid = started(slots)[0]
    (signalled,), problem = slots.command(uuid, command, 1.0)
    assert problem == ""
    assert signalled.number == (signal.SIGKILL if command == "kill" else signal.SIGTERM)
    actions = slots.exited(uuid, "by command", 2.0, is_failure=False)
    assert [type(action) for action in actions] == ([Start] if is_replaced else [])
    if not is_replaced:
        assert report(slots).state == "stopped"
        assert policy in report(slots).reason
        assert slots.resume([0], 3.0)


def test_many_restarts_by_command_are_no_crash_loop():
    slots = make(crash_loop=CrashLoop(failures=2, within=1000.0))
    uuid = started(slots)[0]
    for now in range(10):
        slots.command(uuid, "restart", now)
        (start,) = slots.exited(uuid, "by command", now, is_failure=False)
        uuid = start.uuid
        slots.forked(uuid, 1, now)


def test_an_interrupt_is_a_signal_and_nothing_else():
    slots = make()
    uuid = started(slots)[0]
    assert slots.command(uuid, "interrupt", 1.0) == ([Signal(uuid, signal.SIGINT)], "")
    assert report(slots).state == "running"


def test_any_signal_is_sent_as_it_is():
    slots = make()
    uuid = started(slots)[0]
    for number in (0, signal.SIGINT, signal.SIGUSR1, signal.SIGKILL, signal.SIGRTMAX):
        assert slots.command(uuid, "signal", 1.0, number) == ([Signal(uuid, number)], "")
    for number in (-1, 65):
        assert slots.command(uuid, "signal", 1.0, number) == ([], f"there is no signal {number}")
    assert report(slots).state == "running"


def test_commands_that_cannot_be_carried_out_say_why():
    slots = make()
    (start,) = slots.set_desired(1, [0], 0.0)
    assert slots.command(b"?" * 16, "stop", 0.0)[1] == "the engine has ended"
    assert slots.command(start.uuid, "stop", 0.0)[1] == "the engine is just being started"
    slots.forked(start.uuid, 1, 0.0)
    assert "no engine command 'dance'" in slots.command(start.uuid, "dance", 0.0)[1]


def test_an_engine_that_does_not_register_is_ended_but_only_while_there_is_a_controller():
    slots = make()
    (start,) = slots.set_desired(1, [0], 0.0)
    slots.forked(start.uuid, 1, 0.0)
    assert slots.tick(1000.0) == []
    slots.attached_at = 1000.0
    assert slots.next_deadline() == 1000.0 + START
    assert slots.tick(1000.0 + START) == [Signal(start.uuid, signal.SIGTERM)]
    slots.exited(start.uuid, "had not registered", 1100.0, is_failure=False)
    assert slots.slots[0].restarts.failures == 1


def test_a_fork_that_fails_is_a_failure_of_the_slot():
    slots = make(initial_backoff=1.0)
    (start,) = slots.set_desired(1, [0], 0.0)
    (start,) = slots.fork_failed(start.uuid, "no memory", 0.0)
    assert slots.fork_failed(start.uuid, "no memory", 0.0) == []
    assert report(slots).reason == "could not be started: no memory"


def test_an_engine_that_is_unwanted_before_it_exists_is_ended_when_it_does():
    slots = make()
    (start,) = slots.set_desired(1, [0], 0.0)
    assert slots.set_desired(2, [], 1.0) == []
    assert slots.forked(start.uuid, 77, 2.0) == [Signal(start.uuid, signal.SIGTERM)]


def test_an_adopted_engine_keeps_its_slot():
    slots = make()
    assert slots.adopt(b"a" * 16, 1, 500, 0.0) == []
    actions = slots.set_desired(1, [0, 1], 0.0)
    assert [action.slot for action in actions] == [0]
    assert slots.end_unwanted(0.0) == []
    assert report(slots, 1).pid == 500


def test_adopted_engines_that_nobody_wants_or_that_are_two_in_a_slot_are_ended():
    slots = make()
    slots.adopt(b"a" * 16, 0, 500, 0.0)
    assert slots.adopt(b"b" * 16, 0, 501, 0.0) == [Signal(b"b" * 16, signal.SIGTERM)]
    slots.adopt(b"c" * 16, 7, 502, 0.0)
    assert slots.set_desired(1, [0], 0.0) == []
    assert slots.end_unwanted(0.0) == [Signal(b"c" * 16, signal.SIGTERM)]
    assert slots.exited(b"b" * 16, "stopped", 1.0, is_failure=False) == []
    assert report(slots).uuid == b"a" * 16


def test_all_are_down_when_no_engine_lives_and_none_is_to_come():
    slots = make("on-failure", initial_backoff=5.0)
    assert not slots.are_all_down
    engines = started(slots, (0, 1))
    slots.exited(engines[0], "exit status 0", 1.0, is_failure=False)
    assert not slots.are_all_down
    slots.exited(engines[1], "exit status 0", 1.0, is_failure=False)
    assert slots.are_all_down
    slots.resume([0], 2.0)
    assert not slots.are_all_down


def test_after_shut_down_nothing_is_started():
    slots = make()
    uuids = started(slots, [0, 1])
    slots.exited(uuids[0], "x", 1.0, is_failure=True)
    signalled = slots.shut_down(2.0)
    assert {action.number for action in signalled if isinstance(action, Signal)} == {signal.SIGTERM}
    for uuid in list(slots.engines):
        slots.forked(uuid, 5, 2.0)
        assert slots.exited(uuid, "stopped", 3.0, is_failure=False) == []
    assert not slots.engines
    assert slots.set_desired(99, [0], 4.0) == []
    assert slots.resume(None, 4.0) == []
    assert slots.tick(1000.0) == []


class AnyEvents(RuleBasedStateMachine):
    """Events in any order; what is asked of the world is noted as a careful zygote and kernel would."""

    def __init__(self):
        super().__init__()
        self.slots = make(crash_loop=CrashLoop(failures=3, within=50.0))
        self.slots.attached_at = 0.0
        self.now = 0.0
        self.ordered = {}  # uuid -> slot: Start was returned, nothing heard yet
        self.alive = {}  # uuid -> slot
        self.killed = set()

    def perform(self, actions):
        for action in actions:
            if isinstance(action, Start):
                assert action.uuid not in self.ordered
                assert action.slot not in [*self.ordered.values()], "two engines ordered for one slot"
                self.ordered[action.uuid] = action.slot
            else:
                assert action.uuid in self.alive, "a signal for an engine that does not exist"
                if action.number == signal.SIGKILL:
                    self.killed.add(action.uuid)

    @rule(wanted=st.sets(st.integers(0, 4)))
    def wish(self, wanted):
        self.perform(self.slots.set_desired(self.slots.generation + 1, wanted, self.now))

    @rule(seconds=st.sampled_from([0.1, 1.0, 11.0, 70.0]))
    def time_passes(self, seconds):
        self.now += seconds
        self.perform(self.slots.tick(self.now))

    @precondition(lambda self: self.ordered)
    @rule(data=st.data(), works=st.booleans())
    def zygote_answers(self, data, works):
        uuid = data.draw(st.sampled_from(sorted(self.ordered)))
        slot = self.ordered.pop(uuid)
        if works:
            self.alive[uuid] = slot
            self.perform(self.slots.forked(uuid, 1 + slot, self.now))
        else:
            self.perform(self.slots.fork_failed(uuid, "no", self.now))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def engine_registers(self, data):
        self.slots.ready(data.draw(st.sampled_from(sorted(self.alive))), self.now)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), is_failure=st.booleans())
    def engine_dies(self, data, is_failure):
        uuid = data.draw(st.sampled_from(sorted(self.alive)))
        del self.alive[uuid]
        self.perform(self.slots.exited(uuid, "died", self.now, is_failure=is_failure))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), command=st.sampled_from(["interrupt", "stop", "kill", "restart"]))
    def operator_commands(self, data, command):
        actions, problem = self.slots.command(data.draw(st.sampled_from(sorted(self.alive))), command, self.now)
        assert problem == ""
        self.perform(actions)

    @rule()
    def operator_resumes(self):
        self.perform(self.slots.resume(None, self.now))

    @invariant()
    def every_engine_is_known(self):
        assert set(self.slots.engines) == set(self.ordered) | set(self.alive)

    @invariant()
    def a_wanted_slot_has_an_engine_a_time_or_a_reason(self):
        for slot in self.slots.slots.values():
            if slot.is_wanted:
                assert (slot.engine is not None) + (slot.retry_at is not None) + (slot.down is not None) == 1
            else:
                assert slot.engine is not None
                assert slot.engine.ending

    @invariant()
    def an_engine_that_is_to_end_has_a_time_or_was_killed(self):
        for uuid in self.alive:
            engine = self.slots.engines[uuid]
            if engine.ending:
                assert engine.kill_at is not None or uuid in self.killed

    @invariant()
    def reports_cover_every_slot(self):
        assert [item.slot for item in self.slots.reports(0.0)] == sorted(self.slots.slots)


TestAnyEvents = AnyEvents.TestCase
TestAnyEvents.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

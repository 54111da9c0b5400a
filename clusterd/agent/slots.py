"""Decides what becomes of each slot: start, stop, wait, start again. Pure: time and uuids are arguments, actions are returned.

A slot is a place that an engine may have; an engine is one incarnation in it. Invariants: a slot has at most one engine, a
wanted slot has an engine, a time at which it gets one, or a reason why it gets none; every engine that is to end has a
time at which it is killed; an engine is forgotten only when it is dead.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NamedTuple

from clusterd.core.supervisor.restart import RestartAt, Restarts, StayDown
from clusterd.core.wire.messages import SlotReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from clusterd.core.model.profile import RestartPolicy

COMMANDS = ("interrupt", "stop", "kill", "restart", "signal")


class Start(NamedTuple):
    """Fork an engine with this uuid for the slot."""

    slot: int
    uuid: bytes


class Signal(NamedTuple):
    """Send a signal to an engine."""

    uuid: bytes
    number: int


Action = Start | Signal


class Engine:
    """One incarnation."""

    __slots__ = ("ending", "kill_at", "pid", "ready_at", "since", "slot", "uuid")

    def __init__(self, uuid: bytes, slot: int, since: float) -> None:
        self.uuid = uuid
        self.slot = slot
        # 0 until it is forked.
        self.pid = 0
        # When its start was ordered.
        self.since = since
        # When it was first seen registered; None before.
        self.ready_at: float | None = None
        # Why we end it: surplus, stop, kill, restart, shutdown, or a sentence; empty while we do not.
        self.ending = ""
        # When SIGKILL follows; None when nothing was asked or it was sent.
        self.kill_at: float | None = None


class Slot:
    """One place."""

    __slots__ = ("down", "engine", "is_wanted", "number", "reason", "restarts", "retry_at", "starts")

    def __init__(self, number: int, restarts: Restarts) -> None:
        self.number = number
        self.is_wanted = False
        self.engine: Engine | None = None
        self.restarts = restarts
        # When the next engine is started; None when there is one, or none is to come.
        self.retry_at: float | None = None
        # Why none is to come.
        self.down: StayDown | None = None
        # How the last engine ended.
        self.reason = ""
        # Engines that were started in it so far.
        self.starts = 0


class Slots:
    """All slots of an agent.

    Args:
        policy: restarts.
        start_timeout: seconds within which an engine must have registered, counted while there is a controller.
        stop_timeout: seconds between SIGTERM and SIGKILL.
        make_uuid: 16 fresh random bytes.
        seed: of the jitter of restarts.
    """

    def __init__(
        self,
        policy: RestartPolicy,
        start_timeout: float,
        stop_timeout: float,
        make_uuid: Callable[[], bytes],
        seed: str,
    ) -> None:
        self._policy = policy
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._make_uuid = make_uuid
        self._seed = seed
        # By number: all wanted slots, and those whose engine has not ended yet.
        self.slots: dict[int, Slot] = {}
        # By uuid: all and only engines that are not known to be dead.
        self.engines: dict[bytes, Engine] = {}
        self.generation = -1
        self.is_shutting_down = False
        # Since when the agent has a controller; None while it has none: then no engine can register.
        self.attached_at: float | None = None

    # --- wishes ---

    def set_desired(self, generation: int, wanted: Iterable[int], now: float) -> list[Action]:
        """These slots are wanted, and no others; an older generation than the last is ignored."""
        if generation < self.generation or self.is_shutting_down:
            return []
        self.generation = generation
        numbers = set(wanted)
        actions: list[Action] = []
        for number in sorted(numbers):
            slot = self._slot(number)
            if not slot.is_wanted:
                slot.is_wanted = True
                slot.down = None
                slot.restarts.resume()
                actions += self._fill(slot, now)
        for slot in [slot for slot in self.slots.values() if slot.is_wanted and slot.number not in numbers]:
            slot.is_wanted = False
            slot.retry_at = None
            if slot.engine is not None:
                actions += self._end(slot.engine, "surplus", now)
            else:
                del self.slots[slot.number]
        return actions

    def resume(self, numbers: Iterable[int] | None, now: float) -> list[Action]:
        """Somebody has repaired the cause: start what is down or waits, at once."""
        chosen = set(self.slots) if numbers is None else set(numbers)
        actions: list[Action] = []
        for slot in self.slots.values():
            if slot.number in chosen and slot.is_wanted and slot.engine is None:
                slot.restarts.resume()
                slot.down = None
                actions += self._start(slot, now)
        return actions

    def command(self, uuid: bytes, command: str, now: float, number: int = 0) -> tuple[list[Action], str]:
        """(actions, why it cannot be done or nothing) of interrupt, stop, kill, restart, or signal with its `number`."""
        engine = self.engines.get(uuid)
        if engine is None or not engine.pid:
            return [], "the engine has ended" if engine is None else "the engine is just being started"
        match command:
            case "interrupt" | "signal":
                # What comes of a signal is the engine's affair: one that dies of it has crashed. 0 asks whether it is there (kill(2)).
                sent = signal.SIGINT if command == "interrupt" else number
                if sent and sent not in signal.valid_signals():
                    return [], f"there is no signal {number}"
                return [Signal(uuid, sent)], ""
            case "kill":
                engine.ending = engine.ending or "kill"
                engine.kill_at = None
                return [Signal(uuid, signal.SIGKILL)], ""
            case "stop" | "restart":
                return self._end(engine, command, now), ""
            case _:
                return [], f"no engine command {command!r}; there are {', '.join(COMMANDS)}"

    def shut_down(self, now: float) -> list[Action]:
        """End everything; nothing is started any more."""
        self.is_shutting_down = True
        actions: list[Action] = []
        for slot in self.slots.values():
            slot.retry_at = None
        for engine in list(self.engines.values()):
            actions += self._end(engine, "shutdown", now)
        return actions

    # --- what happened ---

    def adopt(self, uuid: bytes, slot_number: int, pid: int, now: float) -> list[Action]:
        """An engine of an earlier agent lives; a second one for the same slot, or one that nobody wants, is ended."""
        if uuid in self.engines:
            return []
        engine = Engine(uuid, slot_number, now)
        engine.pid = pid
        self.engines[uuid] = engine
        slot = self._slot(slot_number)
        if slot.engine is None:
            slot.engine = engine
            slot.retry_at, slot.down = None, None
            return []
        return self._end(engine, "surplus", now)

    def end_unwanted(self, now: float) -> list[Action]:
        """After the adoption, once it is known which slots are wanted: end the others' engines."""
        return [
            action
            for engine in list(self.engines.values())
            if not self._slot(engine.slot).is_wanted
            for action in self._end(engine, "surplus", now)
        ]

    def forked(self, uuid: bytes, pid: int, now: float) -> list[Action]:
        """The engine exists."""
        engine = self.engines.get(uuid)
        if engine is None:
            return []
        engine.pid = pid
        if engine.ending:
            # It was to end while it did not exist yet: nothing was sent.
            engine.kill_at = now + self._stop_timeout
            return [Signal(uuid, signal.SIGTERM)]
        return []

    def fork_failed(self, uuid: bytes, reason: str, now: float) -> list[Action]:
        """The engine could not be made."""
        return self.exited(uuid, f"could not be started: {reason}", now, is_failure=True)

    def ready(self, uuid: bytes, now: float) -> None:
        """The engine has registered with a controller."""
        engine = self.engines.get(uuid)
        if engine is not None and engine.ready_at is None:
            engine.ready_at = now

    def exited(self, uuid: bytes, reason: str, now: float, *, is_failure: bool) -> list[Action]:
        """The engine is dead: forget it, and decide what follows in its slot."""
        engine = self.engines.pop(uuid, None)
        if engine is None:
            return []
        slot = self.slots.get(engine.slot)
        if slot is None or slot.engine is not engine:
            return []
        slot.engine = None
        slot.reason = reason
        if not slot.is_wanted or self.is_shutting_down:
            if not slot.is_wanted:
                del self.slots[slot.number]
            return []
        return self._replace(slot, engine, reason, now, is_failure=is_failure)

    # --- time ---

    def tick(self, now: float) -> list[Action]:
        """Do what is due."""
        actions: list[Action] = []
        for slot in self.slots.values():
            if slot.retry_at is not None and slot.retry_at <= now:
                actions += self._start(slot, now)
        for engine in list(self.engines.values()):
            if engine.kill_at is not None and engine.kill_at <= now:
                engine.kill_at = None
                actions.append(Signal(engine.uuid, signal.SIGKILL))
            elif (deadline := self._start_deadline(engine)) is not None and deadline <= now:
                actions += self._end(engine, f"had not registered {self._start_timeout:.0f} s after its start", now)
        return actions

    @property
    def are_all_down(self) -> bool:
        """True when no engine lives and none will come, unless somebody resumes or asks for one."""
        return bool(self.slots) and not self.engines and all(slot.down is not None for slot in self.slots.values())

    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        times = [slot.retry_at for slot in self.slots.values()]
        times += [engine.kill_at for engine in self.engines.values()]
        times += [self._start_deadline(engine) for engine in self.engines.values()]
        return min((time for time in times if time is not None), default=None)

    # --- telling ---

    def reports(self, to_wall: float) -> list[SlotReport]:
        """How each slot stands; `to_wall` is added to times."""
        return [self._report(slot, to_wall) for _, slot in sorted(self.slots.items())]

    def _report(self, slot: Slot, to_wall: float) -> SlotReport:
        engine = slot.engine
        restarts = max(0, slot.starts - 1)
        if engine is not None:
            state = "stopping" if engine.ending else "running" if engine.ready_at is not None else "starting"
            return SlotReport(slot.number, state, engine.pid, engine.uuid, slot.reason, restarts)
        if slot.down is not None:
            state = "crash-loop" if slot.down.is_crash_loop else "stopped"
            return SlotReport(slot.number, state, reason=slot.down.reason, restarts=restarts)
        retry_at = 0.0 if slot.retry_at is None else slot.retry_at + to_wall
        return SlotReport(slot.number, "backoff", reason=slot.reason, restarts=restarts, retry_at=retry_at)

    # --- inside ---

    def _slot(self, number: int) -> Slot:
        slot = self.slots.get(number)
        if slot is None:
            slot = self.slots[number] = Slot(number, Restarts(self._policy, f"{self._seed}/{number}"))
        return slot

    def _fill(self, slot: Slot, now: float) -> list[Action]:
        # While the last engine of the slot is still ending, the end of it fills the slot.
        return [] if slot.engine is not None else self._start(slot, now)

    def _start(self, slot: Slot, now: float) -> list[Action]:
        slot.retry_at = None
        if self.is_shutting_down:
            return []
        engine = slot.engine = Engine(self._make_uuid(), slot.number, now)
        self.engines[engine.uuid] = engine
        slot.starts += 1
        return [Start(slot.number, engine.uuid)]

    def _end(self, engine: Engine, why: str, now: float) -> list[Action]:
        if engine.ending:
            # A later wish to restart wins over a stop; nothing is sent twice.
            engine.ending = why if why in ("restart", "shutdown") else engine.ending
            return []
        engine.ending = why
        if not engine.pid:
            return []
        engine.kill_at = now + self._stop_timeout
        return [Signal(engine.uuid, signal.SIGTERM)]

    def _replace(self, slot: Slot, engine: Engine, reason: str, now: float, *, is_failure: bool) -> list[Action]:
        policy = slot.restarts.policy.policy
        match engine.ending:
            case "restart" | "surplus":  # surplus: wanted again while it ended
                slot.restarts.resume()
                return self._start(slot, now)
            case "stop" | "kill":
                # Somebody asked for this end: no failure, no pause.
                if policy == "always" or (policy == "on-failure" and engine.ending == "kill"):
                    return self._start(slot, now)
                slot.down = StayDown(f"not restarted (restart policy: {policy}): {reason}", is_crash_loop=False)
                return []
        healthy_for = 0.0 if engine.ready_at is None else now - engine.ready_at
        match slot.restarts.ended(reason, now, healthy_for=healthy_for, is_failure=is_failure or bool(engine.ending)):
            case RestartAt(at):
                if at <= now:
                    return self._start(slot, now)
                slot.retry_at = at
            case StayDown() as down:
                slot.down = down
        return []

    def _start_deadline(self, engine: Engine) -> float | None:
        if engine.ready_at is not None or engine.ending or not engine.pid or self.attached_at is None:
            return None
        return max(engine.since, self.attached_at) + self._start_timeout

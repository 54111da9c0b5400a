"""The agent's life: what zygote, engines and controller say goes to the slots, what the slots decide is performed."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Any, assert_never

from clusterd.agent import causes, logs
from clusterd.agent.births import Births
from clusterd.agent.control import Control
from clusterd.agent.memory_events import OomWatch
from clusterd.agent.mirror import Mirror
from clusterd.agent.nursery import Nursery
from clusterd.agent.placement import Placement, cores_here, gpus_here
from clusterd.agent.slots import Signal, Slots, Start
from clusterd.agent.zygote import messages as z
from clusterd.core.model.page import ALL_ORDERS, epoch_of
from clusterd.core.wire import messages as m
from clusterd.link import poll_once
from clusterd.system import fault, paths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.agent.causes import End
    from clusterd.agent.slots import Action
    from clusterd.agent.zygote_process import ZygoteProcess
    from clusterd.core.model.launch import AgentSpec

log = logging.getLogger(__name__)
# Pages tell no one that they change: while engines start they are looked at this often, and orphans without a pidfd too.
_LOOK_SECONDS = 0.05
_HOUSEKEEPING_SECONDS = 10.0
# After SIGKILL only a kernel that hangs in I/O keeps a process: the agent does not wait for it.
_UNKILLABLE_SECONDS = 5.0


class Agent:
    """The one of this process.

    Args:
        spec: what it was told.
        zygote: already started; None: start no engines, and end when those that were found have ended.
        context: called when a ZeroMQ context is needed.
    """

    def __init__(self, spec: AgentSpec, zygote: ZygoteProcess | None, context: Callable[[], Any]) -> None:
        self._spec = spec
        self._nursery = Nursery(spec)
        self._births = Births(spec, zygote, self._nursery)
        self._is_watching = zygote is None
        self._slots = Slots(spec.restart, spec.start_timeout, spec.stop_timeout, lambda: os.urandom(16), spec.launch)
        self._placement = Placement(spec, cores_here(), gpus_here())
        self._oom = OomWatch()
        self._mirror = Mirror.open(spec)
        self._control = Control(context, spec.connection_file, self._attach, self._report)
        self._uuid = os.urandom(16)
        self._controller = b""
        self._housekeeping_at = time.monotonic() + 1.0
        self._unkillable_at: float | None = None
        self.status = 0
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._is_told_to_end = False

    def on_terminate(self, _number: int, _frame: Any) -> None:
        """Handler of SIGTERM and SIGINT."""
        self._is_told_to_end = True
        os.write(self._wake_write, b"\0")  # a poll is restarted after a signal; this makes it return

    def run(self) -> int:
        """Supervise until told to end; the exit status."""
        now = time.monotonic()
        self._adopt(now)
        # An engine by hand that ended before its helper looked is reported, and not waited for: nothing here can start it.
        wanted = list(self._slots.slots) if self._is_watching else self._spec.slots
        self._perform(self._slots.set_desired(self._spec.generation, wanted, now))
        self._perform(self._slots.end_unwanted(now))
        fault.point("agent.start.before_attach")
        self._control.link.open()
        while not self._is_over():
            self._turn()
        reason = "ended" if not self._control.refusal else "refused"
        self._control.close(f"the agent of {self._spec.cluster}/{self._spec.engine_set} has {reason}")
        self._births.close()
        self._nursery.close()
        if self._mirror is not None:
            # What engines printed when they ended.
            self._mirror.forward()
            self._mirror.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        return self.status

    # --- one turn ---

    def _turn(self) -> None:
        deadline = self._next_deadline()
        poll_once(self._pollables(), None if deadline is None else max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 512)
        if self._mirror is not None:
            self._mirror.forward()
        now = time.monotonic()
        if self._is_told_to_end and not self._is_watching and not self._slots.is_shutting_down:
            self._shut_down("told to end")
        self._hear_births(now)
        for uuid in self._nursery.ended_orphans():
            who = "a person" if self._is_watching else "an earlier agent"
            self._ended(uuid, causes.unknown(self._ending(uuid), self._oom.look(), who), now)
        if not self._control.link.is_attached:
            self._slots.attached_at = None
        elif self._slots.attached_at is None:
            self._slots.attached_at = now
        self._look_at_pages(now)
        # The controller last: what it asks is answered with what is known now.
        for message in self._control.receive() + self._control.tick(now):
            self._obey(message, now)
        self._perform(self._slots.tick(now))
        self._tick(now)

    def _tick(self, now: float) -> None:
        if now >= self._housekeeping_at:
            self._keep_house(now)
        alone_since, patience = self._control.alone_since, self._spec.orphan_timeout
        if (
            alone_since is not None
            and patience is not None
            and now - alone_since >= patience
            and not self._slots.is_shutting_down
            and all(state.state != "running" for state in self._nursery.inventory())
        ):
            self._shut_down(f"no controller for {patience:.0f} s ({self._control.link.problem})")
        is_done = self._slots.are_all_down and self._control.is_silent(now)
        if self._spec.is_alone and is_done and not self._slots.is_shutting_down:
            downs = [slot.down for slot in self._slots.slots.values() if slot.down is not None]
            self.status = int(any(down.is_crash_loop for down in downs))
            self._shut_down(f"no engine is left: {downs[0].reason}")
        if self._control.refusal and not self._slots.is_shutting_down:
            self.status = 1
            self._shut_down(f"the controller refuses this agent: {self._control.refusal}")

    def _shut_down(self, why: str) -> None:
        log.info("ends: %s", why)
        now = time.monotonic()
        self._unkillable_at = now + self._spec.stop_timeout + _UNKILLABLE_SECONDS
        self._perform(self._slots.shut_down(now))
        self._control.changed()

    def _is_over(self) -> bool:
        if not self._slots.is_shutting_down:
            has_ended = not self._slots.engines and self._control.is_silent(time.monotonic())
            return self._is_watching and (has_ended or self._is_told_to_end)
        if self._unkillable_at is not None and time.monotonic() >= self._unkillable_at:
            pids = ", ".join(str(child.pid) for child in self._nursery)
            log.error("leaves engines behind that SIGKILL does not end: pid %s", pids)
            return True
        return not self._slots.engines

    def _next_deadline(self) -> float | None:
        times = [
            self._slots.next_deadline(),
            self._control.next_deadline(),
            self._births.next_deadline(),
            self._housekeeping_at,
            self._unkillable_at if self._slots.is_shutting_down else None,
        ]
        is_looking = any(engine.ready_at is None for engine in self._slots.engines.values())
        is_looking |= any(
            child.is_orphan and (child.handle is None or child.handle.fileno() < 0) for child in self._nursery
        )
        if is_looking:
            times.append(time.monotonic() + _LOOK_SECONDS)
        return min((time for time in times if time is not None), default=None)

    def _pollables(self) -> list[tuple[Any, int]]:
        descriptors = {self._wake_read} | self._births.descriptors()
        mirrored = [] if self._mirror is None else self._mirror.pollables()
        descriptors |= {
            child.handle.fileno()
            for child in self._nursery
            if child.is_orphan and child.handle is not None and child.handle.fileno() >= 0
        }
        ours = [(descriptor, select.POLLIN) for descriptor in descriptors]
        return [*self._control.link.pollables(), *ours, *mirrored]

    # --- engines ---

    def _perform(self, actions: Sequence[Action]) -> None:
        orders = []
        for action in actions:
            match action:
                case Start(slot, uuid):
                    self._nursery.expect(uuid, slot)
                    environment = self._placement.environment(slot, len(self._slots.slots))
                    orders.append(z.Fork(slot, uuid, environment, self._placement.cpus(slot)))
                case Signal(uuid, number):
                    self._nursery.signal(uuid, number)
                case _ as unreachable:
                    assert_never(unreachable)
        self._births.order(*orders)
        if orders:
            fault.point("agent.fork.after_order")
        if actions:
            self._control.changed()

    def _adopt(self, now: float) -> bool:
        """Take over what an earlier agent left; True when some of it lives."""
        is_any_alive = False
        for uuid, slot, pid, is_alive in self._nursery.find():
            if is_alive:
                is_any_alive = True
                log.info("adopts engine %s (pid %d)", self._name(slot), pid)
                self._oom.follow(pid)
                self._perform(self._slots.adopt(uuid, slot, pid, now))
            else:
                log.warning("engine %s (pid %d) ended while it had no agent", self._name(slot), pid)
                self._report_end(uuid, causes.unknown("", self._oom.look(), "an earlier agent"))
                self._nursery.gone(uuid)
        return is_any_alive

    def _ended(self, uuid: bytes, end: End, now: float) -> None:
        engine = self._slots.engines.get(uuid)
        child = self._nursery.children.get(uuid)
        if engine is None or child is None:
            return
        fault.point("agent.engine_exited.before_report")
        tail = self._report_end(uuid, end)
        self._nursery.gone(uuid)
        level = logging.INFO if end.is_wanted else logging.WARNING
        log.log(level, "engine %s (pid %d) %s", self._name(child.slot), child.pid, end.cause)
        last = tail.rpartition("\n")[2].strip()
        reason = f"{end.cause}; its output ends: {last}" if end.is_failure and last else end.cause
        self._perform(self._slots.exited(uuid, reason, now, is_failure=end.is_failure))
        self._placement.keep_only(list(self._slots.slots))
        self._control.changed()

    def _report_end(self, uuid: bytes, end: End) -> str:
        """Tell of a death, with what is left of the engine; the last lines that it wrote."""
        child = self._nursery.children[uuid]
        record, tail = self._nursery.record(uuid), self._nursery.tail(uuid)
        self._control.send(
            m.EngineExited(
                uuid,
                child.slot,
                child.pid,
                end.exit_code,
                end.signal,
                end.is_oom,
                end.is_wanted,
                end.cause,
                tail,
                b"" if record is None else record.task,
                -1 if record is None else record.order,
                0 if record is None else record.epoch,
                0 if record is None else record.attempt,
                -1 if record is None else record.wire_id,
            )
        )
        return tail

    def _ending(self, uuid: bytes) -> str:
        engine = self._slots.engines.get(uuid)
        return "" if engine is None else engine.ending

    def _look_at_pages(self, now: float) -> None:
        for engine in self._slots.engines.values():
            if engine.ready_at is None and engine.pid:
                record = self._nursery.record(engine.uuid)
                if record is not None and record.wire_id >= 0:
                    self._slots.ready(engine.uuid, now)
                    self._control.changed()

    def _keep_house(self, now: float) -> None:
        self._housekeeping_at = now + _HOUSEKEEPING_SECONDS
        rotated = set(logs.rotate(child.log for child in self._nursery))
        for child in self._nursery:
            if child.log in rotated:
                child.log_begin = 0
        # An engine whose agent was killed between its fork and its identity file shows up a moment later.
        if self._adopt(now):
            self._perform(self._slots.end_unwanted(now))

    # --- the zygote ---

    def _hear_births(self, now: float) -> None:
        for message in self._births.hear(now):
            match message:
                case z.Warmed():
                    self._control.changed()
                case z.Forked():
                    self._nursery.forked(message.uuid, message.pid, message.start_time)
                    self._perform(self._slots.forked(message.uuid, message.pid, now))
                    self._control.send(m.EngineStarted(message.uuid, self._slot_of(message.uuid), message.pid))
                case z.ForkFailed():
                    log.error("cannot start an engine: %s", message.reason)
                    self._nursery.gone(message.uuid)
                    self._perform(self._slots.fork_failed(message.uuid, message.reason, now))
                case z.Exited():
                    asked = self._ending(message.uuid)
                    self._ended(
                        message.uuid, causes.of_status(message.status, asked, self._oom.look(), message.max_rss), now
                    )
                case _ as unreachable:
                    assert_never(unreachable)
        if self._births.failure and not self._slots.is_shutting_down:
            # The daemon (or the batch system) is to see that nothing can be started here.
            self.status = 1
            self._shut_down(self._births.failure)

    # --- the controller ---

    def _attach(self, token: bytes, controller: bytes) -> m.AttachAgent:
        if controller != self._controller:
            # What an earlier controller gave and nobody has begun is placed anew: first it must not begin. Our predecessor may have
            # known that controller and we not: the pages name it.
            self._nursery.revoke_others(epoch_of(controller))
            self._controller = controller
        self._look_at_pages(time.monotonic())
        wanted = sorted(number for number, slot in self._slots.slots.items() if slot.is_wanted)
        return m.AttachAgent(
            self._uuid,
            token,
            self._spec.launch,
            self._spec.engine_set,
            paths.host_id(),
            os.getpid(),
            self._slots.generation,
            self._nursery.inventory(),
            wanted,
            is_complete=not self._is_watching,
        )

    def _report(self) -> m.AgentReport:
        warnings = self._births.warnings + self._placement.warnings(len(self._slots.slots))
        return m.AgentReport(self._slots.generation, self._slots.reports(time.time() - time.monotonic()), warnings)

    def _obey(self, message: Any, now: float) -> None:
        match message:
            case m.SetDesired():
                self._perform(self._slots.set_desired(message.generation, message.slots, now))
                self._control.send(m.CommandDone(message.request))
                self._control.changed()
            case m.ResumeSlots():
                self._perform(self._slots.resume(message.slots, now))
                # The report goes first: whoever waits for the answer then sees slots that start, not the crash loop of before.
                self._control.send(self._report())
                self._control.send(m.CommandDone(message.request))
            case m.EngineSignal():
                self._control.send(m.CommandDone(message.request, self._command(message, now)))
            case m.InventoryRequest():
                self._control.send(m.Inventory(self._nursery.inventory()))
            case m.Recall():
                self._recall(message)

    def _command(self, message: m.EngineSignal, now: float) -> str:
        if self._is_watching and message.command == "restart":
            return "this engine was started by hand: stop it, and start another where it was"
        is_interrupt = message.command == "interrupt" or (message.command, message.number) == ("signal", signal.SIGINT)
        if self._is_watching and is_interrupt and not self._is_running(message.uuid):
            return ""  # to an idle engine in a terminal the same signal is a person's Ctrl-C, which ends it
        actions, problem = self._slots.command(message.uuid, message.command, now, message.number)
        self._perform(actions)
        return problem

    def _is_running(self, uuid: bytes) -> bool:
        return any(engine.uuid == uuid and engine.state == "running" for engine in self._nursery.inventory())

    def _recall(self, message: m.Recall) -> None:
        epoch = epoch_of(self._controller)
        record = self._nursery.revoke(message.uuid, epoch, message.first, message.last)
        # Without a record nothing was revoked: whatever it is, it may run.
        running = ALL_ORDERS
        fault.point("agent.recall.before_answer")
        if record is not None:
            running = record.order if record.epoch == epoch else 0
        self._control.send(m.Recalled(message.uuid, message.first, message.last, running))

    def _name(self, slot: int) -> str:
        return f"{self._spec.cluster}/{self._spec.engine_set}/{slot}"

    def _slot_of(self, uuid: bytes) -> int:
        child = self._nursery.children.get(uuid)
        return -1 if child is None else child.slot

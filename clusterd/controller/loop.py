"""The controller's only thread: polls four sockets, hands out what they bring, sends what was decided, sleeps until the next deadline.

Each turn reads a bounded burst from every readable socket (control first, so that a flood of data delays no request), lets the
cores decide, and flushes once: what goes to one peer in one turn travels in one message. What time asks for is looked at when it is
due and nothing comes, and every HOUSE_SECONDS besides. Nothing here blocks but the poll.
"""

from __future__ import annotations

import logging
import os
import select
import time
from typing import TYPE_CHECKING, Any

import zmq

from clusterd.controller.peers import Agent, Client, Engine, Loss
from clusterd.core.scheduler import events
from clusterd.errors import WireError
from clusterd.system import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.controller.backlog import Backlog
    from clusterd.controller.compat.front import Front
    from clusterd.controller.connection import Connection
    from clusterd.controller.dispatch import Performer
    from clusterd.controller.endpoint import Endpoint
    from clusterd.controller.gate import Gate
    from clusterd.controller.hub import Hub
    from clusterd.controller.operations import Operations
    from clusterd.controller.requests import Requests
    from clusterd.controller.rotation import Rotation
    from clusterd.controller.tasks import Tasks

log = logging.getLogger(__name__)
# Read in this order: a request, or news of an engine's death, is worth more than the next thousand tasks.
ORDER = ("client-control", "engine-control", "engine-data", "client-data")
# A result goes to its client before its engine hears that it may forget it: the kernel keeps what a dead controller has sent.
SENDING_ORDER = ("client-control", "client-data", "engine-control", "engine-data")
# A bare acknowledgement waits this long for something that carries it.
ACK_DELAY = 0.1
# Timers, blocked clients and late acknowledgements are looked at this often while messages come, and when none has come for so long:
# most turns then work out no deadline, which is a tenth of what a lone message costs here.
HOUSE_SECONDS = 0.005
# House-keeping that needs no precision: clients that are gone, connections that said Hello only.
SWEEP_SECONDS = 1.0
# A thousand agents that come one by one are not written down one by one.
REMEMBER_SECONDS = 1.0
# Stock engines are, nearly.
GUEST_SECONDS = 0.05


class Loop:
    """The running controller."""

    def __init__(
        self,
        *,
        hub: Hub,
        tasks: Tasks,
        operations: Operations,
        requests: Requests,
        performer: Performer,
        rotation: Rotation,
        wakeup: int,
        remember: Callable[[], None] = lambda: None,
    ) -> None:
        # In the order in which they are read.
        self._endpoints: list[Endpoint] = []
        self._hub = hub
        self._tasks = tasks
        self._operations = operations
        self._requests = requests
        self._performer = performer
        self._rotation = rotation
        self._wakeup = wakeup
        self._remember = remember
        # Stock clients and engines, where they are served.
        self.front: Front | None = None
        # Where something is promised to outlive this controller: what is said waits there until it is committed.
        self.gate: Gate | None = None
        # What the store has to write, where there is one that writes.
        self.backlog: Backlog | None = None
        self._next_remembered = 0.0
        # In the order in which they are sent to.
        self._by_urgency: list[Endpoint] = []
        self._next_sweep = 0.0
        self._next_house = 0.0
        # Why the loop is to end; None while it runs.
        self.ends_because: str | None = None

    def serve(self, endpoints: dict[str, Endpoint]) -> None:
        """Serve these endpoints in `turn`."""
        self._endpoints = [endpoints[name] for name in ORDER]
        self._by_urgency = [endpoints[name] for name in SENDING_ORDER]
        ledger = self._tasks.ledger
        if ledger is not None:
            endpoints["client-data"].on_acknowledged = ledger.acknowledged
            ledger.restore(time.monotonic())

    def run(self, endpoints: dict[str, Endpoint]) -> str:
        """Turn until somebody asks for the end; returns why."""
        self.serve(endpoints)
        # ZeroMQ's poll costs three times the system's; it is needed only where there are ZeroMQ sockets.
        is_unix = all(isinstance(endpoint.pollable(), int) for endpoint in self._endpoints)
        poller: Any = select.poll() if is_unix else zmq.Poller()
        for endpoint in self._endpoints:
            poller.register(endpoint.pollable(), zmq.POLLIN)
        poller.register(self._wakeup, zmq.POLLIN)
        front = self.front
        for descriptor in front.descriptors if front is not None else ():
            poller.register(descriptor, zmq.POLLIN)
        alone = {endpoint.pollable(): [endpoint] for endpoint in self._endpoints}
        shortly = int(HOUSE_SECONDS * 1000)
        is_idle, is_shut = True, False
        while self.ends_because is None:
            has_more = front is not None and front.has_more
            # What is shut is looked at again soon: the store wakes nobody.
            ready = poller.poll(0 if has_more else self._timeout() if is_idle and not is_shut else shortly)
            now = time.monotonic()
            is_idle = not (ready or has_more)
            # A lone message has one endpoint to look at, which needs no sorting.
            arrived = alone.get(ready[0][0]) if len(ready) == 1 and not has_more else None
            if arrived is None:
                readable = {pollable for pollable, _ in ready}
                if self._wakeup in readable:
                    self._drain_wakeup()
                if front is not None:
                    self._operations.now = now
                    front.receive(readable, now)
                arrived = [endpoint for endpoint in self._endpoints if endpoint.pollable() in readable]
            self.turn(arrived, now, is_due=is_idle or now >= self._next_house)
            if self.backlog is not None and self.backlog.look() is not is_shut:
                is_shut = self.backlog.is_full
                self._shut(poller, is_shut=is_shut)
        if self.front is not None:
            self.front.close(time.monotonic())
        self._flush()
        if self.gate is not None:
            self.gate.drain(time.monotonic())
        return self.ends_because

    def turn(self, readable: Sequence[Endpoint], now: float, *, is_due: bool = True) -> None:
        """Take what has arrived on these endpoints, do what follows, send. `is_due`: also what time asks for."""
        self._operations.now = now
        for endpoint in readable:
            endpoint.receive(now)
        if is_due:
            self._next_house = now + HOUSE_SECONDS
            self._keep_house(now)
        self._act(now)
        if is_due:
            self._acknowledge(now)
        # Who turned out to be gone when it was spoken to: that is news, and may be for others.
        while ended := [endpoint for endpoint in self._endpoints if endpoint.ended]:
            for endpoint in ended:
                endpoint.tell_ended(now)
            self._act(now)

    def _act(self, now: float) -> None:
        if self.gate is not None and (seconds := self.gate.delay(now)) is not None:
            self._tasks.handle(events.DispatchesHeld(seconds), now)
        self._tasks.settle(now)
        self._hub.notices.announce()
        fault.point("controller.turn.before_flush")
        self._flush()
        fault.point("controller.turn.after_flush")

    @property
    def has_engines(self) -> bool:
        """True while an engine is not known to be dead."""
        return bool(self._hub.engines)

    def _keep_house(self, now: float) -> None:
        if self._tasks.recorder is not None:
            self._tasks.recorder.tick(now)
        self._tasks.tick(now)
        self._operations.tick(now)
        self._performer.unblock(now)
        self._rotation.tick(now)
        if self.front is not None:
            self.front.tick(now)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_SECONDS
            self._sweep(now)
        self._hub.watch.tick(now)
        if self._hub.has_other_places:
            wait = REMEMBER_SECONDS - GUEST_SECONDS if self._hub.has_other_guests else 0.0
            if now >= self._next_remembered - wait:
                self._hub.has_other_places = self._hub.has_other_guests = False
                self._next_remembered = now + REMEMBER_SECONDS
                self._remember()

    def _acknowledge(self, now: float) -> None:
        for endpoint in self._endpoints:
            if endpoint.owed_since is not None and endpoint.owed_since + ACK_DELAY <= now:
                endpoint.acknowledge(now - ACK_DELAY, now)

    def _flush(self) -> None:
        for endpoint in self._by_urgency:
            if endpoint.dirty or endpoint.heard:
                endpoint.flush()
            if endpoint.name == "client-data":
                fault.point("controller.flush.half_done")
        if self.gate is not None:
            self.gate.close_turn(self._operations.now)

    def _shut(self, poller: Any, *, is_shut: bool) -> None:
        """Read nothing more on data connections, or read again."""
        for endpoint in self._endpoints:
            if endpoint.name.endswith("data") and is_shut:
                poller.unregister(endpoint.pollable())
            elif endpoint.name.endswith("data"):
                poller.register(endpoint.pollable(), zmq.POLLIN)
        if self.front is not None:
            self.front.hold_work(is_held=is_shut)

    def _timeout(self) -> int:
        now = time.monotonic()
        deadline = self._next_sweep
        for part in (self._tasks, self._operations, self._hub.watch, self._rotation):
            due = part.next_deadline()
            if due is not None:
                deadline = min(deadline, due)
        if self.front is not None:
            due = self.front.next_deadline()
            if due is not None:
                deadline = min(deadline, due)
        for endpoint in self._endpoints:
            if endpoint.owed_since is not None:
                deadline = min(deadline, endpoint.owed_since + ACK_DELAY)
        # Rounded up: a poll that returns a millisecond early would only turn once more for nothing.
        return max(0, int((deadline - now) * 1000) + 1) if deadline > now else 0

    def _sweep(self, now: float) -> None:
        for endpoint in self._endpoints:
            endpoint.expire(now)
        self._hub.watch.sweep(now)

    def _drain_wakeup(self) -> None:
        os.read(self._wakeup, 4096)

    # --- endpoint.Owner ---

    def attach(self, connection: Connection, message: Any, now: float) -> None:
        """See `endpoint.Owner`."""
        self._hub.attach(connection, message, now)

    def receive(
        self, connection: Connection, messages: list[Any], payload: list[Any], digests: list[bytes] | None, now: float
    ) -> None:
        """See `endpoint.Owner`."""
        owner = connection.owner
        if isinstance(owner, Engine):
            reason = self._tasks.receive_engine(owner, messages, payload, digests, now)
            if reason is not None:
                self._hub.lose_engine(owner, Loss(reason or "it left", is_wanted=True), now)
            return
        if isinstance(owner, Client) and connection is owner.data:
            if self._tasks.receive_client(owner, messages, payload, digests, now):
                self._left(owner, now)
            return
        if payload:
            raise WireError("payload on a control connection")
        if isinstance(owner, Agent):
            reason = self._operations.receive_agent(owner, messages, now)
            if reason is not None:
                self._hub.agent_left(owner, now)
        elif self._requests.receive(owner, messages, now) is not None:
            self._left(owner, now)

    def _left(self, client: Client, now: float) -> None:
        if self._tasks.ledger is not None:
            self._tasks.ledger.goodbye(client, now)
        self._hub.client_left(client, "it said goodbye", now)

    def disconnected(self, connection: Connection, reason: str, now: float) -> None:
        """See `endpoint.Owner`."""
        self._hub.disconnected(connection, reason, now)

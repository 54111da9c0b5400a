"""An agent with engines that are connections only: what a thousand engines ask of daemon and controller, without their memory.

A daemon starts it by a profile whose `python:` is the file that `wrapper` makes. The agent's claims, slots and control connection are
the product's own (`clusterd.agent`), the engines attach and answer as real ones do on the wire; in place of a process each is a socket
of this one, and every task returns None.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import secrets
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from clusterd.agent.control import Control
from clusterd.agent.main import claim, read_spec
from clusterd.agent.slots import Signal, Slots, Start
from clusterd.core.model import connection
from clusterd.core.wire import messages as m
from clusterd.errors import ConnectionFileError
from clusterd.link import Down, Link, Received, Refusal, Up
from clusterd.system import files, paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clusterd.agent.slots import Action
    from clusterd.core.model.connection import NativeEndpoints
    from clusterd.core.model.launch import AgentSpec

LOOK_SECONDS = 0.05
"""How often what waits for time is looked at."""
NONE = cloudpickle.dumps(None)
WRAPPER = """\
#!/bin/sh
# As `python`: what is to be an agent becomes a fleet, all else runs as it is.
if [ "$1 $2 $3 $4" = "-P -m clusterd agent" ]; then
  shift 4
  PYTHONPATH={root} exec {python} -m benchmarks.peers.fleet "$@"
fi
exec {python} "$@"
"""


def wrapper(path: Path) -> Path:
    """Write the program to name as `python:` of an engine set; its path."""
    path.write_text(WRAPPER.format(root=Path(__file__).resolve().parents[2], python=sys.executable))
    path.chmod(0o755)
    return path


class Engine:
    """One connection that passes for an engine."""

    def __init__(self, fleet: Fleet, slot: int, uuid: bytes) -> None:
        self.fleet = fleet
        self.slot = slot
        self.uuid = uuid
        self.id = -1
        # Engines are told apart by pid, too; these are above all that a kernel gives out.
        self.pid = 2**22 + next(fleet.pids)
        self.running: m.Dispatch | None = None
        self._controller = b""
        self.link = Link(_no_context, fleet.endpoints, "engine", "data", self._attach, keeps_unacked=True)
        self.link.open()

    def _attach(self, token: bytes) -> m.AttachEngine:
        spec = self.fleet.spec
        return m.AttachEngine(
            self.uuid,
            token,
            spec.engine_set,
            self.slot,
            spec.launch,
            self.pid,
            paths.host_id(),
            f"{sys.version_info.major}.{sys.version_info.minor}",
            "a fleet",
            self._controller,
            wanted_id=self.id,
            started_at=self.fleet.started,
        )

    def take(self, events: Iterable[Any]) -> None:
        """Deal with what the link says."""
        for event in events:
            match event:
                case Up():
                    self.id = event.attached.id
                    self._controller = event.welcome.controller
                    self.fleet.slots.ready(self.uuid, time.monotonic())
                    self.fleet.control.changed()
                case Received():
                    results = [_result(message) for message in event.messages if type(message) is m.Dispatch]
                    if results:
                        self.link.send(results)
                case Down():
                    for messages, payload in event.unacked:
                        self.link.send(messages, payload)
                case Refusal():
                    raise event.error

    def state(self) -> m.EngineState:
        """As its agent sees it."""
        return m.EngineState(self.uuid, self.slot, self.pid, "starting" if self.id < 0 else "idle", id=self.id)


class Fleet:
    """The agent.

    Args:
        spec: as the daemon wrote it.
    """

    def __init__(self, spec: AgentSpec) -> None:
        self.spec = spec
        self.started = time.time()
        self.pids = itertools.count(1)
        self.endpoints = functools.lru_cache(maxsize=1)(self._read_endpoints)
        self.engines: dict[bytes, Engine] = {}
        self.is_told_to_end = False
        self.slots = Slots(
            spec.restart, spec.start_timeout, spec.stop_timeout, lambda: secrets.token_bytes(16), spec.launch
        )
        self.control = Control(_no_context, spec.connection_file, self._attach, self._report)
        self._uuid = secrets.token_bytes(16)
        self._epoll = select.epoll()
        # By descriptor: whose it is; by link: what is registered for it.
        self._owners: dict[int, Engine | None] = {}
        self._registered: dict[int, list[tuple[Any, int]]] = {}

    def run(self) -> int:
        """Serve until told to end."""
        now = time.monotonic()
        self._perform(self.slots.set_desired(0, self.spec.slots, now))
        self.control.link.open()
        looked_at = 0.0
        while not (self.slots.is_shutting_down and not self.engines):
            self._register(self.control.link, None)
            ready = self._epoll.poll(LOOK_SECONDS, 1024)
            now = time.monotonic()
            if self.is_told_to_end and not self.slots.is_shutting_down:
                self._perform(self.slots.shut_down(now))
            self.slots.attached_at = (self.slots.attached_at or now) if self.control.link.is_attached else None
            for descriptor, _ in ready:
                engine = self._owners.get(descriptor)
                if engine is not None and engine.uuid in self.engines:
                    engine.take(engine.link.receive())
                    self._register(engine.link, engine)
            for message in self.control.receive() + self.control.tick(now):
                self._obey(message, now)
            if now >= looked_at + LOOK_SECONDS:
                looked_at = now
                self._tick(now)
        self.control.close("told to end")
        return 0

    def _tick(self, now: float) -> None:
        if not self.control.link.is_attached:
            self.endpoints.cache_clear()
        for engine in list(self.engines.values()):
            deadline = engine.link.next_deadline()
            if deadline is not None and now >= deadline:
                engine.take(engine.link.tick())
            self._register(engine.link, engine)
        self._perform(self.slots.tick(now))

    def _register(self, link: Link, engine: Engine | None) -> None:
        pollables = link.pollables()
        old = self._registered.get(id(link))
        if old is pollables:
            return
        wanted = dict(pollables)
        for descriptor in dict(old or ()):
            # One that was closed has left by itself, and may be somebody else's by now.
            if self._owners.get(descriptor) is engine and descriptor not in wanted:
                del self._owners[descriptor]
        for descriptor, flags in wanted.items():
            if self._owners.get(descriptor, self) is engine:
                self._epoll.modify(descriptor, flags)
            else:
                self._epoll.register(descriptor, flags)
            self._owners[descriptor] = engine
        self._registered[id(link)] = pollables

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Start(slot, uuid):
                    engine = self.engines[uuid] = Engine(self, slot, uuid)
                    self._perform(self.slots.forked(uuid, engine.pid, time.monotonic()))
                    self.control.send(m.EngineStarted(uuid, slot, engine.pid))
                case Signal(uuid, number) if number != signal.SIGINT:
                    self._end(self.engines.pop(uuid), number)
        if actions:
            self.control.changed()

    def _end(self, engine: Engine, number: int) -> None:
        for descriptor, _ in self._registered.pop(id(engine.link), ()):
            if self._owners.get(descriptor) is engine:
                del self._owners[descriptor]
        engine.link.close("told to end")
        self.control.send(
            m.EngineExited(
                engine.uuid, engine.slot, engine.pid, 0, number, False, True, "told to end", "", id=engine.id
            )
        )
        self._perform(self.slots.exited(engine.uuid, "told to end", time.monotonic(), is_failure=False))

    # --- the controller ---

    def _read_endpoints(self) -> NativeEndpoints:
        path = Path(self.spec.connection_file)
        try:
            return connection.decode(files.read_private(path), str(path)).clusterd
        except OSError as error:
            raise ConnectionFileError(f"{path}: {error.strerror}") from error

    def _attach(self, token: bytes, _controller: bytes) -> m.AttachAgent:
        wanted = sorted(number for number, slot in self.slots.slots.items() if slot.is_wanted)
        spec = self.spec
        return m.AttachAgent(
            self._uuid,
            token,
            spec.launch,
            spec.engine_set,
            paths.host_id(),
            os.getpid(),
            self.slots.generation,
            [engine.state() for engine in self.engines.values()],
            wanted,
        )

    def _report(self) -> m.AgentReport:
        return m.AgentReport(self.slots.generation, self.slots.reports(time.time() - time.monotonic()))

    def _obey(self, message: Any, now: float) -> None:
        match message:
            case m.SetDesired():
                self._perform(self.slots.set_desired(message.generation, message.slots, now))
                self.control.send(m.CommandDone(message.request))
            case m.EngineSignal():
                actions, problem = self.slots.command(message.uuid, message.command, now, message.number)
                self._perform(actions)
                self.control.send(m.CommandDone(message.request, problem))
            case m.InventoryRequest():
                self.control.send(m.Inventory([engine.state() for engine in self.engines.values()]))
            case m.Recall():
                # Whatever it was, it has run.
                self.control.send(m.Recalled(message.uuid, message.first, message.last, 2**62))


def _result(dispatch: m.Dispatch) -> m.Result:
    now = time.time()
    return m.Result(dispatch.task, dispatch.attempt, m.STATUS_OK, now, now, "", "", NONE)


def _no_context() -> Any:
    raise RuntimeError("a fleet lives on its controller's host: Unix sockets, no ZeroMQ")


def main(argv: Sequence[str]) -> int:
    """Be the agent that FILE describes."""
    parser = argparse.ArgumentParser(prog="fleet", description=__doc__)
    parser.add_argument("--spec", required=True, metavar="FILE")
    spec = read_spec(Path(parser.parse_known_args(argv)[0].spec))
    identity = claim(spec)
    fleet = Fleet(spec)

    def end(_number: int, _frame: object) -> None:
        fleet.is_told_to_end = True

    signal.signal(signal.SIGTERM, end)
    try:
        return fleet.run()
    finally:
        identity.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

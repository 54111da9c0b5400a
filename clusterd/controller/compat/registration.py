"""How stock engines come and go: registered by request, announced at their first pong, gone when somebody says so or their heart stops.

Before the first pong nothing can be sent to an engine: its sockets may not be connected yet, and a message would vanish. So would what it
publishes before its output is heard: it says when that is so (iopub_welcome), or is given a moment. Invariants: an id is one uuid's for
ever, also where that one was given up and beats again; what an engine sent before it was said to be gone is dealt with before it is lost.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from clusterd.controller.compat.heartbeat import MISSES, Heartbeat
from clusterd.controller.compat.names import find
from clusterd.controller.compat.sockets import ENGINE_SIDE
from clusterd.controller.peers import Engine, Loss
from clusterd.core.wire import jupyter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.doors import EngineDoor

log = logging.getLogger(__name__)
ENGINE_SET: Final = "stock"
"""Engines that nobody started here are told apart by this name of their set, and by their id as the slot."""
MAX_NAME: Final = 255
MAX_ID: Final = 2**31 - 1
MAX_GIVEN_UP: Final = 4096
"""Engines that may come back after they were given up."""
MIN_JOINING: Final = 30.0
EXPECTED_BEATS: Final = 20
"""An engine of an earlier controller that has answered none of so many pings is not waited for by the next one."""
LAST_WORDS: Final = 0.1
"""Seconds between the news of a death and the loss of an engine that was at work: its result comes by another connection."""


OUTPUT_SECONDS: Final = 0.1
"""From the first pong of an engine that does not say when its output is heard (ipykernel before 7) to its announcement."""


class Joining(NamedTuple):
    """A registration that is not announced yet."""

    wire_id: int
    until: float
    is_heard: bool = False
    beaten_at: float | None = None


class Registration:
    """The registry.

    Args:
        edge: what the parts of the edge share.
        door: of the engines.
    """

    def __init__(self, edge: Edge, door: EngineDoor) -> None:
        self._edge = edge
        self._door = door
        self._hearts = Heartbeat(edge, self)
        self._joining: dict[bytes, Joining] = {}
        # Ids of engines that were silent for too long, or are an earlier controller's, oldest first.
        self._given_up: OrderedDict[bytes, int] = OrderedDict()
        # Those of an earlier controller, for the first beats of this one.
        self._expected: set[bytes] = set()
        # Engines of the hub that are known to have ended, by their own word or a nanny's.
        self._ended: set[bytes] = set()
        # Engines that are said to be gone, and when they are to be lost.
        self._leaving: dict[bytes, tuple[float, Loss]] = {}
        # Engines that were told to end, and by what.
        self._told: dict[bytes, str] = {}

    @property
    def known(self) -> dict[str, int]:
        """Names and ids of all that are there, or were there lately at an earlier controller."""
        engines = {name: engine.id for name, engine in self._edge.hub.engines.items() if engine.door is self._door}
        engines.update((name, self._given_up[name]) for name in self._expected if name in self._given_up)
        return {name.decode("ascii"): wire_id for name, wire_id in engines.items()}

    @property
    def names(self) -> set[bytes]:
        """Names of all that are there, are about to be, or may come back."""
        there = {name for name, engine in self._edge.hub.engines.items() if engine.door is self._door}
        return {*there, *self._joining, *self._given_up}

    def expect(self, known: Mapping[str, int]) -> None:
        """These were there at an earlier controller: as good as given up, until they beat."""
        for name, wire_id in known.items():
            self._give_up(name.encode(), wire_id)
            self._expected.add(name.encode())
        if known:
            self._hearts.hurry(time.monotonic())

    def spoke(self, name: bytes, now: float) -> None:
        """Something came from an engine that the hub does not have: an earlier controller's is there, though it has not beaten yet."""
        if name in self._expected:
            self.pong(name, now)

    # --- what engines and nannies say ---

    def request(self, message: jupyter.Message, now: float) -> None:
        """A registration_request: every one gets a reply."""
        content = jupyter.dict_of(message.content, "content")
        name, wanted = content.get("uuid"), content.get("id")
        problem = self._problem(name)
        if problem:
            self._reply(message, {"status": "error", **problem, "traceback": []})
            return
        assert isinstance(name, str)  # noqa: S101 - `_problem` has looked
        uuid = name.encode("ascii")
        if not isinstance(wanted, int) or isinstance(wanted, bool) or not 0 <= wanted <= MAX_ID:
            wanted = -1  # it does not ask, or for nothing that can be had
        wire_id = self._edge.hub.promise_id(wanted)
        former = self._given_up.pop(uuid, None)
        if former is not None:
            self._edge.hub.break_promise(former)
        if self._edge.heard_with is self._edge.keys.earlier:
            self._edge.keys.engines.add(uuid)
        else:
            self._edge.keys.engines.discard(uuid)
        period = self._edge.ping
        self._joining[uuid] = Joining(wire_id, now + max(MIN_JOINING, 10 * period))
        self._hearts.hurry(now)
        log.info("stock engine %s registers: it is to be engine %d", name, wire_id)
        self._reply(
            message,
            {
                "status": "ok",
                "id": wire_id,
                "hb_period": max(1, round(period * 1000)),
                "connection_info": {name: self._edge.sockets.ports[name] for name in ENGINE_SIDE},
            },
        )

    def _problem(self, name: Any) -> dict[str, str]:
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isascii() or not name.isprintable():
            return {"ename": "ValueError", "evalue": f"an engine's uuid is up to {MAX_NAME} letters of ASCII"}
        uuid = name.encode("ascii")
        if uuid in self._joining or find(self._edge.hub, uuid) is not None:
            return {"ename": "KeyError", "evalue": f"uuid {name!r} in use"}
        return {}

    def _reply(self, message: jupyter.Message, content: dict[str, Any]) -> None:
        edge = self._edge
        header = edge.header("registration_reply", time.time())
        frames = edge.sealed(header, message.header, jupyter.EMPTY, jupyter.json_of(content), edge.heard_with)
        try:
            edge.sockets.send("registration", [*message.identities, *frames])
        except ConnectionError:
            log.info("a stock engine that registered is gone already")

    def unregister(self, message: jupyter.Message, now: float) -> None:
        """An unregistration_request: from the engine itself, or from whoever saw its end; there is no reply."""
        wire_id = jupyter.dict_of(message.content, "content").get("id")
        for name, joining in list(self._joining.items()):
            if joining.wire_id == wire_id:
                self._let_go(name)
                return
        for name in [name for name in self._expected if self._given_up.get(name) == wire_id]:
            # Sent while there was no controller.
            self._missing(name, Loss("its process ended, says the nanny that watched it"), now)
            self._edge.hub.break_promise(self._given_up.pop(name))
        engine = self._edge.hub.engines_by_id.get(wire_id) if isinstance(wire_id, int) else None
        if engine is None or engine.door is not self._door:
            return
        if tuple(message.identities) == (engine.uuid,):
            self.left(engine, "it unregistered", now)
            return
        told = self._told.get(engine.uuid)
        cause = f"its process ended after {told}" if told else "its process ended, says the nanny that watched it"
        self._end(engine, Loss(cause, is_wanted=bool(told)), now)

    def left(self, engine: Engine, why: str, now: float) -> None:
        """An engine says itself that it ends."""
        told = self._told.get(engine.uuid)
        self._end(engine, Loss(f"it ended after {told}" if told else why, is_wanted=True), now)

    def told_to_end(self, engine: Engine, by: str) -> None:
        """What comes of it was asked for."""
        self._told[engine.uuid] = by

    def refuse(self, name: bytes, now: float) -> None:
        """The key of this engine is not accepted any more: what it says is not heard, and its heart counts for nothing."""
        if name in self._joining:
            self._let_go(name)
        if name in self._given_up:
            self._edge.hub.break_promise(self._given_up.pop(name))
            self._expected.discard(name)
        engine = self._edge.hub.engines.get(name)
        if engine is not None and engine.door is self._door:
            self._ended.add(name)
            cause = "the key of this cluster was changed, and it has the one before: start it again"
            self._edge.hub.watch.engine_exited(engine, Loss(cause), now)

    def _end(self, engine: Engine, end: Loss, now: float) -> None:
        if engine.uuid in self._ended:
            return
        self._ended.add(engine.uuid)
        if not self._edge.tasks.is_busy(engine):
            self._edge.hub.watch.engine_exited(engine, end, now)
            return
        self._leaving[engine.uuid] = (now + LAST_WORDS, end)
        self._edge.hub.watch.engine_unlinked(engine, now)

    # --- hearts ---

    def pong(self, name: bytes, now: float) -> None:
        """See `heartbeat.Owner`: the first pong of one that joins, or of one that was given up."""
        joining = self._joining.get(name)
        if joining is not None:
            beaten_at = now if joining.beaten_at is None else joining.beaten_at
            if not joining.is_heard and now < beaten_at + OUTPUT_SECONDS:
                self._joining[name] = joining._replace(beaten_at=beaten_at)
                self._hearts.hurry(now)
                return
            del self._joining[name]
            wire_id = joining.wire_id
        elif name in self._given_up:
            wire_id = self._given_up.pop(name)
            log.info("stock engine %d beats again", wire_id)
        else:
            return
        self._expected.discard(name)
        engine = self._engine(wire_id, name)
        engine.started_at, engine.last_heard = time.time(), now
        self._hearts.follow(name)
        self._edge.hub.admit_engine(engine, now)

    def heard(self, name: bytes, now: float) -> None:
        """An engine says that its output is heard."""
        joining = self._joining.get(name)
        if joining is not None:
            self._joining[name] = joining._replace(is_heard=True)
            if joining.beaten_at is not None:
                self.pong(name, now)

    def silent(self, name: bytes, now: float) -> None:
        """See `heartbeat.Owner`: no new work. Stock clients are not told: they would fail at once what it has, and may still do."""
        engine = self._edge.hub.engines.get(name)
        if engine is not None:
            self._edge.hub.watch.engine_unlinked(engine, now)

    def woken(self, name: bytes, now: float) -> None:
        """See `heartbeat.Owner`."""
        engine = self._edge.hub.engines.get(name)
        if engine is not None and name not in self._leaving:
            self._edge.hub.watch.engine_attached(engine, now)

    def given_up(self, name: bytes, now: float) -> None:
        """See `heartbeat.Owner`: it may come back, its work is done elsewhere."""
        engine = self._edge.hub.engines.get(name)
        if engine is None:
            return
        seconds = MISSES * self._edge.ping + self._hearts.grace
        cause = f"its heart has not beaten for some {seconds:.3g} s"
        self._edge.hub.watch.engine_exited(engine, Loss(cause), now)

    def _missing(self, name: bytes, end: Loss, now: float) -> None:
        """An engine of an earlier controller does not come; what it had ends with it, or is done elsewhere."""
        self._expected.discard(name)
        self._edge.hub.has_other_places = True
        if name in self._given_up and name not in self._edge.hub.engines:
            engine, tasks = self._engine(self._given_up[name], name), self._edge.tasks
            if tasks.ledger is not None:
                tasks.ledger.engine_missing(engine, end, now)
            tasks.recovery.engine_settled(engine.id)

    def _engine(self, wire_id: int, name: bytes) -> Engine:
        engine = Engine(wire_id, name)
        engine.door = self._door
        engine.engine_set, engine.slot = ENGINE_SET, wire_id
        return engine

    def _give_up(self, name: bytes, wire_id: int) -> None:
        self._given_up[name] = wire_id
        self._edge.hub.keep_id(wire_id)
        if len(self._given_up) > MAX_GIVEN_UP:
            _, forgotten = self._given_up.popitem(last=False)
            self._edge.hub.break_promise(forgotten)

    def lost(self, engine: Engine) -> None:
        """The hub has it no more. Where nobody has proof of its end, it may come back."""
        if engine.uuid in self._ended:
            self._ended.discard(engine.uuid)
        else:
            self._give_up(engine.uuid, engine.id)
        self._hearts.forget(engine.uuid)
        self._leaving.pop(engine.uuid, None)
        self._told.pop(engine.uuid, None)

    # --- time ---

    def next_deadline(self) -> float:
        """When `tick` is due."""
        due = self._hearts.next_deadline()
        for at, _ in self._leaving.values():
            due = min(due, at)
        return due

    def tick(self, now: float) -> None:
        """Let time pass."""
        for name, (at, end) in list(self._leaving.items()):
            engine = self._edge.hub.engines.get(name)
            if engine is not None and (now >= at or not self._edge.tasks.is_busy(engine)):
                self._edge.hub.watch.engine_exited(engine, end, now)
        if now >= self._hearts.next_deadline():
            for name in [name for name, joining in self._joining.items() if joining.until <= now]:
                log.warning("stock engine %s registered and never beat: forgotten", name.decode("ascii"))
                self._let_go(name)
            if self._expected and self._hearts.pings_sent > EXPECTED_BEATS:
                for name in list(self._expected):
                    self._missing(name, Loss("its heart does not beat for the present controller"), now)
        self._hearts.tick(now)

    def _let_go(self, name: bytes) -> None:
        self._edge.hub.break_promise(self._joining.pop(name).wire_id)

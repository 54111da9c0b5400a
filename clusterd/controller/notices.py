"""Tells who wants to know: engines that came, changed or went, and how agents stand. It decides nothing.

What changes in one turn travels in one notice. A client has asked for notices when it has asked for the list of engines.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from clusterd.core.wire.messages import AgentNotice, EngineGone, EngineInfo, EnginesChanged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from clusterd.controller.connection import Connection
    from clusterd.controller.hub import Hub
    from clusterd.controller.peers import Agent, Engine
    from clusterd.controller.work import Work

# Bytes of one engine in a notice, and of one slot of an agent, near enough.
INFO_BYTES = 200
SLOT_BYTES = 64


class Notices:
    """What is to be announced at the end of this turn.

    Args:
        hub: knows who is there.
        work: knows who is busy.
    """

    def __init__(self, hub: Hub, work: Work) -> None:
        self._hub = hub
        self._work = work
        self._changed: dict[int, Engine] = {}
        self._gone: list[EngineGone] = []
        # Told at once, not at the end of the turn: before any work of a new engine, and before what becomes of the work of a lost one.
        self.on_came: Callable[[Engine], None] = _nothing
        self.on_gone: Callable[[Engine], None] = _nothing
        # Wire ids of all and only engines that `on_came` was told of and `on_gone` was not.
        self._told: set[int] = set()

    def info(self, engine: Engine) -> EngineInfo:
        """What clients see of an engine."""
        if engine.is_suspect:
            state = "suspect"
        elif engine.is_draining:
            state = "draining"
        else:
            state = "busy" if self._work.is_busy(engine) else "idle"
        return EngineInfo(
            engine.id,
            engine.uuid,
            engine.engine_set,
            engine.slot,
            engine.agent,
            engine.host,
            engine.pid,
            engine.python,
            state,
            engine.started_at,
        )

    def changed(self, engine: Engine) -> None:
        """Announce an engine's state."""
        if engine.id in self._hub.engines_by_id:
            self._changed[engine.id] = engine
            if engine.id not in self._told:
                self._told.add(engine.id)
                self.on_came(engine)

    def gone(self, engine: Engine, cause: str, *, is_wanted: bool = False) -> None:
        """Announce the end of an engine."""
        self._changed.pop(engine.id, None)
        if engine.id in self._told:
            self._told.discard(engine.id)
            self.on_gone(engine)
        gone = EngineGone(engine.id, engine.uuid, engine.engine_set, engine.slot, cause, is_wanted)
        self._gone.append(gone)

    def told(self) -> list[Engine]:
        """The engines that stock clients know of."""
        engines = self._hub.engines_by_id
        return [engines[wire_id] for wire_id in sorted(self._told) if wire_id in engines]

    def announce(self) -> None:
        """Send the changes of this turn to who subscribed."""
        if not self._changed and not self._gone:
            return
        notice = EnginesChanged([self.info(engine) for engine in self._changed.values()], self._gone)
        self._changed, self._gone = {}, []
        size = INFO_BYTES * (len(notice.added) + len(notice.removed))
        for client in self._hub.clients.values():
            if client.is_subscribed and client.control is not None:
                client.control.say(notice, size)

    def agent(self, agent: Agent, event: str, to: Iterable[Connection] | None = None) -> None:
        """Tell operators (or those in `to`) how an agent stands."""
        notice = AgentNotice(
            event,
            agent.launch,
            agent.engine_set,
            agent.host,
            agent.pid,
            agent.generation,
            agent.slots,
            agent.warnings,
            time.time(),
        )
        for control in self.operators() if to is None else to:
            control.say(notice, SLOT_BYTES * (len(agent.slots) + 4))

    def operators(self) -> list[Connection]:
        """Control connections of the subscribed operators."""
        return [
            client.control
            for client in self._hub.clients.values()
            if client.is_operator and client.is_subscribed and client.control is not None
        ]


def _nothing(_engine: Engine) -> None:
    """Nobody wants to know at once."""

"""Watches who lives: tells `core.liveness` what connections, agents and processes show, and performs what it concludes.

Bytes count as life; so does an open connection on this host, where the kernel tells at once when a process is gone: an idle engine or
a stopped client says nothing for hours. It decides nothing but how long a suspect without an agent waits before its
process is looked at: the next agent knows more about a death than its absence.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from clusterd.controller.peers import Loss
from clusterd.core.liveness import Liveness, actions, events
from clusterd.core.wire.messages import InventoryRequest
from clusterd.system import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from clusterd.controller.hub import Hub
    from clusterd.controller.peers import Agent, Client, Engine
    from clusterd.controller.work import Work

log = logging.getLogger(__name__)
# A daemon starts a dead agent again within a second or two, and that one tells how its engines ended.
PROBE_AFTER = 15.0


class Watch:
    """The glue between hub and liveness.

    Args:
        hub: knows who is there; loses engines and clients.
        work: is told who is suspect.
        liveness: judges.
    """

    def __init__(self, hub: Hub, work: Work, liveness: Liveness) -> None:
        self._hub = hub
        self._work = work
        self._liveness = liveness
        # When `sweep` was done last: what was heard since then is told in the next one.
        self._swept = float("-inf")
        self._perform_by_type: dict[type, Callable[[Any, float], None]] = {
            actions.Suspect: self._suspect,
            actions.Quarantine: self._quarantine,
            actions.Trust: self._trust,
            actions.Lose: self._lose,
            actions.AskAgent: self._ask_agent,
            actions.AskDaemon: self._look,
            actions.DetachClient: self._nothing,
            actions.ReturnClient: self._nothing,
            actions.ForgetClient: self._forget_client,
        }

    # --- from the hub ---

    def engine_attached(self, engine: Engine, now: float) -> None:
        """It has a connection."""
        self._tell(events.EngineAttached(engine.id, engine.agent or None), now)

    def engine_expected(self, engine: Engine, now: float) -> None:
        """Its agent says that it lives; it has no connection yet."""
        self._tell(events.EngineAttached(engine.id, engine.agent or None), now)
        self._tell(events.EngineUnlinked(engine.id), now)

    def engine_unlinked(self, engine: Engine, now: float) -> None:
        """Its connection is gone."""
        self._tell(events.EngineUnlinked(engine.id), now)

    def engine_exited(self, engine: Engine, end: Loss, now: float) -> None:
        """There is proof of its end."""
        self._tell(events.EngineExited(engine.id, *end), now)

    def engine_left(self, engine: Engine, now: float) -> None:
        """It is dealt with already."""
        self._tell(events.EngineLeft(engine.id), now)

    def agent_heard(self, agent: Agent, now: float) -> None:
        """Something came from it."""
        self._tell(events.AgentHeard(agent.launch), now)

    def agent_lists(self, agent: Agent, uuids: Iterable[bytes], now: float) -> None:
        """It says that these engines live."""
        for uuid in uuids:
            engine = self._hub.engines.get(uuid)
            if engine is not None:
                self._tell(events.EngineReported(engine.id, agent.launch), now)

    def agent_unlinked(self, agent: Agent, now: float) -> None:
        """Its connection is gone."""
        self._tell(events.AgentUnlinked(agent.launch), now)

    def agent_gone(self, agent: Agent, now: float) -> None:
        """It will not come back."""
        self._tell(events.AgentGone(agent.launch), now)

    def client_attached(self, client: Client, now: float) -> None:
        """It has a connection (more)."""
        self._tell(events.ClientAttached(client.handle), now)

    def client_unlinked(self, client: Client, now: float) -> None:
        """It has none any more."""
        self._tell(events.ClientUnlinked(client.handle), now)

    def client_left(self, client: Client, now: float) -> None:
        """It is dealt with already."""
        self._tell(events.ClientLeft(client.handle), now)

    def why(self, engine: Engine, now: float) -> str:
        """The evidence about an engine, in a sentence."""
        return self._liveness.why(engine.id, now)

    # --- time ---

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        return self._liveness.next_deadline()

    def tick(self, now: float) -> None:
        """Let time pass."""
        deadline = self._liveness.next_deadline()
        if deadline is not None and now >= deadline:
            self._tell(events.Tick(), now)

    def sweep(self, now: float) -> None:
        """Tell who was heard since the last time, and give up clients whose process is gone; about once a second, before `tick`."""
        since, self._swept = self._swept, now
        for engine in list(self._hub.engines.values()):
            connection = engine.connection
            if engine.door is not None:
                # Its heart is watched by whoever keeps the door, with a period of its own: it says who is silent.
                self._tell(events.EngineHeard(engine.id), now)
            elif connection is not None and (connection.endpoint.tells_of_ends or engine.last_heard > since):
                self._tell(events.EngineHeard(engine.id), now)
        for client in list(self._hub.clients.values()):
            connection = client.data or client.control
            if connection is None:
                if (client.is_expected or _is_gone(client)) and not self._work.keeps(client):
                    self._hub.client_left(client, "its process is gone", now)
            elif connection.endpoint.tells_of_ends or client.last_heard > since:
                self._tell(events.ClientHeard(client.handle), now)

    # --- what liveness concludes ---

    def _tell(self, event: events.AnyEvent, now: float) -> None:
        for action in self._liveness.handle(event, now):
            self._perform_by_type[type(action)](action, now)

    def _suspect(self, action: actions.Suspect, now: float) -> None:
        engine = self._hub.engines_by_id[action.engine]
        engine.suspect_since = now
        self._hub.notices.changed(engine)
        self._work.engine_suspect(engine, now)
        log.warning("engine %d (%s) is suspect: %s", engine.id, engine.name, action.why)

    def _quarantine(self, action: actions.Quarantine, now: float) -> None:
        engine = self._hub.engines_by_id[action.engine]
        log.warning("engine %d (%s) is back, and gets no work for now: %s", engine.id, engine.name, action.why)
        if engine.suspect_since is None:
            engine.suspect_since = now
            self._work.engine_suspect(engine, now)

    def _trust(self, action: actions.Trust, now: float) -> None:
        engine = self._hub.engines_by_id[action.engine]
        engine.suspect_since = None
        self._hub.notices.changed(engine)
        self._work.engine_returned(engine, now)

    def _lose(self, action: actions.Lose, now: float) -> None:
        engine = self._hub.engines_by_id[action.engine]
        end = Loss(action.cause, action.last_output, action.running, is_wanted=action.is_wanted)
        self._hub.lose_engine(engine, end, now)

    def _ask_agent(self, action: actions.AskAgent, _now: float) -> None:
        agent = self._hub.agents.get(action.agent)
        if agent is not None and agent.connection is not None:
            agent.connection.say(InventoryRequest(), 8)

    def _look(self, action: actions.AskDaemon, now: float) -> None:
        engine = self._hub.engines_by_id[action.engine]
        if engine.process is None or engine.suspect_since is None or now - engine.suspect_since < PROBE_AFTER:
            return
        seen = process.probe(engine.process)
        if seen != "unknown":
            evidence = f"process {engine.process.pid} was {'there' if seen == 'alive' else 'gone'}"
            self._tell(events.ProcessSeen(engine.id, seen == "alive", evidence), now)

    def _forget_client(self, action: actions.ForgetClient, now: float) -> None:
        client = self._hub.clients_by_handle.get(action.client)
        if client is not None and self._work.keeps(client):
            client.is_expected = True
        elif client is not None:
            self._hub.client_left(client, "it was away for too long", now)

    def _nothing(self, _action: Any, _now: float) -> None:
        """The scheduler goes on with the tasks of a client that is away, as with those of one that is not."""


def _is_gone(client: Client) -> bool:
    return client.process is not None and process.probe(client.process) == "gone"

"""Who is there: attaches clients, engines and agents, takes them back after a reconnect, and tells who wants to know.

A peer is who its uuid and token prove (PROTOCOL.md section 3). Invariants: a wire id names one incarnation of one engine for ever;
an engine leaves only when its agent says that it is dead, it says goodbye, or its place is taken by proof; losing
a connection alone makes it suspect, nothing more.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from clusterd.controller import recovery
from clusterd.controller.peers import Agent, Client, Engine, Loss
from clusterd.core.wire import handshake
from clusterd.core.wire.messages import (
    AgentNotice,
    AttachAgent,
    AttachClient,
    Attached,
    AttachEngine,
    EngineGone,
    EngineInfo,
    EnginesChanged,
    EngineState,
)
from clusterd.system import process

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterd.controller.connection import Connection
    from clusterd.controller.wire_ids import WireIds
    from clusterd.controller.work import Work

log = logging.getLogger(__name__)
UUID_SIZE = 16
# A client that is silent for longer will not come back: what it has queued is ended. Living clients ping every second.
CLIENT_GRACE = 300.0
# How long an engine without an agent may be without a connection.
UNWATCHED_GRACE = 30.0


class Hub:
    """All peers of the controller.

    Args:
        work: told about clients and engines that come and go.
        token_secret: of this controller's files.
        ids: gives wire ids that were never used in this life of the cluster.
    """

    def __init__(self, work: Work, token_secret: bytes, ids: WireIds) -> None:
        self._work = work
        self._secret = token_secret
        self._ids = ids
        self._next_handle = 0
        # All and only clients that may still get results, by uuid and by handle.
        self.clients: dict[bytes, Client] = {}
        self.clients_by_handle: dict[int, Client] = {}
        # All and only engines that are not known to be dead, by uuid and by wire id.
        self.engines: dict[bytes, Engine] = {}
        self.engines_by_id: dict[int, Engine] = {}
        # Agents by launch id, also those whose connection is lost; one goes when another takes over its engines or says goodbye.
        self.agents: dict[str, Agent] = {}
        # True when `places` has changed since somebody cleared this.
        self.has_other_places = False
        # Changes not yet announced.
        self._added: dict[int, Engine] = {}
        self._removed: list[EngineGone] = []

    @property
    def places(self) -> list[str]:
        """Where there are agents, also those whose connection is lost: what a successor waits for."""
        return sorted({recovery.place(agent.engine_set, agent.host) for agent in self.agents.values()})

    # --- attach ---

    def attach(self, connection: Connection, message: Any, now: float) -> None:
        """Bind a connection to who its first message proves.

        Raises:
            Refused: it is no Attach, or the token is wrong.
        """
        match message:
            case AttachClient():
                self._attach_client(connection, message, now)
            case AttachEngine():
                self._attach_engine(connection, message, now)
            case AttachAgent():
                self._attach_agent(connection, message, now)
            case _:
                raise handshake.Refused("malformed", f"{type(message).__name__} before Attach")

    def _attach_client(self, connection: Connection, message: AttachClient, now: float) -> None:
        client = self.clients.get(message.uuid)
        # One token for both channels of a client, whatever its role.
        self._check("client", message.uuid, message.token, has_spoken=client is not None and client.has_spoken)
        is_known = client is not None
        if client is None:
            self._next_handle += 1
            client = Client(self._next_handle, message.uuid, now)
            self.clients[message.uuid] = self.clients_by_handle[client.handle] = client
        client.label, client.user, client.host, client.pid = message.label, message.user, message.host, message.pid
        client.is_operator = connection.role == "operator"
        client.last_heard = now
        client.process = connection.endpoint.process_of(connection)
        connection.owner = client
        attached = Attached(handshake.token_of(self._secret, "client", message.uuid), client.handle, is_known)
        if connection.endpoint.name == "client-data":
            _replace(client.data)
            waiting: Any = client.data.take_unsent() if client.data is not None else client.undelivered
            client.undelivered, client.undelivered_bytes = [], 0
            client.data = connection
            connection.say(attached, 32)
            connection.close_batch()
            connection.keeps_unacked = True
            connection.inherit(waiting)
            self._work.client_attached(client, now)
        else:
            _replace(client.control)
            client.control = connection
            connection.say(attached, 32)
        log.info("attached: %s on %s", client.name, connection.endpoint.name)

    def _attach_engine(self, connection: Connection, message: AttachEngine, now: float) -> None:
        engine = self.engines.get(message.uuid)
        self._check("engine", message.uuid, message.token, has_spoken=engine is not None and engine.has_spoken)
        is_new = engine is None
        if engine is None:
            wanted = message.wanted_id
            is_free = wanted >= 0 and wanted not in self.engines_by_id
            wire_id = wanted if is_free else self._ids.take(message.slot, self.engines_by_id)
            engine = Engine(wire_id, message.uuid)
            self.engines[message.uuid] = self.engines_by_id[wire_id] = engine
        elif engine.connection is not None:
            _replace(engine.connection)
        engine.engine_set, engine.slot = message.engine_set, message.slot
        # An engine knows only the agent that forked it; the one that has adopted it since has told us itself.
        if engine.agent not in self.agents:
            engine.agent = message.agent
        engine.host, engine.pid, engine.python = message.host, message.pid, message.python
        engine.software, engine.started_at = message.software, message.started_at
        engine.is_suspect, engine.suspect_since = False, None
        engine.functions.clear()
        connection.owner = engine
        engine.connection = connection
        connection.say(Attached(handshake.token_of(self._secret, "engine", message.uuid), engine.id, not is_new), 32)
        self._added[engine.id] = engine
        self._work.engine_attached(engine, message, is_new=is_new, now=now)
        log.info("registered: engine %d is %s (pid %d)", engine.id, engine.name, engine.pid)

    def _attach_agent(self, connection: Connection, message: AttachAgent, now: float) -> None:
        agent = self.agents.get(message.launch)
        is_same = agent is not None and agent.uuid == message.uuid
        self._check("agent", message.uuid, message.token, has_spoken=is_same and agent is not None and agent.has_spoken)
        if agent is None or not is_same:
            if agent is not None and agent.connection is not None:
                _replace(agent.connection)
            agent = self.agents[message.launch] = Agent(message.launch, message.uuid, now)
        elif agent.connection is not None:
            _replace(agent.connection)
        agent.engine_set, agent.host, agent.pid = message.engine_set, message.host, message.pid
        agent.generation, agent.last_heard = message.generation, now
        connection.owner = agent
        agent.connection = connection
        connection.say(Attached(handshake.token_of(self._secret, "agent", message.uuid), -1, is_same), 32)
        self.has_other_places = True
        self._adopt_engines(agent, {state.uuid for state in message.engines}, is_complete=message.is_complete)
        for state in message.engines:
            self._expect_engine(agent, state, now)
        self._work.agent_attached(recovery.place(agent.engine_set, agent.host))
        self.notify_agent(agent, "attached")
        log.info("attached: agent of %s on %s (pid %d)", agent.engine_set, agent.host, agent.pid)

    def _adopt_engines(self, agent: Agent, present: set[bytes], *, is_complete: bool) -> None:
        # What this agent holds is its own now; what its predecessor on this host held and it does not find is dead:
        # an agent of a set attaches only after it has looked at every identity file there is of it.
        for uuid in present:
            engine = self.engines.get(uuid)
            if engine is not None and engine.agent != agent.launch:
                self._forget_predecessor(engine.agent)
                engine.agent = agent.launch
        agent.missing = []
        if not is_complete:
            return
        for engine in self.engines.values():
            if (
                engine.uuid in present
                or not engine.agent
                or engine.engine_set != agent.engine_set
                or engine.host != agent.host
            ):
                continue
            predecessor = self.agents.get(engine.agent)
            if engine.agent == agent.launch or predecessor is None or predecessor.connection is None:
                agent.missing.append(engine)

    def agent_reported(self, agent: Agent, now: float) -> None:
        """It has said all that it knew when it attached: how those ended that it does not hold, too, if it could tell."""
        missing, agent.missing = agent.missing, []
        for engine in missing:
            if self.engines.get(engine.uuid) is engine:
                self.hear_out(engine, now)
                self.lose_engine(engine, Loss("its process was gone when a new agent looked for it"), now)
        self.notify_agent(agent, "report")

    def _expect_engine(self, agent: Agent, state: EngineState, now: float) -> None:
        # An engine with a wire id that this controller does not know was registered with its predecessor. It may be in the middle of
        # a long task: it is taken as suspect, with what its page says it runs, until it has time to attach.
        if state.uuid in self.engines or state.id < 0 or state.id in self.engines_by_id:
            return
        engine = Engine(state.id, state.uuid)
        self.engines[state.uuid] = self.engines_by_id[state.id] = engine
        engine.engine_set, engine.slot, engine.agent = agent.engine_set, state.slot, agent.launch
        engine.host, engine.pid = agent.host, state.pid
        engine.is_suspect, engine.suspect_since = True, now
        self._added[engine.id] = engine
        self._work.engine_expected(engine, state, now)

    def _forget_predecessor(self, launch: str) -> None:
        predecessor = self.agents.get(launch)
        if predecessor is not None and predecessor.connection is None:
            del self.agents[launch]

    def _check(self, role: str, uuid: bytes, token: bytes, *, has_spoken: bool) -> None:
        if len(uuid) != UUID_SIZE:
            raise handshake.Refused("malformed", f"a uuid of {len(uuid)} bytes")
        is_proven = handshake.is_token(self._secret, role, uuid, token) if token else not has_spoken
        if not is_proven:
            raise handshake.Refused(
                "token",
                f"this {role} could not prove that it is {uuid.hex()}",
                "Start it anew: a new incarnation needs no token.",
            )

    # --- connections that end ---

    def disconnected(self, connection: Connection, reason: str, now: float) -> None:
        """An attached connection is gone; its owner may come back."""
        owner = connection.owner
        match owner:
            case Client():
                if owner.data is connection:
                    owner.undelivered_bytes = connection.backlog_bytes
                    owner.undelivered = list(connection.take_unsent())
                    owner.data = None
                    self._work.client_disconnected(owner, now)
                elif owner.control is connection:
                    owner.control = None
            case Engine():
                if owner.connection is connection:
                    owner.connection = None
                    owner.is_suspect, owner.suspect_since = True, now
                    self._added[owner.id] = owner
                    self._work.engine_suspect(owner, now)
                    log.warning("engine %d (%s) lost its connection: %s", owner.id, owner.name, reason)
            case Agent():
                self.agent_disconnected(owner, connection, reason)

    def agent_disconnected(self, agent: Agent, connection: Connection, reason: str) -> None:
        """The agent's link is gone; its engines go on."""
        if agent.connection is connection:
            agent.connection = None
            self.notify_agent(agent, "lost")
            log.warning("lost the agent of %s on %s (%s); its engines go on", agent.engine_set, agent.host, reason)

    def client_left(self, client: Client, reason: str, now: float) -> None:
        """A client said goodbye, or its grace is over."""
        if self.clients.pop(client.uuid, None) is None:
            return
        del self.clients_by_handle[client.handle]
        for connection in (client.data, client.control):
            if connection is not None:
                connection.endpoint.forget(connection)
        client.data = client.control = None
        self._work.client_gone(client, reason, now)
        log.info("left: %s (%s)", client.name, reason)

    def agent_left(self, agent: Agent) -> None:
        """An agent said goodbye: it has no engines any more."""
        if self.agents.get(agent.launch) is agent:
            del self.agents[agent.launch]
            self.has_other_places = True
        if agent.connection is not None:
            agent.connection.endpoint.forget(agent.connection)
            agent.connection = None
        self.notify_agent(agent, "left")

    def hear_out(self, engine: Engine, now: float) -> None:
        """Deal with what a dead engine sent before it died and nobody has read."""
        if engine.connection is not None:
            engine.connection.endpoint.hear_out(engine.connection, now)

    def lose_engine(self, engine: Engine, end: Loss, now: float) -> None:
        """The engine is dead, and this is how."""
        if self.engines.pop(engine.uuid, None) is None:
            return
        del self.engines_by_id[engine.id]
        if engine.connection is not None:
            engine.connection.endpoint.forget(engine.connection)
            engine.connection = None
        self._added.pop(engine.id, None)
        self._removed.append(EngineGone(engine.id, engine.uuid, engine.engine_set, engine.slot, end.cause))
        self._work.engine_lost(engine, end, now)
        log.info("gone: engine %d (%s): %s", engine.id, engine.name, end.cause)

    def sweep(self, now: float) -> None:
        """Give up who will not come back: silent clients, and engines that nobody watches."""
        for client in list(self.clients.values()):
            if now - client.last_heard > CLIENT_GRACE:
                self.client_left(client, f"nothing was heard of it for {CLIENT_GRACE:.0f} s", now)
            elif client.data is None and client.control is None and _is_gone(client):
                self.client_left(client, "its process is gone", now)
        for engine in list(self.engines.values()):
            # An engine with an agent is dead when the agent says so, never before; without one nobody ever will.
            since = engine.suspect_since
            if since is not None and not engine.agent and now - since > UNWATCHED_GRACE:
                cause = f"its connection was gone for {UNWATCHED_GRACE:.0f} s, and no agent watches its process"
                self.lose_engine(engine, Loss(cause), now)

    # --- telling ---

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

    def mark_changed(self, engine: Engine) -> None:
        """Announce the engine's state at the end of this turn."""
        if engine.id in self.engines_by_id:
            self._added[engine.id] = engine

    def announce(self) -> None:
        """Send the changes of this turn to who subscribed, in one notice."""
        if not self._added and not self._removed:
            return
        notice = EnginesChanged([self.info(engine) for engine in self._added.values()], self._removed)
        self._added, self._removed = {}, []
        size = 200 * (len(notice.added) + len(notice.removed))
        for client in self.clients.values():
            if client.is_subscribed and client.control is not None:
                client.control.say(notice, size)

    def notify_agent(self, agent: Agent, event: str) -> None:
        """Tell operators how an agent stands."""
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
        for control in self.operator_controls():
            control.say(notice, 64 * (len(agent.slots) + 4))

    def operator_controls(self) -> Iterable[Connection]:
        """Control connections of the subscribed operators."""
        return [
            client.control
            for client in self.clients.values()
            if client.is_operator and client.is_subscribed and client.control is not None
        ]


def _is_gone(client: Client) -> bool:
    return client.process is not None and process.probe(client.process) == "gone"


def _replace(connection: Connection | None) -> None:
    if connection is not None:
        connection.endpoint.forget(connection)

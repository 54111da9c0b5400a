"""Who is there: attaches clients, engines and agents, and takes them back after a reconnect.

A peer is who its uuid and token prove (PROTOCOL.md section 3). Who lives is judged elsewhere (`watch`), who is told of it, too
(`notices`). Invariants: a wire id names one incarnation of one engine for ever; an engine leaves only when liveness says that it is
dead, or it says goodbye; losing a connection alone makes it suspect, nothing more.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from clusterd.controller import recovery
from clusterd.controller.notices import Notices
from clusterd.controller.peers import Agent, Client, Engine, Loss
from clusterd.controller.watch import Watch
from clusterd.core.liveness import Liveness
from clusterd.core.wire import handshake
from clusterd.core.wire.messages import (
    AttachAgent,
    AttachClient,
    Attached,
    AttachEngine,
    EngineState,
)

if TYPE_CHECKING:
    from clusterd.controller.connection import Connection
    from clusterd.controller.doors import ClientDoor
    from clusterd.controller.wire_ids import WireIds
    from clusterd.controller.work import Work

log = logging.getLogger(__name__)
UUID_SIZE = 16
# Letters of what a peer says about itself, for logs and `status`.
MAX_WORD = 256


class Hub:
    """All peers of the controller.

    Args:
        work: told about clients and engines that come and go.
        token_secret: of this controller's files.
        ids: gives wire ids that were never used in this life of the cluster.
        liveness: judges who lives.
    """

    def __init__(self, work: Work, token_secret: bytes, ids: WireIds, liveness: Liveness | None = None) -> None:
        self._work = work
        self._secret = token_secret
        self._ids = ids
        self._next_handle = 0
        # What a client has not acknowledged is in the store, and said anew out of it: nothing is kept here.
        self.has_ledger = False
        # All and only clients that may still get results, by uuid and by handle.
        self.clients: dict[bytes, Client] = {}
        self.clients_by_handle: dict[int, Client] = {}
        # All and only engines that are not known to be dead, by uuid and by wire id.
        self.engines: dict[bytes, Engine] = {}
        self.engines_by_id: dict[int, Engine] = {}
        # Ids of engines that have registered through a door and cannot be reached yet.
        self._promised: set[int] = set()
        # Agents by launch id, also those whose connection is lost; one goes when another takes over its engines or says goodbye.
        self.agents: dict[str, Agent] = {}
        # True when `places`, or who has come through a door, has changed since somebody cleared this.
        self.has_other_places = False
        # True when an engine has come through a door: it will not say again who it is, so the next controller must know it.
        self.has_other_guests = False
        self.notices = Notices(self, work)
        self.watch = Watch(self, work, liveness or Liveness())

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
        client.label, client.user, client.host = map(_word, (message.label, message.user, message.host))
        client.pid = message.pid
        client.last_heard = now
        client.process = connection.endpoint.process_of(connection)
        connection.owner = client
        attached = Attached(handshake.token_of(self._secret, "client", message.uuid), client.handle, is_known)
        if connection.endpoint.name == "client-data":
            _replace(client.data)
            waiting: Any = client.data.take_unsent() if client.data is not None else client.undelivered
            if self.has_ledger:
                waiting = ()
            client.undelivered, client.undelivered_bytes = [], 0
            client.data = connection
            client.is_expected = False
            connection.say_at_once(attached)
            connection.keeps_unacked = True
            connection.inherit(waiting)
            self._work.client_attached(client, now)
        else:
            _replace(client.control)
            client.control = connection
            # Only on its control connection can it do what operators do.
            client.is_operator = connection.role == "operator"
            connection.say(attached, 32)
        self.watch.client_attached(client, now)
        log.info("attached: %s on %s", client.name, connection.endpoint.name)

    def expect_client(self, uuid: bytes, now: float) -> Client:
        """A client that is known from the store; it has not attached to this controller, and perhaps never will."""
        self._next_handle += 1
        client = self.clients.get(uuid) or Client(self._next_handle, uuid, now)
        self.clients[uuid] = self.clients_by_handle[client.handle] = client
        client.has_spoken = client.is_expected = True
        return client

    def admit_client(self, uuid: bytes, door: ClientDoor, now: float) -> Client:
        """Take in a client that came through a door. It has no connection, and is judged by nobody but the door."""
        self._next_handle += 1
        client = Client(self._next_handle, uuid, now)
        client.door = door
        self.clients[uuid] = self.clients_by_handle[client.handle] = client
        return client

    def _attach_engine(self, connection: Connection, message: AttachEngine, now: float) -> None:
        engine = self.engines.get(message.uuid)
        self._check("engine", message.uuid, message.token, has_spoken=engine is not None and engine.has_spoken)
        is_new = engine is None
        if engine is None:
            is_free = message.wanted_id not in self._promised
            has_its_wish = is_free and self._ids.claim(message.wanted_id, self.engines_by_id)
            wire_id = message.wanted_id if has_its_wish else self._ids.take(message.slot, self.engines_by_id)
            engine = Engine(wire_id, message.uuid)
            self.engines[message.uuid] = self.engines_by_id[wire_id] = engine
        elif engine.connection is not None:
            _replace(engine.connection)
        engine.engine_set, engine.slot = _word(message.engine_set), message.slot
        # An engine knows only the agent that forked it; the one that has adopted it since has told us itself.
        if engine.agent not in self.agents:
            engine.agent = message.agent
        engine.host, engine.pid, engine.python = _word(message.host), message.pid, _word(message.python)
        engine.started_at, engine.last_heard = message.started_at, now
        engine.process = connection.endpoint.process_of(connection)
        engine.functions.clear()
        connection.owner = engine
        engine.connection = connection
        connection.say_at_once(
            Attached(handshake.token_of(self._secret, "engine", message.uuid), engine.id, not is_new)
        )
        self.notices.changed(engine)
        self._work.engine_attached(engine, message, is_new=is_new, now=now)
        self.watch.engine_attached(engine, now)
        log.info(
            "registered: engine %d is %s (pid %d, %s)", engine.id, engine.name, engine.pid, _word(message.software)
        )

    def promise_id(self, wanted: int) -> int:
        """An id for an engine that will come through a door: the one that it wants (-1: any), if that is free."""
        if wanted in self._promised or not self._ids.claim(wanted, self.engines_by_id):
            wanted = self._ids.take(-1, self.engines_by_id)
        self._promised.add(wanted)
        return wanted

    def keep_id(self, wire_id: int) -> None:
        """Whoever had this id is gone, and may come back."""
        self._promised.add(wire_id)

    def break_promise(self, wire_id: int) -> None:
        """It will not come."""
        self._promised.discard(wire_id)

    def admit_engine(self, engine: Engine, now: float) -> None:
        """An engine has come through its door."""
        self._promised.discard(engine.id)
        self.engines[engine.uuid] = self.engines_by_id[engine.id] = engine
        self.notices.changed(engine)
        self.has_other_places = self.has_other_guests = True
        self._work.engine_admitted(engine, now)
        self.watch.engine_attached(engine, now)
        log.info(
            "registered: engine %d is %s (%s)", engine.id, engine.name, _word(engine.uuid.decode("ascii", "replace"))
        )

    def _attach_agent(self, connection: Connection, message: AttachAgent, now: float) -> None:
        agent = self.agents.get(message.launch)
        is_same = agent is not None and agent.uuid == message.uuid
        self._check("agent", message.uuid, message.token, has_spoken=is_same and agent is not None and agent.has_spoken)
        if agent is None or not is_same:
            if agent is not None and agent.connection is not None:
                _replace(agent.connection)
            agent = self.agents[message.launch] = Agent(message.launch, message.uuid)
        elif agent.connection is not None:
            _replace(agent.connection)
        agent.engine_set, agent.host, agent.pid = _word(message.engine_set), _word(message.host), message.pid
        agent.generation = message.generation
        connection.owner = agent
        agent.connection = connection
        connection.say(Attached(handshake.token_of(self._secret, "agent", message.uuid), -1, is_same), 32)
        self.has_other_places = True
        self.watch.agent_heard(agent, now)
        self._adopt_engines(agent, {state.uuid for state in message.engines}, now, is_complete=message.is_complete)
        for state in message.engines:
            self._expect_engine(agent, state, now)
        self.notices.agent(agent, "attached")
        log.info("attached: agent of %s on %s (pid %d)", agent.engine_set, agent.host, agent.pid)

    def _adopt_engines(self, agent: Agent, present: set[bytes], now: float, *, is_complete: bool) -> None:
        # What this agent holds is its own now; what its predecessor on this host held and it does not find is dead:
        # an agent of a set attaches only after it has looked at every identity file there is of it.
        for uuid in present:
            engine = self.engines.get(uuid)
            if engine is not None and engine.agent != agent.launch:
                self._forget_predecessor(engine.agent, now)
                engine.agent = agent.launch
        self.watch.agent_lists(agent, present, now)
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
            self.hear_out(engine, now)
            if self.engines.get(engine.uuid) is not engine:
                continue
            if engine.connection is not None and engine.connection.endpoint.tells_of_ends:
                # The kernel says that it lives: it belongs to another agent of the set on this host, which is away.
                continue
            self.watch.engine_exited(engine, Loss("its process was gone when a new agent looked for it"), now)
        self.watch.agent_lists(agent, [slot.uuid for slot in agent.slots], now)
        self._forget_idle_predecessors(agent, now)
        # Not before: the deaths that it had to tell decide what becomes of tasks that are offered again.
        self._work.agent_reported(recovery.place(agent.engine_set, agent.host))
        self.notices.agent(agent, "report")

    def _expect_engine(self, agent: Agent, state: EngineState, now: float) -> None:
        # An engine with a wire id that this controller does not know was registered with its predecessor. It may be in the middle of
        # a long task: it is taken as suspect, with what its page says it runs, until it has time to attach.
        if state.uuid in self.engines or state.id < 0 or state.id in self.engines_by_id:
            return
        engine = Engine(state.id, state.uuid)
        self.engines[state.uuid] = self.engines_by_id[state.id] = engine
        engine.engine_set, engine.slot, engine.agent = agent.engine_set, state.slot, agent.launch
        engine.host, engine.pid = agent.host, state.pid
        self.notices.changed(engine)
        self._work.engine_expected(engine, state, now)
        self.watch.engine_expected(engine, now)

    def _forget_predecessor(self, launch: str, now: float) -> None:
        predecessor = self.agents.get(launch)
        if predecessor is not None and predecessor.connection is None:
            del self.agents[launch]
            self.watch.agent_gone(predecessor, now)

    def _forget_idle_predecessors(self, agent: Agent, now: float) -> None:
        # One is left behind by each agent that was killed when it had no engines for the next one to adopt.
        busy = {engine.agent for engine in self.engines.values()}
        for other in list(self.agents.values()):
            if (other.engine_set, other.host) == (agent.engine_set, agent.host) and other.launch not in busy:
                self._forget_predecessor(other.launch, now)

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
                    if self.has_ledger:
                        owner.undelivered, owner.undelivered_bytes = [], 0
                    owner.data = None
                    self._work.client_disconnected(owner, now)
                elif owner.control is connection:
                    owner.control = None
                if owner.data is None and owner.control is None:
                    self.watch.client_unlinked(owner, now)
            case Engine():
                if owner.connection is connection:
                    owner.connection = None
                    log.warning("engine %d (%s) lost its connection: %s", owner.id, owner.name, reason)
                    self.watch.engine_unlinked(owner, now)
            case Agent():
                if owner.connection is connection:
                    owner.connection = None
                    log.warning("lost the %s (%s); its engines go on", owner.name, reason)
                    self.notices.agent(owner, "lost")
                    self.watch.agent_unlinked(owner, now)

    def client_left(self, client: Client, reason: str, now: float) -> None:
        """A client said goodbye, or its grace is over."""
        if self.clients.pop(client.uuid, None) is None:
            return
        del self.clients_by_handle[client.handle]
        for connection in (client.data, client.control):
            if connection is not None:
                connection.endpoint.forget(connection)
        client.data = client.control = None
        self.watch.client_left(client, now)
        self._work.client_gone(client, reason, now)
        log.info("left: %s (%s)", client.name, reason)

    def agent_left(self, agent: Agent, now: float) -> None:
        """An agent said goodbye: it has no engines any more."""
        if self.agents.get(agent.launch) is agent:
            del self.agents[agent.launch]
            self.has_other_places = True
            self.watch.agent_gone(agent, now)
        if agent.connection is not None:
            agent.connection.endpoint.forget(agent.connection)
            agent.connection = None
        self.notices.agent(agent, "left")

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
        if engine.door is not None:
            self.has_other_places = True
            engine.door.lost(engine, now)
        self.watch.engine_left(engine, now)
        self.notices.gone(engine, end.cause, is_wanted=end.is_wanted)
        self._work.engine_lost(engine, end, now)
        log.info("gone: engine %d (%s): %s", engine.id, engine.name, end.cause)


def _word(text: str) -> str:
    """What a peer says about itself, fit for a line of a log or a table."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_WORD])


def _replace(connection: Connection | None) -> None:
    if connection is not None:
        connection.endpoint.forget(connection)

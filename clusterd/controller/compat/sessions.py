"""Stock clients as peers of the hub: one for each session id, told apart by nothing else.

Nobody says when a stock client ends: its sockets just go. So none is judged by liveness; one that has been silent for long and has nothing
unfinished is forgotten, and so is the most silent one when there are too many.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from clusterd.core.scheduler import events
from clusterd.errors import WireError

if TYPE_CHECKING:
    from collections import deque

    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.compat.outbox import OnEnd
    from clusterd.controller.doors import ClientDoor
    from clusterd.controller.peers import Client
    from clusterd.core.wire.jupyter import Header, Signer

MAX_TASKS: Final = 1_000_000
"""Unfinished tasks of one client. It has no way to be told to wait, and ipyparallel knows no bound: this is one on memory."""
MAX_TASK_BYTES: Final = 2 * 1024**3
MAX_SESSIONS: Final = 4096
MAX_IDLE: Final = 24 * 3600.0
_MAX_NAME: Final = 128


class Session:
    """One stock client.

    Attributes:
        client: as the hub knows it.
        tasks: how many of its tasks have no answer.
        last_heard: monotonic.
        waiting: by channel and route: (frames, bytes, who is told of their end) that the socket did not take.
        waiting_bytes: of all of them.
        held_bytes: of large messages that ZeroMQ holds for it.
        signer: the key that it has.
        way: channel and route by which its work came last, where it takes replies; None: it has sent none to this controller.
        is_due: the store may have replies that it was not sent; never true where nothing is durable.
    """

    __slots__ = (
        "client",
        "held_bytes",
        "is_due",
        "last_heard",
        "name",
        "signer",
        "tasks",
        "waiting",
        "waiting_bytes",
        "way",
    )

    def __init__(self, name: str, client: Client, signer: Signer, *, is_due: bool = False) -> None:
        self.name = name
        self.signer = signer
        self.client = client
        self.tasks = 0
        self.last_heard = client.last_heard
        self.waiting: dict[tuple[str, bytes], deque[tuple[list[Any], int, OnEnd | None]]] = {}
        self.waiting_bytes = 0
        self.held_bytes = 0
        self.way: tuple[str, bytes] | None = None
        self.is_due = is_due


class Sessions:
    """All stock clients.

    Args:
        edge: what the parts of the edge share.
        door: what their outcomes go through.
    """

    def __init__(self, edge: Edge, door: ClientDoor) -> None:
        self._edge = edge
        self._door = door
        # Both hold all and only sessions whose client the hub knows; the first in the order in which they were heard last.
        self._by_name: dict[str, Session] = {}
        self._by_handle: dict[int, Session] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def of(self, client: Client) -> Session | None:
        """The session of a client of the hub."""
        return self._by_handle.get(client.handle)

    def named(self, name: str) -> Session | None:
        """The session with this id."""
        return self._by_name.get(name)

    def all(self) -> list[Session]:
        """Every one."""
        return list(self._by_name.values())

    def heard(self, header: Header, now: float) -> Session:
        """The session that a message belongs to, which is made at its first one."""
        session = self._by_name.get(header.session)
        if session is None:
            session = self._admit(header, self._edge.heard_with, now)
        if session.signer is not self._edge.heard_with:
            if session.signer is self._edge.keys.present:
                raise WireError("a message of a stock client, signed with an earlier key than that client has")
            session.signer = self._edge.heard_with
        session.last_heard = session.client.last_heard = now
        return session

    def expected(self, header: Header, now: float) -> Session:
        """The session of an earlier controller's client; which key it has it will say."""
        keys = self._edge.keys
        return self._by_name.get(header.session) or self._admit(header, keys.earlier or keys.present, now)

    def _admit(self, header: Header, signer: Signer, now: float) -> Session:
        while len(self._by_name) >= MAX_SESSIONS:
            idle = [session for session in self._by_name.values() if not session.tasks]
            if not idle:
                raise WireError(f"there are {MAX_SESSIONS} stock clients with unfinished work, and no room for another")
            self._forget(min(idle, key=lambda session: session.last_heard), "there are too many stock clients", now)
        uuid = hashlib.blake2b(header.session.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        client = self._edge.hub.admit_client(uuid, self._door, now)
        client.label, client.user = "ipyparallel", header.username[:_MAX_NAME]
        self._edge.tasks.handle(events.ClientAttached(client.handle, MAX_TASKS, MAX_TASK_BYTES, True), now)
        # Where tasks are durable an earlier controller may owe it something.
        session = Session(header.session, client, signer, is_due=self._edge.gate is not None)
        self._by_name[session.name] = self._by_handle[client.handle] = session
        return session

    def tick(self, now: float) -> None:
        """Forget who has been silent for long."""
        for session in list(self._by_name.values()):
            if now - session.last_heard > MAX_IDLE and not session.tasks and not session.waiting:
                self._forget(session, "it was silent for long", now)

    def _forget(self, session: Session, reason: str, now: float) -> None:
        del self._by_name[session.name]
        del self._by_handle[session.client.handle]
        self._edge.hub.client_left(session.client, reason, now)

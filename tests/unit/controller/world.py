"""A whole controller, its servers replaced: peers speak to it in memory, and time passes when a test says so."""

from __future__ import annotations

import itertools
import os
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from clusterd.controller.main import Controller
from clusterd.controller.servers import PeerGone
from clusterd.controller.sockets import ENDPOINTS, Listening
from clusterd.core.model.launch import ControllerSpec
from clusterd.core.wire import codec, handshake
from clusterd.core.wire import messages as m

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from clusterd.core.wire.session import Session

ROLES = {"client-data": ("client", "data"), "engine-data": ("engine", "data"), "engine-control": ("agent", "control")}


class FakeServer:
    """One endpoint's server: what peers say is put into `inbox`, what they are told lies in `told`."""

    def __init__(self):
        self.inbox: list = []
        self.told: dict[bytes, list] = defaultdict(list)
        # Open connections; those that raise PeerGone when spoken to; those that do not read.
        self.open: set[bytes] = set()
        self.broken: set[bytes] = set()
        self.congested: set[bytes] = set()
        self.welcomed: set[bytes] = set()
        self.tells_of_ends = True

    def pollable(self):
        return -1

    def receive(self) -> Iterator:
        inbox, self.inbox = self.inbox, []
        for peer, parts, why in inbox:
            if parts is None or peer in self.open:
                yield peer, parts, why

    def drain(self, peer: bytes) -> Iterator:
        mine = [entry for entry in self.inbox if entry[0] == peer]
        self.inbox = [entry for entry in self.inbox if entry[0] != peer]
        yield from mine

    def send(self, peer: bytes, parts: Sequence) -> None:
        if peer in self.broken or peer not in self.open:
            raise PeerGone("it closed the connection")
        self.told[peer].append(list(parts))

    def process_of(self, _peer: bytes):
        return None

    def welcome(self, peer: bytes) -> None:
        self.welcomed.add(peer)

    def is_congested(self, peer: bytes) -> bool:
        return peer in self.congested

    def drop(self, peer: bytes) -> None:
        self.open.discard(peer)

    def expire(self, now: float) -> None:
        pass

    def close(self) -> None:
        pass


class Peer:
    """One connection to the controller."""

    numbers = itertools.count(1)

    def __init__(self, world: World, role: str, channel: str, uuid: bytes | None = None, key: bytes | None = None):
        self.world = world
        self.role, self.channel = role, channel
        self.endpoint = codec.ENDPOINT_OF[role, channel]
        self.server = world.servers[self.endpoint]
        self.id = next(self.numbers).to_bytes(8, "big")
        self.server.open.add(self.id)
        self.uuid = uuid or os.urandom(16)
        self.token = b""
        self.session: Session | None = None
        self.key = key = key or bytes.fromhex(
            world.controller._secrets.engine_key
            if role in {"engine", "agent"}
            else world.controller._secrets.client_key
        )
        self.handshake = handshake.PeerHandshake(key, role, channel, os.urandom(16), "test", has_digests=False)
        # Messages with their payload, as they came; those that came and were not looked at by `heard`.
        self._heard: list = []
        self.is_reset = False
        # What the Reset said.
        self.reason = ""

    # --- saying ---

    def send_raw(self, parts: Sequence) -> None:
        self.server.inbox.append((self.id, list(parts), ""))

    def say(self, *messages, payload: Sequence = ()) -> None:
        """Say it; the controller hears it in its next turn."""
        parts = self.session.seal(list(messages), list(payload))
        self.send_raw(parts)

    def greet(self) -> None:
        self.send_raw(self.handshake.hello())
        self.world.turn()
        (answer,) = self.server.told.pop(self.id)
        self.session = self.handshake.receive(answer)

    def attach(self, message=None):
        """Hello and Attach; the answer."""
        self.greet()
        self.say(message or self.attach_message())
        self.world.turn()
        heard = self.hear()
        answer = heard[0][0]
        self._heard[:0] = heard[1:]
        if isinstance(answer, m.Attached):
            self.token = answer.token
        return answer

    def attach_message(self, **fields):
        if self.role == "engine":
            about = {
                "engine_set": "engines",
                "slot": 0,
                "agent": "",
                "pid": 1,
                "host": "here",
                "python": "3.11",
                "software": "test",
            }
            return m.AttachEngine(self.uuid, self.token, **{**about, **fields})
        if self.role == "agent":
            about = {"launch": "l-0", "engine_set": "engines", "host": "here", "pid": 2, "generation": 0, "engines": []}
            return m.AttachAgent(self.uuid, self.token, **{**about, **fields})
        return m.AttachClient(self.uuid, self.token, **{"pid": 3, "host": "here", "user": "me", **fields})

    # --- hearing ---

    def read(self) -> None:
        """Read all that the controller has said; acknowledge it with the next word."""
        for parts in self.server.told.pop(self.id, []):
            if self.session is not None and (reset := self.handshake.reset_of(parts, self.session)):
                self.is_reset, self.reason = True, reset.reason
                continue
            content = self.session.open(parts[0], parts[1], parts[2:])
            at = 0
            for message in content.messages:
                count = getattr(message, "frames", 0)
                self._heard.append((message, parts[2 + at : 2 + at + count]))
                at += count

    def hear(self, kind=None) -> list:
        """(message, payload) of all that came (of one type) since the last time."""
        self.read()
        heard = [entry for entry in self._heard if kind is None or isinstance(entry[0], kind)]
        self._heard = [entry for entry in self._heard if entry not in heard]
        return heard

    def messages(self, kind=None) -> list:
        return [message for message, _ in self.hear(kind)]

    def acknowledge(self) -> None:
        self.read()
        self.send_raw(self.session.seal(()))

    def vanish(self) -> None:
        """The connection is gone, and the controller is told."""
        self.server.open.discard(self.id)
        self.server.inbox.append((self.id, None, "it closed the connection"))

    @property
    def is_open(self) -> bool:
        return self.id in self.server.open


class World:
    """The controller and all of its parts."""

    def __init__(self, root: Path, *, is_unix: bool = True, has_predecessor: bool = False, stock=None, **spec):
        self.now = time.monotonic()
        self.controller = Controller(
            msgspec.convert(
                {
                    "launch": "00000000-0",
                    "reuse": False,
                    "cluster": "test",
                    "profile_dir": str(root),
                    "runtime_dir": str(root),
                    "log_dir": str(root),
                    **spec,
                },
                ControllerSpec,
            )
        )
        self.controller._has_predecessor = has_predecessor
        self.store = self.controller.store = self.controller._open_store()
        bound = Listening(is_unix=True, has_curve=False)
        self.servers = {name: FakeServer() for name in ENDPOINTS}
        for server in self.servers.values():
            server.tells_of_ends = is_unix
        bound.servers.update(self.servers)
        self.counters = bound.counters
        self.loop, self.endpoints = self.controller._assemble(bound, stock, -1)
        self.loop.serve(self.endpoints)
        self.hub = self.loop._hub
        self.tasks = self.loop._tasks
        self.operations = self.loop._operations
        self.requests = self.loop._requests
        self.performer = self.loop._performer
        self._by_order = list(self.loop._endpoints)

    def turn(self, seconds: float = 0.001, *, is_due: bool = True) -> None:
        """Let time pass, and the controller take what was said."""
        self.now += seconds
        self.loop.turn(self._by_order, self.now, is_due=is_due)

    def pass_time(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass in turns, as a running loop would."""
        until = self.now + seconds
        while self.now < until:
            self.turn(min(step, until - self.now))

    def client(self, channel: str = "data", uuid: bytes | None = None) -> Peer:
        return self._attached(Peer(self, "client", channel, uuid))

    def operator(self, uuid: bytes | None = None) -> Peer:
        return self._attached(Peer(self, "operator", "control", uuid))

    def engine(self, uuid: bytes | None = None, **fields) -> Peer:
        peer = Peer(self, "engine", "data", uuid)
        answer = peer.attach(peer.attach_message(**fields))
        assert isinstance(answer, m.Attached), answer
        peer.wire_id = answer.id
        return peer

    def agent(self, uuid: bytes | None = None, **fields) -> Peer:
        peer = Peer(self, "agent", "control", uuid)
        answer = peer.attach(peer.attach_message(**fields))
        assert isinstance(answer, m.Attached), answer
        return peer

    def _attached(self, peer: Peer) -> Peer:
        answer = peer.attach()
        assert isinstance(answer, m.Attached), answer
        return peer

    def ask(self, peer: Peer, message):
        """A request's answer."""
        peer.say(message)
        self.turn()
        (answer,) = peer.messages(m.Reply | m.ErrorReply)
        return answer

    def status(self) -> dict:
        return self.requests.status(self.now)

    def run(self, client: Peer, engine: Peer, count: int = 1, **fields) -> list[m.Deliver]:
        """Submit tasks, run them, and read the answers."""
        for _ in range(count):
            client.say(submit(**fields))
        got = []
        for _ in range(10 * count):
            self.turn()
            for dispatch in engine.messages(m.Dispatch):
                engine.say(result_of(dispatch))
            engine.acknowledge()
            got += client.messages(m.Deliver)
            client.acknowledge()
            if len(got) == count:
                return got
        raise AssertionError(f"{len(got)} of {count} answers")


_numbers = itertools.count(1)


def task_id() -> bytes:
    return next(_numbers).to_bytes(16, "big")


def submit(task: bytes | None = None, **fields) -> m.Submit:
    about = {"kind": m.EXECUTE, "function": b"", "target": None, "body": b"body"}
    return m.Submit(task or task_id(), **{**about, **fields})


def result_of(dispatch: m.Dispatch, body: bytes = b"value", **fields) -> m.Result:
    about = {"status": 0, "started": 1.0, "finished": 1.5, "stdout": "", "stderr": ""}
    return m.Result(dispatch.task, dispatch.attempt, **{**about, **fields}, body=body)

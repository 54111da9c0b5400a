"""The stock side of a controller in memory: sockets that are lists, and engines that do what a test tells them to."""

from __future__ import annotations

import uuid
from collections import defaultdict

from clusterd.controller.compat.sockets import CLIENT_SIDE, ENGINE_SIDE
from tests.compat.framing import Framing, now
from tests.unit.controller.world import World

PING = 0.25


class FakeSockets:
    """What the controller sends lies in `sent`, by socket."""

    def __init__(self):
        self.handlers = {}
        self.sent = defaultdict(list)
        # (socket, identity) of peers that are not connected, and of those that take no more.
        self.away = set()
        self.full = set()
        self.trackers = []
        self.ports = {name: 40000 + index for index, name in enumerate((*CLIENT_SIDE, *ENGINE_SIDE))}

    def handle(self, name, handler):
        self.handlers[name] = handler

    def send(self, name, frames):
        frames = [bytes(frame) for frame in frames]
        if (name, frames[0]) in self.away:
            raise ConnectionError("no such peer is connected")
        if (name, frames[0]) in self.full:
            return False
        self.sent[name].append(frames)
        return True

    def send_tracked(self, name, frames):
        """As `send`; what is tracked is done when a test says so."""
        if not self.send(name, frames):
            return None
        self.trackers.append(Tracker())
        return self.trackers[-1]

    def take(self, name, to=b""):
        """All that was sent on a socket since the last time, to one peer or to all."""
        taken = [frames for frames in self.sent[name] if not to or frames[0] == to]
        self.sent[name] = [frames for frames in self.sent[name] if frames not in taken]
        return taken


class Tracker:
    """Of a large message that the fake sockets have taken."""

    done = False


class StockWorld(World):
    """A whole controller with stock sockets."""

    def __init__(self, root, **spec):
        self.sockets = FakeSockets()
        super().__init__(root, stock=self.sockets, ping=PING, **spec)
        self.key = self.controller._secrets.stock_key
        self.stock_counters = self.counters["stock"]

    def arrive(self, name, frames):
        """The controller takes a message from a stock socket, and does what follows."""
        self.sockets.handlers[name](list(frames), self.now)
        self.turn(0)

    def beat(self, *engines, periods=1):
        """Let periods pass; in each the engines named answer the ping."""
        for _ in range(periods):
            self.sockets.sent["hb_ping"].clear()
            self.turn(PING)
            for engine in engines:
                engine.pong()

    def notices(self, *, after=0.0):
        """(type, id, uuid) of what stock clients were told since the last time, and within the next seconds."""
        self.pass_time(after, 0.01)
        read = Framing(self.key, "").read
        said = [read(frames) for frames in self.sockets.take("notification")]
        return [(message.kind.partition("_")[0], message.content["id"], message.content["uuid"]) for message in said]


class StockEngine:
    """An engine at the other end of the fake sockets."""

    def __init__(self, world, name=""):
        self.world = world
        self.name = name or str(uuid.uuid4())
        self.identity = self.name.encode()
        self.framing = Framing(world.key, self.name)
        self.id = -1

    def frames(self, kind, content, **other):
        return self.framing.frames(self.framing.header(kind), content, **other)

    def register(self, wanted=None, identity=None):
        """Ask for an id; the content of the reply."""
        identity = identity or self.identity
        content = {"uuid": self.name} if wanted is None else {"uuid": self.name, "id": wanted}
        self.world.arrive("registration", [identity, *self.frames("registration_request", content)])
        (frames,) = self.world.sockets.take("registration", identity)
        reply = self.framing.read(frames)
        assert reply.kind == "registration_reply"
        self.id = reply.content.get("id", -1)
        return reply.content

    def pong(self, ping=None):
        """Answer a ping, by default the last one."""
        self.world.arrive("hb_pong", [self.identity, ping or self.world.sockets.sent["hb_ping"][-1][0]])

    def welcome(self):
        """Say that its output is heard."""
        self.world.arrive("iopub_engine", self.frames("iopub_welcome", {"subscription": ""}))
        self.world.sockets.take("iopub")

    def join(self, wanted=None):
        """Register, and beat once when its output is heard."""
        assert self.register(wanted)["status"] == "ok"
        self.welcome()
        self.world.beat(self)
        return self

    @property
    def peer(self):
        """What the hub has of it; None where that is nothing."""
        return self.world.hub.engines.get(self.identity)

    def unregister(self, identity=b"nanny", wire_id=None):
        content = {"id": self.id if wire_id is None else wire_id}
        self.world.arrive("registration", [identity, *self.frames("unregistration_request", content)])

    def requests(self):
        """What it was given to do since the last time."""
        return [self.framing.read(frames) for frames in self.world.sockets.take("mux_engine", self.identity)]

    def reply(self, request, content=None, metadata=None, buffers=(b"value",), **other):
        about = {"status": "ok", "engine": self.name, "started": now(), "dependencies_met": True, **(metadata or {})}
        content = content or {"status": "ok"}
        kind = request.kind.replace("_request", "_reply")
        frames = self.frames(kind, content, parent=request.header, metadata=about, buffers=list(buffers), **other)
        self.world.arrive("mux_engine", [self.identity, *request.identities[1:], *frames])

    def commands(self):
        return [self.framing.read(frames) for frames in self.world.sockets.take("control_engine", self.identity)]


class StockClient:
    """A client at the other end of the fake sockets: one routing id on all of them, and a session."""

    def __init__(self, world, session="client"):
        self.world = world
        self.route = b"route of " + session.encode()
        self.framing = Framing(world.key, session)

    def send(self, channel, kind, content=None, *, to=None, header=None, **other):
        """Send a request; its header."""
        header = header or self.framing.header(kind)
        hops = [self.route] if to is None else [self.route, to.encode()]
        self.world.arrive(channel, [*hops, *self.framing.frames(header, content or {}, **other)])
        return header

    def listen(self):
        """Subscribe to output."""
        self.world.arrive("iopub", [b"\1"])
        return self

    def apply(self, to, **other):
        """Direct work."""
        return self.send("mux", "apply_request", to=to, buffers=[b"function", b"arguments"], **other)

    def execute(self, to, *, silent=False, **content):
        """A cell."""
        return self.send("mux", "execute_request", {"code": "1", "silent": silent, **content}, to=to)

    def balanced(self, **metadata):
        """Balanced work."""
        return self.send("task", "apply_request", metadata=metadata, buffers=[b"function"])

    def broadcast(self, names, *, is_coalescing=False):
        """Work for several engines, [(uuid, id)]."""
        metadata = {"targets": [list(name) for name in names], "is_broadcast": True, "is_coalescing": is_coalescing}
        return self.send("broadcast", "apply_request", metadata=metadata, buffers=[b"function"])

    def heard(self, channel):
        """All that came on a channel since the last time."""
        return [self.framing.read(frames) for frames in self.world.sockets.take(channel, self.route)]

    def hear(self, channel):
        """The one message that did."""
        (message,) = self.heard(channel)
        return message

    def ask(self, kind, content=None):
        """The answer to a question."""
        header = self.send("registration", kind, content)
        reply = self.hear("registration")
        assert reply.parent == header
        return reply

    def output(self):
        """(type, parent's msg_id) of what was published since the last time."""
        read = [self.framing.read(frames) for frames in self.world.sockets.take("iopub")]
        return [
            (message.kind, message.content.get("execution_state"), message.parent.get("msg_id")) for message in read
        ]

"""A stock client and a stock engine that were made by hand from the protocol, with raw sockets.

Both are driven step by step by a test; only an engine's heart beats by itself, in a thread, until it is told otherwise.
"""

from __future__ import annotations

import json
import os
import pickle
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import zmq

from tests.compat.framing import Framing, Message, call, execution, now

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMIT = 20.0
"""Seconds to wait for what must come."""
QUIET = 0.3
"""Seconds to listen for what must not come, after something that was sent later has been answered."""


class Peer:
    """Sockets that are connected to the ports of a connection file."""

    def __init__(self, context: zmq.Context[Any], file: Path | dict[str, Any], session: str) -> None:
        self.file: dict[str, Any] = file if isinstance(file, dict) else json.loads(file.read_text())
        self.context = context
        self.framing = Framing(self.file["key"], session)
        self.sockets: dict[str, zmq.Socket[Any]] = {}

    def connect(self, name: str, kind: int, *ports: int, identity: bytes = b"") -> zmq.Socket[Any]:
        socket = self.context.socket(kind)
        socket.linger = 0
        socket.rcvhwm = socket.sndhwm = 0
        if identity:
            socket.identity = identity
        if self.file.get("curve_serverkey"):
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.curve_serverkey = self.file["curve_serverkey"].encode()
        if kind == zmq.SUB:
            socket.subscribe(b"")
        interface = self.file["interface"]
        if interface.removeprefix("tcp://") in {"*", "0.0.0.0"}:  # noqa: S104 - read, not bound
            interface = "tcp://127.0.0.1"
        for port in ports:
            socket.connect(f"{interface}:{port}")
        self.sockets[name] = socket
        return socket

    def receive(self, name: str, timeout: float = LIMIT) -> Message:
        """The next message on a channel; fails when there is none."""
        message = self.maybe(name, timeout)
        assert message is not None, f"nothing came on {name} within {timeout} s"
        return message

    def maybe(self, name: str, timeout: float = QUIET) -> Message | None:
        socket = self.sockets[name]
        return self.framing.read(socket.recv_multipart()) if socket.poll(int(timeout * 1000)) else None

    def close(self) -> None:
        for socket in self.sockets.values():
            socket.close()


class StockClient(Peer):
    """A client. What it receives while it waits for something else is kept."""

    def __init__(self, context: zmq.Context[Any], file: Path | dict[str, Any], *, hears_output: bool = True) -> None:
        super().__init__(context, file, uuid.uuid4().hex)
        for name, field in (
            ("query", "registration"),
            ("mux", "mux"),
            ("task", "task"),
            ("control", "control"),
            ("broadcast", "broadcast"),
        ):
            self.connect(name, zmq.DEALER, self.file[field])
        self.connect("notification", zmq.SUB, self.file["notification"])
        if hears_output:
            self.connect("iopub", zmq.SUB, self.file["iopub"])
        self.kept: list[tuple[str, Message]] = []
        # What it was told last of each engine.
        self.told: dict[int, tuple[str, str]] = {}

    def is_news(self, message: Message) -> bool:
        """False for a notice that says what was said last of an engine: who subscribes is told again, and PUB tells all."""
        what = (message.kind, message.content.get("uuid", ""))
        if what[1] and self.told.get(message.content["id"]) == what:
            return False
        self.told[message.content.get("id", -1)] = what
        return True

    def maybe(self, name: str, timeout: float = QUIET) -> Message | None:
        message = super().maybe(name, timeout)
        if name == "notification" and message is not None and not self.is_news(message):
            return self.maybe(name, timeout)
        return message

    def ask(self, kind: str, content: dict[str, Any] | None = None, timeout: float = LIMIT) -> dict[str, Any]:
        """The content of a query's reply."""
        return self.query(kind, content, timeout).content

    def query(self, kind: str, content: dict[str, Any] | None = None, timeout: float = LIMIT) -> Message:
        return self.answer(self.send("query", kind, content or {}), timeout)

    @property
    def engines(self) -> dict[int, str]:
        return {int(number): name for number, name in self.ask("connection_request")["engines"].items()}

    def send(
        self,
        channel: str,
        kind: str,
        content: dict[str, Any],
        *,
        to: str = "",
        metadata: dict[str, Any] | None = None,
        buffers: list[bytes] | None = None,
        **other: Any,
    ) -> str:
        """Send a request, to the engine `to` on mux and control; return its msg_id."""
        header = other.pop("header", None) or self.framing.header(kind)
        frames = self.framing.frames(header, content, metadata=metadata, buffers=buffers, **other)
        self.sockets[channel].send_multipart([*([to.encode()] if to else []), *frames])
        return header["msg_id"]

    def apply(self, to: str, function: Callable[..., Any], *arguments: Any) -> str:
        """Direct work."""
        return self.send("mux", "apply_request", {}, to=to, buffers=call(function, *arguments))

    def submit(self, function: Callable[..., Any], *arguments: Any, **metadata: Any) -> str:
        """Balanced work; keywords are its metadata: after, follow, retries, targets, timeout."""
        return self.send("task", "apply_request", {}, metadata=metadata, buffers=call(function, *arguments))

    def broadcast(
        self, targets: list[tuple[str, int]], function: Callable[..., Any], *arguments: Any, coalescing: bool
    ) -> str:
        """Work for many engines in one message; `targets` are (uuid, id)."""
        metadata = {"targets": targets, "is_broadcast": True, "is_coalescing": coalescing}
        return self.send("broadcast", "apply_request", {}, metadata=metadata, buffers=call(function, *arguments))

    def execute(self, to: str, code: str, *, silent: bool = True) -> str:
        return self.send("mux", "execute_request", execution(code, silent=silent), to=to)

    def answer(self, msg_id: str, timeout: float = LIMIT) -> Message:
        """The reply to one request, from whichever channel it comes."""
        message = self.maybe_answer(msg_id, timeout)
        assert message is not None, f"no reply to {msg_id} within {timeout} s; others came: {self.kept}"
        return message

    def maybe_answer(self, msg_id: str, timeout: float = QUIET) -> Message | None:
        deadline = time.monotonic() + timeout
        while True:
            for position, (channel, message) in enumerate(self.kept):
                if channel != "notification" and message.parent.get("msg_id") == msg_id:
                    return self.kept.pop(position)[1]
            if not self._collect(("query", "mux", "task", "control", "broadcast"), deadline):
                return None

    def answer_of(self, original: str, timeout: float = LIMIT) -> Message:
        """The one reply to a broadcast that is coalesced: found by `original_msg_id`, its parent is any of the copies."""
        message = self.maybe_answer_of(original, timeout)
        assert message is not None, f"no reply to {original} within {timeout} s; others came: {self.kept}"
        return message

    def maybe_answer_of(self, original: str, timeout: float = QUIET) -> Message | None:
        deadline = time.monotonic() + timeout
        while True:
            for position, (channel, message) in enumerate(self.kept):
                if channel == "broadcast" and message.metadata.get("original_msg_id") == original:
                    return self.kept.pop(position)[1]
            if not self._collect(("broadcast",), deadline):
                return None

    def notice(self, kind: str, name: str = "", timeout: float = LIMIT) -> Message:
        """The next notification of a kind, about the engine `name`."""
        deadline = time.monotonic() + timeout
        while True:
            for position, (channel, message) in enumerate(self.kept):
                if channel == "notification" and message.kind == kind and name in ("", message.content.get("uuid")):
                    return self.kept.pop(position)[1]
            assert self._collect(("notification",), deadline), f"no {kind} {name} within {timeout} s"

    def _collect(self, channels: tuple[str, ...], deadline: float) -> bool:
        """Wait until there is something on the channels, and keep all that is there."""
        poller = zmq.Poller()
        for name in channels:
            poller.register(self.sockets[name], zmq.POLLIN)
        ready = dict(poller.poll(max(0, int((deadline - time.monotonic()) * 1000))))
        for name in channels:
            if self.sockets[name] in ready:
                message = self.maybe(name, 0)
                if message is not None:
                    self.kept.append((name, message))
        return bool(ready)

    def output(self, msg_id: str, timeout: float = LIMIT) -> list[Message]:
        """What was published for a request, up to and with its idle."""
        found: list[Message] = []
        deadline = time.monotonic() + timeout
        while not (found and found[-1].kind == "status" and found[-1].content["execution_state"] == "idle"):
            message = self.receive("iopub", deadline - time.monotonic())
            if message.parent.get("msg_id") == msg_id:
                found.append(message)
        return found


class StockEngine(Peer):
    """An engine that computes nothing: the test takes requests and makes replies.

    Args:
        context: of its sockets.
        file: the engine's connection file.
        name: its uuid; by default a fresh one.
    """

    def __init__(self, context: zmq.Context[Any], file: Path | dict[str, Any], name: str = "") -> None:
        self.name = name or str(uuid.uuid4())
        super().__init__(context, file, self.name)
        self.id = -1
        self.heart: Heart | None = None
        self.connect("registration", zmq.DEALER, self.file["registration"], identity=self.name.encode())

    def register(self, wanted: int | None = None) -> dict[str, Any]:
        """Ask to be let in; the reply's content."""
        content: dict[str, Any] = {"uuid": self.name}
        if wanted is not None:
            content["id"] = wanted
        header = self.framing.header("registration_request")
        self.sockets["registration"].send_multipart(self.framing.frames(header, content))
        reply = self.receive("registration").content
        self.id = reply.get("id", -1)
        return reply

    def open(self) -> None:
        """Connect the sockets that work comes on."""
        file, name = self.file, self.name.encode()
        broadcast = file["broadcast"]
        self.connect("shell", zmq.ROUTER, file["mux"], file["task"], broadcast[self.id % len(broadcast)], identity=name)
        self.connect("control", zmq.ROUTER, file["control"], identity=name)
        self.connect("iopub", zmq.PUB, file["iopub"], identity=name)

    def join(self, wanted: int | None = None) -> StockEngine:
        """All of it, as an engine does: register, connect, beat."""
        assert self.register(wanted)["status"] == "ok"
        self.open()
        self.begin_beating()
        return self

    def begin_beating(self) -> None:
        self.heart = Heart(self)
        self.heart.start()

    def stop_beating(self) -> None:
        if self.heart is not None:
            self.heart.stop()
            self.heart = None

    def leave(self) -> None:
        """What a nanny says when the engine's process has ended."""
        header = self.framing.header("unregistration_request")
        self.sockets["registration"].send_multipart(self.framing.frames(header, {"id": self.id}))

    def request(self, channel: str = "shell", timeout: float = LIMIT) -> Message:
        return self.receive(channel, timeout)

    def reply(self, request: Message, value: Any = None, *, channel: str = "shell", **other: Any) -> list[bytes]:
        """Answer: a value, or `content` with another status; returns the frames that were sent."""
        content = other.pop("content", {"status": "ok"})
        is_apply = request.kind == "apply_request" and content["status"] == "ok"
        metadata = {
            "engine": self.name,
            "started": now(),
            "status": content["status"],
            "dependencies_met": True,
            "is_broadcast": request.metadata.get("is_broadcast", False),
            "is_coalescing": request.metadata.get("is_coalescing", False),
            "original_msg_id": request.metadata.get("original_msg_id", ""),
            "label": request.metadata.get("label"),
            **other.pop("metadata", {}),
        }
        header = self.framing.header(request.kind.replace("_request", "_reply"))
        buffers = other.pop("buffers", [pickle.dumps(value)] if is_apply else [])
        frames = self.framing.frames(
            header, content, parent=request.header, metadata=metadata, buffers=buffers, **other
        )
        frames = [*request.identities, *frames]
        self.sockets[channel].send_multipart(frames)
        return frames

    def fail(self, request: Message, name: str = "ValueError", text: str = "wrong") -> None:
        """Answer as an engine does whose user code raised."""
        where = {"engine_uuid": self.name, "engine_id": self.id, "method": "apply"}
        content = {"status": "error", "ename": name, "evalue": text, "traceback": [], "engine_info": where}
        unmet = {"dependencies_met": False} if name == "UnmetDependency" else {}
        self.reply(request, content=content, metadata={"engine_info": where, **unmet})

    def publish(self, kind: str, content: dict[str, Any], parent: dict[str, Any]) -> None:
        frames = self.framing.frames(self.framing.header(kind), content, parent=parent, metadata={"engine": self.name})
        self.sockets["iopub"].send_multipart([f"engine.{self.id}.{kind}".encode(), *frames])

    def close(self) -> None:
        self.stop_beating()
        super().close()


class Heart(threading.Thread):
    """Sends each ping back at once.

    Args:
        engine: whose heart it is.
    """

    def __init__(self, engine: StockEngine) -> None:
        super().__init__(name=f"heart {engine.name}")
        self._engine = engine
        self._read, self._write = os.pipe()

    def run(self) -> None:
        ping, pong = heart_sockets(self._engine)
        poller = zmq.Poller()
        poller.register(ping, zmq.POLLIN)
        poller.register(self._read, zmq.POLLIN)
        try:
            while self._read not in dict(poller.poll()):
                pong.send(ping.recv())
        finally:
            ping.close()
            pong.close()

    def stop(self) -> None:
        os.write(self._write, b"!")
        self.join()
        os.close(self._read)
        os.close(self._write)


def heart_sockets(engine: StockEngine) -> tuple[zmq.Socket[Any], zmq.Socket[Any]]:
    """The two sockets of a heart: pings come on the first, pongs go by the second. The caller closes them."""
    engine.connect("ping", zmq.SUB, engine.file["hb_ping"])
    engine.connect("pong", zmq.DEALER, engine.file["hb_pong"], identity=engine.name.encode())
    return engine.sockets.pop("ping"), engine.sockets.pop("pong")

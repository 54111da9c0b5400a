"""A peer of the native wire that was made by hand from PROTOCOL.md: sockets, msgpack and hmac, nothing of clusterd.

It can do everything right, and each thing wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

import msgspec
import zmq

if TYPE_CHECKING:
    from pathlib import Path

HELLO, WELCOME, REFUSE, RESET = 1, 2, 3, 4
ATTACH_CLIENT, ATTACH_ENGINE, ATTACH_AGENT, ATTACHED = 10, 11, 12, 13
FUNCTION, NEED_FUNCTION, SUBMIT, DISPATCH, RESULT, NOT_RUN, DELIVER, FAILED = 20, 21, 22, 23, 24, 25, 26, 27
BROADCAST = 29
PING, PONG, REPLY, ERROR_REPLY, ABORT, QUEUE_STATUS, CONTROLLER_STATUS = 40, 41, 42, 43, 44, 45, 46
ENGINE_COMMAND, LIST_ENGINES, SET_DESIRED, SHUTDOWN = 47, 48, 49, 51
ENGINES_CHANGED, ENGINE_EXITED, ENGINE_SIGNAL, COMMAND_DONE = 60, 71, 75, 76

pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode


def mac_of(key: bytes, header: bytes) -> bytes:
    return hmac.digest(key, header, "sha256")


class UnixWire:
    """A stream on a Unix socket, PROTOCOL.md section 2."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(address.removeprefix("unix://"))

    def send(self, parts: list[bytes]) -> None:
        head = struct.pack(f"<II{len(parts)}Q", 0x31304443, len(parts), *map(len, parts))
        self.send_bytes(head + b"".join(parts))

    def send_bytes(self, data: bytes) -> None:
        # Whom the controller cuts off gets EPIPE in the middle: that is the point of some tests.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def receive(self, timeout: float) -> list[bytes] | None:
        """A message, None after `timeout`, [] when the other side has closed."""
        self.socket.settimeout(timeout)
        try:
            first = self.socket.recv(1)
        except TimeoutError:
            return None
        except ConnectionResetError:
            return []
        if not first:
            return []
        self.socket.settimeout(30)
        magic, count = struct.unpack("<II", first + self._exactly(7))
        assert magic == 0x31304443
        lengths = struct.unpack(f"<{count}Q", self._exactly(8 * count))
        return [self._exactly(length) for length in lengths]

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(min(count - len(data), 1 << 20))
            assert piece, "closed in the middle of a message"
            data += piece
        return bytes(data)

    def close(self) -> None:
        self.socket.close()


class ZmqWire:
    """A DEALER over TCP."""

    def __init__(self, context: zmq.Context[Any], content: dict[str, Any], channel: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        if content.get("curve_serverkey"):
            self.socket.curve_publickey, self.socket.curve_secretkey = zmq.curve_keypair()
            self.socket.curve_serverkey = content["curve_serverkey"].encode()
        self.socket.connect(content[channel])

    def send(self, parts: list[bytes]) -> None:
        self.socket.send_multipart(parts)

    def receive(self, timeout: float) -> list[bytes] | None:
        if not self.socket.poll(int(timeout * 1000)):
            return None
        return self.socket.recv_multipart()

    def close(self) -> None:
        self.socket.close()


class Peer:
    """One connection. `role` and `channel` as in PROTOCOL.md section 4."""

    def __init__(self, context: zmq.Context[Any], file: Path, role: str, channel: str) -> None:
        content = json.loads(file.read_text())["clusterd"]
        self.static = bytes.fromhex(content["key"])
        self.role, self.channel = role, channel
        is_unix = content[channel].startswith("unix://")
        self.wire: Any = UnixWire(content[channel]) if is_unix else ZmqWire(context, content, channel)
        # Digests are given where the link is neither a private Unix socket nor CURVE.
        self.has_digests = not is_unix and not content.get("curve_serverkey")
        self.nonce = os.urandom(16)
        self.up = self.down = b""
        self.sent = self.received = 0
        self.token = b""
        self.welcome: list[Any] = []
        self.attached: list[Any] = []
        self.recorded: list[list[bytes]] = []

    def close(self) -> None:
        self.wire.close()

    # --- raw ---

    def send_raw(self, *parts: bytes) -> None:
        self.wire.send(list(parts))

    def receive_raw(self, timeout: float = 5.0) -> list[bytes] | None:
        return self.wire.receive(timeout)

    def is_cut_off(self, offending_mac: bytes) -> bool:
        """True when the controller's next word is a Reset for that message, or that it closes the connection."""
        parts = self.receive_raw()
        if not parts:
            return parts is not None
        assert hmac.compare_digest(parts[0], mac_of(self.static, parts[1]))
        return unpack(parts[1])[4][0][:2] == [RESET, offending_mac]

    # --- handshake ---

    def hello(self, versions: tuple[int, int] = (1, 1), key: bytes | None = None) -> list[bytes]:
        header = pack([0, 0, [], None, [[HELLO, versions, self.role, self.channel, self.nonce, "by hand"]]])
        return [mac_of(key or self.static, header), header]

    def greet(self, versions: tuple[int, int] = (1, 1)) -> list[Any]:
        self.send_raw(*self.hello(versions))
        parts = self.receive_raw()
        assert parts is not None, "no answer to Hello"
        mac, header = parts
        assert hmac.compare_digest(mac, mac_of(self.static, header))
        answer = unpack(header)[4][0]
        if answer[0] == WELCOME:
            self.welcome = answer
            assert answer[2] == self.nonce
            context = self.role.encode() + b"\0" + self.channel.encode() + self.nonce + answer[3]
            self.up = mac_of(self.static, b"clusterd 1 up\0" + context)
            self.down = mac_of(self.static, b"clusterd 1 down\0" + context)
        return answer

    # --- session ---

    def seal(
        self, *messages: Any, payload: tuple[bytes, ...] = (), seq: int | None = None, key: bytes | None = None
    ) -> list[bytes]:
        if seq is None:
            self.sent += 1
            seq = self.sent
        digests = (
            [hashlib.blake2b(frame, digest_size=16).digest() for frame in payload]
            if self.has_digests and payload
            else None
        )
        header = pack([seq, self.received, [len(frame) for frame in payload], digests, list(messages)])
        return [mac_of(key or self.up, header), header, *payload]

    def say(self, *messages: Any, payload: tuple[bytes, ...] = ()) -> None:
        parts = self.seal(*messages, payload=payload)
        self.recorded.append(parts)
        self.send_raw(*parts)

    def hear(self, timeout: float = 5.0) -> tuple[list[Any], list[bytes]] | None:
        """Messages and payload of the next message with content; None when nothing comes."""
        while True:
            parts = self.receive_raw(timeout)
            if not parts:
                return None
            mac, header = parts[:2]
            assert hmac.compare_digest(mac, mac_of(self.down, header)), "not signed for this session"
            seq, _ack, sizes, digests, messages = unpack(header)
            assert seq == self.received + 1
            self.received = seq
            assert sizes == [len(frame) for frame in parts[2:]]
            if self.has_digests and sizes:
                assert digests == [hashlib.blake2b(frame, digest_size=16).digest() for frame in parts[2:]]
            if messages:
                return messages, parts[2:]

    def expect(self, kind: int, timeout: float = 5.0) -> Any:
        """The next message of this kind; others in between are dropped."""
        while True:
            heard = self.hear(timeout)
            assert heard is not None, f"no message {kind} within {timeout} s"
            for message in heard[0]:
                if message[0] == kind:
                    return message

    def attach(self, uuid: bytes, token: bytes = b"") -> Any:
        match self.role:
            case "engine":
                message = [ATTACH_ENGINE, uuid, token, "engines", 0, "", os.getpid(), "here", "3.11", "by hand"]
            case "agent":
                message = [ATTACH_AGENT, uuid, token, "launch-0", "engines", "here", os.getpid(), 0, []]
            case _:
                message = [ATTACH_CLIENT, uuid, token, os.getpid(), "here"]
        self.say(message)
        heard = self.hear()
        assert heard is not None, "no answer to Attach"
        answer = heard[0][0]
        if answer[0] == ATTACHED:
            self.token = answer[1]
            self.attached = answer
        return answer

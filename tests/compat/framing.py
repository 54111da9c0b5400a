"""Jupyter messages made by hand from the protocol: frames, JSON and HMAC; nothing of clusterd, ipyparallel or jupyter_client.

    [identity]* <IDS|MSG> signature header parent metadata content [buffer]*

It can do everything right, and each thing wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import pickle
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

DELIMITER = b"<IDS|MSG>"


@dataclass
class Message:
    """A message as it was received; `identities` is what stood before the delimiter, `frames` all of it."""

    identities: list[bytes]
    signature: bytes
    header: dict[str, Any]
    parent: dict[str, Any]
    metadata: dict[str, Any]
    content: dict[str, Any]
    buffers: list[bytes]
    frames: list[bytes] = field(repr=False)

    @property
    def kind(self) -> str:
        return self.header["msg_type"]

    @property
    def id(self) -> str:
        return self.header["msg_id"]

    @property
    def status(self) -> str:
        return self.content["status"]

    @property
    def value(self) -> Any:
        """The result of an apply, where its buffers are one pickle."""
        assert self.status == "ok", self.content
        return pickle.loads(self.buffers[0])


class Framing:
    """Makes and takes messages of one sender.

    Args:
        key: of the connection file; empty: nothing is signed.
        session: the sender's id.
    """

    def __init__(self, key: str, session: str) -> None:
        self.key = key.encode()
        self.session = session

    def header(self, kind: str) -> dict[str, str]:
        return {
            "msg_id": f"{self.session}_{uuid.uuid4().hex}",
            "msg_type": kind,
            "username": "hand",
            "session": self.session,
            "date": now(),
            "version": "5.3",
        }

    def sign(self, parts: list[bytes]) -> bytes:
        if not self.key:
            return b""
        return hmac.new(self.key, b"".join(parts), hashlib.sha256).hexdigest().encode()

    def frames(
        self,
        header: dict[str, Any],
        content: dict[str, Any],
        *,
        parent: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        buffers: list[bytes] | None = None,
        signature: bytes | None = None,
    ) -> list[bytes]:
        """The frames from the delimiter on; `signature` replaces the right one."""
        parts = [json.dumps(part).encode() for part in (header, parent or {}, metadata or {}, content)]
        return [DELIMITER, self.sign(parts) if signature is None else signature, *parts, *(buffers or [])]

    def read(self, frames: list[bytes]) -> Message:
        """What was received; a wrong signature fails the test."""
        at = frames.index(DELIMITER)
        signature, *parts = frames[at + 1 : at + 6]
        assert signature == self.sign(parts), f"wrong signature: {frames[: at + 6]}"
        header, parent, metadata, content = (json.loads(part) for part in parts)
        return Message(frames[:at], signature, header, parent, metadata, content, frames[at + 6 :], frames)


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def call(function: Callable[..., Any], *arguments: Any) -> list[bytes]:
    """The buffers of an apply_request, of objects that need no canning."""
    parts = [pickle.dumps(argument) for argument in arguments]
    info = {"nargs": len(parts), "narg_bufs": len(parts), "kw_keys": []}
    return [pickle.dumps(function), pickle.dumps(info), *parts]


def execution(code: str, *, silent: bool = True) -> dict[str, Any]:
    """The content of an execute_request."""
    return {"code": code, "silent": silent, "user_expressions": {}}

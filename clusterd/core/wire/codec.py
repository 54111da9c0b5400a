"""Headers to bytes and back: one decoder per link and direction, because the unions differ.

A decoder accepts only the messages of its direction (messages.py); whatever else arrives raises `WireError`.
Decoders and the encoder are stateless and shared.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import msgspec

from clusterd.core.wire import messages as m
from clusterd.errors import WireError

M = TypeVar("M")


class Header(msgspec.Struct, Generic[M], array_like=True, gc=False):
    """The signed part of every message; see PROTOCOL.md section 2."""

    seq: int
    ack: int
    sizes: list[int]
    digests: list[bytes] | None
    messages: list[M]


_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
"""Any message or Header to MessagePack bytes."""


class HeaderDecoder:
    """Decodes the headers of one direction of one link."""

    __slots__ = ("_decode", "name")

    def __init__(self, name: str, union: Any) -> None:
        self.name = name
        self._decode = msgspec.msgpack.Decoder(Header[union]).decode

    def __call__(self, header: bytes) -> Header[Any]:
        """The header, typed.

        Raises:
            WireError: not MessagePack, or not a message of this direction.
        """
        try:
            return self._decode(header)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"malformed message on {self.name}: {error}") from error


HANDSHAKE_UP: Final = HeaderDecoder("handshake", m.HandshakeUp)
HANDSHAKE_DOWN: Final = HeaderDecoder("handshake reply", m.HandshakeDown)
UP: Final[dict[tuple[str, str], HeaderDecoder]] = {
    ("client", "data"): HeaderDecoder("client-data", m.ClientDataUp),
    ("client", "control"): HeaderDecoder("client-control", m.ClientControlUp),
    ("operator", "control"): HeaderDecoder("client-control", m.ClientControlUp),
    ("engine", "data"): HeaderDecoder("engine-data", m.EngineDataUp),
    ("agent", "control"): HeaderDecoder("engine-control", m.AgentUp),
}
"""By role and channel: what the controller reads."""
DOWN: Final[dict[tuple[str, str], HeaderDecoder]] = {
    ("client", "data"): HeaderDecoder("client-data", m.ClientDataDown),
    ("client", "control"): HeaderDecoder("client-control", m.ClientControlDown),
    ("operator", "control"): HeaderDecoder("client-control", m.ClientControlDown),
    ("engine", "data"): HeaderDecoder("engine-data", m.EngineDataDown),
    ("agent", "control"): HeaderDecoder("engine-control", m.AgentDown),
}
"""By role and channel: what a peer reads."""
ENDPOINT_OF: Final[dict[tuple[str, str], str]] = {
    ("client", "data"): "client-data",
    ("client", "control"): "client-control",
    ("operator", "control"): "client-control",
    ("engine", "data"): "engine-data",
    ("agent", "control"): "engine-control",
}
"""By role and channel: the controller's endpoint."""

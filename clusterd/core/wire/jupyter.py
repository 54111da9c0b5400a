"""The framing of stock ipyparallel: Jupyter messages, version 5, signed with HMAC; and how they travel on the native wire.

    [identity]* <IDS|MSG> signature header parent_header metadata content [buffer]*

The four dictionaries are kept as the bytes that came: a signature covers bytes, and what is relayed is never encoded anew. Pure:
dates and ids are arguments. The format is documented at https://jupyter-client.readthedocs.io/en/stable/messaging.html.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from clusterd.errors import AuthenticationError, WireError

if TYPE_CHECKING:
    from collections.abc import Sequence

DELIMITER: Final = b"<IDS|MSG>"
VERSION: Final = "5.3"
EMPTY: Final = b"{}"
MAX_SEEN: Final = 65_536
"""Signatures that are remembered; a message older than so many others can be played again, and its msg_id is known still."""
MAX_IDENTITIES: Final = 16
_DIGESTS: Final = {f"hmac-{name}": name for name in ("sha256", "sha384", "sha512", "sha1", "md5", "blake2b", "blake2s")}
_MAX_TASK_ID: Final = 64


class Header(msgspec.Struct, gc=False):
    """What of a header anybody reads here; all else stays in its bytes."""

    msg_id: str
    msg_type: str
    session: str = ""
    date: str = ""
    username: str = ""
    version: str = ""


class Message(NamedTuple):
    """One message as it came. `identities` is what stands before the delimiter."""

    identities: Sequence[bytes]
    signature: bytes
    header: bytes
    parent: bytes
    metadata: bytes
    content: bytes
    buffers: Sequence[Any]

    @property
    def frames(self) -> list[Any]:
        """Everything from the delimiter on."""
        return [DELIMITER, self.signature, self.header, self.parent, self.metadata, self.content, *self.buffers]


class Request(NamedTuple):
    """The body of a task of kind STOCK: a Jupyter request without its buffers, which are the frames."""

    header: bytes
    parent: bytes
    metadata: bytes
    content: bytes


class Reply(NamedTuple):
    """The body of a result of kind STOCK. A reply that is to be relayed unchanged has its own header and signature."""

    metadata: bytes
    content: bytes
    header: bytes = b""
    signature: bytes = b""


_encode = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(tuple[bytes, bytes, bytes, bytes]).decode
_decode_reply = msgspec.msgpack.Decoder(tuple[bytes, bytes, bytes, bytes]).decode
_decode_header = msgspec.json.Decoder(Header).decode
_decode_dict = msgspec.json.Decoder(dict[str, Any]).decode


def split(frames: Sequence[Any]) -> Message:
    """Take the frames of one message apart.

    Raises:
        WireError: there is no delimiter among the first frames, or fewer than five frames after it.
    """
    index = next((at for at, frame in enumerate(frames[: MAX_IDENTITIES + 1]) if frame == DELIMITER), None)
    if index is None:
        raise WireError("a message without <IDS|MSG>")
    if len(frames) < index + 6:
        raise WireError(f"a message of {len(frames) - index - 1} frames after <IDS|MSG>, where five at least belong")
    signature, header, parent, metadata, content = (bytes(frame) for frame in frames[index + 1 : index + 6])
    return Message(frames[:index], signature, header, parent, metadata, content, frames[index + 6 :])


def header_of(data: bytes) -> Header:
    """Decode a header.

    Raises:
        WireError: it is no JSON object, or has no msg_id or msg_type.
    """
    try:
        return _decode_header(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"header: {error}") from error


def dict_of(data: bytes, what: str) -> dict[str, Any]:
    """Decode one of the four dictionaries; `what` names it in the error.

    Raises:
        WireError: it is no JSON object.
    """
    if data == EMPTY:
        return {}
    try:
        return _decode_dict(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"{what}: {error}") from error


def json_of(value: Any) -> bytes:
    """Encode plain data as compact JSON; NaN becomes null, datetimes ISO 8601."""
    return _encode_json(value)


def date_of(wall: float) -> str:
    """Seconds since the epoch in the form that stock clients parse: UTC, microseconds, a zone."""
    micros = round(wall * 1e6)
    return f"{_second_of(micros // 1_000_000)}.{micros % 1_000_000:06d}Z"


@lru_cache(maxsize=16)
def _second_of(wall: int) -> str:
    # Formatting is a tenth of what a task costs the controller, and most dates are of the same second.
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def seconds_of(date: str) -> float | None:
    """The reverse of `date_of`, for any ISO 8601 date with a zone; None where it is none."""
    try:
        return datetime.fromisoformat(date).timestamp() if date else None
    except ValueError:
        return None


def task_id(msg_id: str) -> bytes:
    """The scheduler's id of the task with this msg_id: the same bytes where they fit, else a digest of them."""
    data = msg_id.encode("utf-8", "surrogatepass")
    return data if 0 < len(data) <= _MAX_TASK_ID else hashlib.blake2b(data, digest_size=32).digest()


def pack_request(request: Request) -> bytes:
    """The body of a task of kind STOCK."""
    return _encode(tuple(request))


def unpack_request(body: bytes) -> Request:
    """The reverse.

    Raises:
        WireError: it is no such body.
    """
    try:
        return Request(*_decode_request(body))
    except msgspec.DecodeError as error:
        raise WireError(f"the body of a stock task: {error}") from error


def pack_reply(reply: Reply) -> bytes:
    """The body of a result of kind STOCK."""
    return _encode(tuple(reply))


def unpack_reply(body: bytes) -> Reply:
    """The reverse.

    Raises:
        WireError: it is no such body.
    """
    try:
        return Reply(*_decode_reply(body))
    except msgspec.DecodeError as error:
        raise WireError(f"the body of a stock result: {error}") from error


class Signer:
    """Signs and verifies with one key.

    Args:
        key: empty: nothing is signed, and every message passes (CURVE without a key).
        scheme: `hmac-sha256`, as connection files name it.

    Raises:
        WireError: the scheme is not known.
    """

    __slots__ = ("_inner", "_key", "_outer", "_seen")

    def __init__(self, key: bytes, scheme: str = "hmac-sha256") -> None:
        if scheme not in _DIGESTS:
            raise WireError(f"signature scheme {scheme!r} is none of {', '.join(_DIGESTS)}")
        self._key = key
        # The two padded key blocks are hashed once (RFC 2104, section 4): half the price of `hmac.digest`.
        digest = hashlib.new(_DIGESTS[scheme], usedforsecurity=False)
        block = digest.block_size
        padded = (
            key if len(key) <= block else hashlib.new(_DIGESTS[scheme], key, usedforsecurity=False).digest()
        ).ljust(block, b"\0")
        self._inner, self._outer = digest, digest.copy()
        self._inner.update(bytes(byte ^ 0x36 for byte in padded))
        self._outer.update(bytes(byte ^ 0x5C for byte in padded))
        # Signatures of messages that were taken, oldest first.
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def sign(self, header: bytes, parent: bytes, metadata: bytes, content: bytes) -> bytes:
        """The signature frame."""
        if not self._key:
            return b""
        inner = self._inner.copy()
        inner.update(header + parent + metadata + content)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest().encode()

    def has_signed(self, message: Message) -> bool:
        """Whether it is signed with this key."""
        expected = self.sign(message.header, message.parent, message.metadata, message.content)
        return hmac.compare_digest(expected, message.signature)

    def check(self, message: Message) -> None:
        """Let a message pass once.

        Raises:
            AuthenticationError: its signature is wrong (code `bad_mac`), or it was taken before (code `replayed`).
        """
        if not self._key:
            return
        expected = self.sign(message.header, message.parent, message.metadata, message.content)
        if not hmac.compare_digest(expected, message.signature):
            raise AuthenticationError("a message that is not signed with this controller's key")
        seen = self._seen
        if expected in seen:
            raise Replayed("a message that has come before")
        seen[expected] = None
        if len(seen) > MAX_SEEN:
            seen.popitem(last=False)


class Replayed(AuthenticationError):
    """A message that has come before."""

"""Who is speaking: Hello, Welcome, session keys, tokens. PROTOCOL.md section 3.

`PeerHandshake` is the side of clients, engines and agents, `welcome` and `refuse` that of the controller. Nonces and challenges are
arguments: this module has no randomness. Nothing is trusted before its mac is right, and an answer is given only to what is.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final

from clusterd.core.wire import codec
from clusterd.core.wire.messages import VERSIONS, Hello, Limits, Refuse, Reset, Welcome
from clusterd.core.wire.session import Session, is_signed, sign
from clusterd.errors import AuthenticationError, ClusterdError, VersionMismatch, WireError

if TYPE_CHECKING:
    from collections.abc import Sequence

NONCE_SIZE: Final = 16
TOKEN_SIZE: Final = 16
ROLES_OF: Final[dict[str, frozenset[tuple[str, str]]]] = {
    endpoint: frozenset(pair for pair, name in codec.ENDPOINT_OF.items() if name == endpoint)
    for endpoint in set(codec.ENDPOINT_OF.values())
}
"""By endpoint: the (role, channel) pairs that may say Hello there."""


class Refused(ClusterdError):
    """The controller said no; `code` is its word for the reason."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code  # an instance's own word in place of the class's


def session_keys(static: bytes, hello: Hello, challenge: bytes) -> tuple[bytes, bytes]:
    """(up, down): the keys of the two directions of one connection."""
    context = b"\0".join((hello.role.encode(), hello.channel.encode())) + hello.nonce + challenge
    return (
        hmac.digest(static, b"clusterd 1 up\0" + context, "sha256"),
        hmac.digest(static, b"clusterd 1 down\0" + context, "sha256"),
    )


def token_of(secret: bytes, role: str, uuid: bytes) -> bytes:
    """The resume token of a peer: what only the controller (and the peer itself) can know."""
    return hmac.digest(secret, role.encode() + b"\0" + uuid, "sha256")[:TOKEN_SIZE]


def is_token(secret: bytes, role: str, uuid: bytes, token: bytes) -> bool:
    """True when `token` is that of the peer."""
    return hmac.compare_digest(token_of(secret, role, uuid), token)


def _signed(key: bytes, message: Any) -> list[bytes]:
    header = codec.encode(codec.Header(0, 0, [], None, [message]))
    return [sign(key, header), header]


def _verified(key: bytes, decoder: codec.HeaderDecoder, mac: bytes, header: bytes) -> Any:
    if not is_signed(key, mac, header):
        raise AuthenticationError("wrong signature")
    content = decoder(header)
    if content.seq != 0 or len(content.messages) != 1:
        raise WireError("not a handshake message")
    return content.messages[0]


class PeerHandshake:
    """The connecting side.

    Args:
        static_key: the key in the connection file.
        role: client, operator, engine or agent.
        channel: data or control.
        nonce: 16 fresh random bytes.
        software: "clusterd 0.1.0, Python 3.11.7", for logs and error texts.
        has_digests: the link is neither a private Unix socket nor CURVE.
    """

    def __init__(
        self, static_key: bytes, role: str, channel: str, nonce: bytes, software: str, *, has_digests: bool
    ) -> None:
        self._key = static_key
        self._hello = Hello(VERSIONS, role, channel, nonce, software)
        self._has_digests = has_digests
        self.welcome: Welcome | None = None

    def hello(self) -> list[bytes]:
        """Frames of the first message."""
        return _signed(self._key, self._hello)

    def receive(self, parts: Sequence[Any]) -> Session:
        """The controller's answer to Hello; the first message that the session seals must be the Attach.

        Raises:
            Refused: it said no, and why.
            AuthenticationError: the answer is not from who has our key, or answers somebody else's Hello.
            VersionMismatch: it chose a version that we do not speak.
            WireError: it is not an answer to a Hello.
        """
        if len(parts) != 2:
            raise WireError("not a handshake message")
        answer = _verified(self._key, codec.HANDSHAKE_DOWN, bytes(parts[0]), bytes(parts[1]))
        if isinstance(answer, Reset):
            raise WireError("a Reset before there was a session")
        if not hmac.compare_digest(answer.nonce, self._hello.nonce):
            raise AuthenticationError("an answer to another Hello")
        if isinstance(answer, Refuse):
            raise Refused(answer.code, answer.message, answer.hint)
        if not VERSIONS[0] <= answer.version <= VERSIONS[1]:
            raise VersionMismatch(
                f"the controller chose protocol version {answer.version}, this side speaks {VERSIONS}"
            )
        if len(answer.challenge) != NONCE_SIZE:
            raise WireError(f"a challenge of {len(answer.challenge)} bytes")
        self.welcome = answer
        up, down = session_keys(self._key, self._hello, answer.challenge)
        decoder = codec.DOWN[self._hello.role, self._hello.channel]
        return Session(up, down, decoder, answer.limits, has_digests=self._has_digests)

    def reset_of(self, parts: Sequence[Any], session: Session) -> Reset | None:
        """This message, which the session cannot verify, as the controller's genuine Reset for it; None where it is none."""
        if len(parts) != 2:
            return None
        try:
            answer = _verified(self._key, codec.HANDSHAKE_DOWN, bytes(parts[0]), bytes(parts[1]))
        except WireError:
            return None
        is_genuine = isinstance(answer, Reset) and hmac.compare_digest(answer.echo, session.last_mac)
        return answer if is_genuine else None


def read_hello(static_key: bytes, endpoint: str, mac: bytes, header: bytes) -> Hello:
    """The controller's reading of a first message.

    Raises:
        AuthenticationError: wrong mac. No answer is due.
        VersionMismatch: no common version. A Refuse is due; the error carries the Hello as `hello`.
        WireError: anything else that is wrong. No answer is due.
    """
    hello = _verified(static_key, codec.HANDSHAKE_UP, mac, header)
    if not isinstance(hello, Hello) or len(hello.nonce) != NONCE_SIZE:
        raise WireError("not a Hello")
    if (hello.role, hello.channel) not in ROLES_OF[endpoint]:
        raise WireError(f"role {hello.role!r} and channel {hello.channel!r} do not belong to {endpoint}")
    if common_version(hello.versions) is None:
        error = VersionMismatch(
            f"this controller speaks protocol versions {VERSIONS[0]} to {VERSIONS[1]}, "
            f"{hello.software} speaks {hello.versions[0]} to {hello.versions[1]}",
            hint="Install the same release of clusterd on both sides.",
        )
        error.hello = hello  # type: ignore[attr-defined]
        raise error
    return hello


def common_version(versions: tuple[int, int]) -> int | None:
    """The highest version that both sides speak, or None."""
    best = min(versions[1], VERSIONS[1])
    return best if best >= max(versions[0], VERSIONS[0]) else None


def welcome(
    static_key: bytes,
    hello: Hello,
    *,
    challenge: bytes,
    controller: bytes,
    cluster: str,
    limits: Limits,
    has_digests: bool,
) -> tuple[list[bytes], Session]:
    """(frames of the Welcome, the controller's end of the session). The first message on it must be the Attach."""
    version = common_version(hello.versions)
    if version is None:
        raise VersionMismatch("no common version; read_hello refuses this")
    answer = Welcome(version, hello.nonce, challenge, controller, cluster, limits)
    up, down = session_keys(static_key, hello, challenge)
    session = Session(
        down, up, codec.UP[hello.role, hello.channel], limits, has_digests=has_digests, is_controller=True
    )
    return _signed(static_key, answer), session


def refuse(static_key: bytes, nonce: bytes, error: ClusterdError) -> list[bytes]:
    """Frames of a Refuse."""
    return _signed(static_key, Refuse(nonce, error.code, error.message, error.hint))


def reset(static_key: bytes, echo: bytes, reason: str = "") -> list[bytes]:
    """Frames of a Reset for a session message that this controller cannot know, or after the last one of a session that it ends."""
    return _signed(static_key, Reset(echo, reason))

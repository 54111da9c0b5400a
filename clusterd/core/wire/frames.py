"""The multipart shape of a message: mac, header, payload frames; and the limits that hold before anything is verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clusterd.core.wire.session import MAC_SIZE
from clusterd.errors import LimitExceeded, WireError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.core.wire.messages import Limits

INLINE_BODY_BYTES = 64 * 1024
"""A body over this size travels as a payload frame: it is then neither copied into the header nor hashed by the mac."""
BATCH_HEADER_BYTES = 256 * 1024
"""A sender begins a new message when the header has grown to about this size."""


def split(parts: Sequence[Any], limits: Limits) -> tuple[bytes, bytes, Sequence[Any]]:
    """Mac, header and payload frames of a received message (without the routing id).

    Raises:
        WireError: it has not the shape of a message.
        LimitExceeded: header or number of frames is over the limits.
    """
    if len(parts) < 2:
        raise WireError(f"{len(parts)} frame where mac and header are due")
    mac, header = parts[0], parts[1]
    if len(mac) != MAC_SIZE:
        raise WireError(f"a mac of {len(mac)} bytes")
    if len(header) > limits.max_header:
        raise LimitExceeded(f"a header of {len(header)} bytes, the limit is {limits.max_header}")
    if len(parts) - 2 > limits.max_frames:
        raise LimitExceeded(f"{len(parts) - 2} payload frames, the limit is {limits.max_frames}")
    return bytes(mac), bytes(header), parts[2:]


def place_body(body: bytes, frames: Sequence[Any]) -> tuple[bytes, Sequence[Any]]:
    """(body field, payload frames) as they travel: a large body becomes the first payload frame."""
    if len(body) > INLINE_BODY_BYTES:
        return b"", [body, *frames]
    return body, frames


def find_body(body: bytes, frames: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """The inverse of `place_body`: (body, out-of-band buffers)."""
    if not body and frames:
        return frames[0], frames[1:]
    return body, frames

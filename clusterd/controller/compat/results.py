"""A stock engine's reply as a native result. Only what the scheduler has to know is looked at; the rest travels as it came."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from clusterd.core.wire import jupyter
from clusterd.core.wire.messages import STATUS_ERROR, STATUS_OK, STATUS_UNMET, Result
from clusterd.errors import WireError

if TYPE_CHECKING:
    from clusterd.controller.submits import Payload


class ReplyMetadata(msgspec.Struct):
    """What of a reply's metadata is looked at; whatever else it is, it must not make the reply unreadable."""

    status: Any = None
    started: Any = None
    dependencies_met: Any = True


class ReplyContent(msgspec.Struct):
    """Likewise of its content."""

    status: Any = None


_decode_metadata = msgspec.json.Decoder(ReplyMetadata).decode
_decode_content = msgspec.json.Decoder(ReplyContent).decode


def result_of(task: bytes, attempt: int, message: jupyter.Message, payload: Payload | None) -> Result:
    """The result of a stock task; its frames are the reply's buffers. One that cannot be read is an error, for the task has ended.

    Args:
        task: what the reply is to.
        attempt: of it.
        message: the reply.
        payload: the task's request; None where it has ended.
    """
    try:
        header = jupyter.header_of(message.header)
        metadata = _decode_metadata(message.metadata)
        said = metadata.status or _decode_content(message.content).status
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, WireError) as error:
        return _unreadable(task, attempt, error)
    status = STATUS_OK if said == "ok" else STATUS_ERROR
    if metadata.dependencies_met is False:
        status = STATUS_UNMET
    finished = jupyter.seconds_of(header.date) or time.time()
    started = jupyter.seconds_of(metadata.started) if isinstance(metadata.started, str) else None
    # Signed for the parent header as the engine writes it down again; most write what they read, byte by byte.
    is_same = payload is not None and payload.origin is not None and payload.origin.header == message.parent
    signature = message.signature if is_same else b""
    body = jupyter.pack_reply(jupyter.Reply(message.metadata, message.content, message.header, signature))
    return Result(task, attempt, status, started or finished, finished, "", "", body, len(message.buffers))


def _unreadable(task: bytes, attempt: int, error: Exception) -> Result:
    content = {
        "status": "error",
        "ename": "WireError",
        "evalue": f"unreadable reply: {error}",
        "traceback": [],
        "engine_info": {},
    }
    body = jupyter.pack_reply(jupyter.Reply(jupyter.EMPTY, jupyter.json_of(content)))
    return Result(task, attempt, STATUS_ERROR, 0.0, 0.0, "", "", body)


def again(header: bytes, attempt: int) -> bytes:
    """The header of a task that some engine may have seen before: the same for who reads it, with another signature.

    An engine is silent about a message whose signature it has seen.
    """
    return b'%b,"attempt":%d}' % (header.rstrip()[:-1], attempt)

"""Native tasks on stock engines: each becomes a call of `eval` with the text of `guest`, and what that returns a native result.

Engines unpickle what comes to them; nothing is unpickled here. So arguments are pickled by hand, with the raw bytes of the task beside
them, and the guest returns one `bytes`, long enough (MIN_BYTES) to travel raw: [length of the head][head, JSON][body][frames ...].
"""

from __future__ import annotations

import pickle
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clusterd.core.wire import jupyter, payload
from clusterd.core.wire.frames import place_body
from clusterd.core.wire.messages import (
    APPLY,
    CLEAR,
    EXECUTE,
    MAP,
    PULL,
    PUSH,
    STATUS_ERROR,
    STATUS_OK,
    NotRun,
    Result,
)
from clusterd.core.wire.session import check_payload
from clusterd.errors import TaskError, TaskNotSendable, WireError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.controller.functions import StoredFunction
    from clusterd.controller.submits import Payload
    from clusterd.errors import ClusterdError

KINDS: Final = {APPLY: "apply", MAP: "map", EXECUTE: "execute", PUSH: "push", PULL: "pull", CLEAR: "clear"}
MAX_BLOBS: Final = 60
"""Raw buffers of one call: a dict of 64 items and more would be left as it is, without them."""
_GUEST: Final = Path(__file__).with_name("guest.py").read_text(encoding="utf-8")
_NAME: Final = f"_clusterd_guest_{blake2b(_GUEST.encode(), digest_size=4).hexdigest()}"
# The guest becomes a module when it first comes; `given` are the globals of the expression.
_EXPRESSION: Final = (
    f"(__import__('sys').modules.get({_NAME!r}) or [guest := type(__import__('sys'))({_NAME!r}),"
    " exec(compile(source, '<clusterd>', 'exec'), guest.__dict__),"
    f" __import__('sys').modules.__setitem__({_NAME!r}, guest)][0]).run(globals())"
)


def _inner(value: Any) -> bytes:
    """The pickle of plain data without its first two bytes and its last, PROTO and STOP: it may stand inside of another."""
    return pickle.dumps(value, 2)[2:-1]


# ipyparallel's own wrapper of a `bytes` whose content is the next raw buffer: an instance with `buffers = [None]`.
_RAW: Final = b"cipyparallel.serialize.canning\nCannedBytes\n)\x81}X\x07\x00\x00\x00buffers]Nasb"
_CALL: Final = pickle.dumps(eval, 4)
_TEXT: Final = pickle.dumps(_EXPRESSION, 4)
_SOURCE: Final = _inner("source") + _inner(_GUEST)
# What has no function, and what takes none.
_FUNCTIONLESS: Final = frozenset({EXECUTE, PUSH, PULL, CLEAR})


class Head(msgspec.Struct):
    """What the guest says of a task."""

    status: int
    started: float
    finished: float
    body: int
    frames: list[int]
    stdout: str = ""
    stderr: str = ""
    display: list[dict[str, Any]] | None = None
    needs: bool = False
    name: str = ""
    message: str = ""
    traceback: str = ""
    index: int = -1
    error: str = ""
    hint: str = ""


_decode_head = msgspec.json.Decoder(Head).decode
_ERRORS: Final = {"TaskNotSendable": TaskNotSendable, "TaskError": TaskError}


def buffers_of(task: Payload, function: StoredFunction | None, engine: str, msg_id: str) -> list[Any]:
    """The buffers of the apply_request by which a stock engine runs a native task.

    Args:
        task: its request.
        function: what is to be called, where the engine may not have it.
        engine: what tracebacks call the engine.
        msg_id: of the request.

    Raises:
        WireError: what came from the client is damaged, or no kind of task that is known here.
    """
    if task.kind not in KINDS or not (task.function or task.kind in _FUNCTIONLESS):
        raise WireError(f"a task of kind {task.kind} cannot run on a stock engine")
    check_payload(list(task.digests), task.frames)
    blobs: list[Any] = [*task.frames]
    code: bytes | None = None
    if function is not None:
        check_payload(list(function.digests), function.payload)
        code = function.message.body
        blobs += function.payload
    lengths: list[int] | None = None
    if len(blobs) > MAX_BLOBS:
        lengths = [len(blob) for blob in blobs]
        blobs = [b"".join(blobs)]
    order = {
        "kind": KINDS[task.kind],
        "engine": engine,
        "message": msg_id,
        "body": task.body,
        "frames": len(task.frames),
        "function": task.function.hex(),
        "code": code,
        "blobs": len(blobs),
        "lengths": lengths,
    }
    raw = [_inner(f"b{index:03}") + _RAW for index in range(len(blobs))]
    given = b"".join([b"\x80\x04}(", *raw, _inner("order"), _inner(order), _SOURCE, b"u."])
    call = {"nargs": 2, "narg_bufs": 2 + len(blobs), "kw_keys": []}
    return [_CALL, pickle.dumps(call, 4), _TEXT, given, *blobs]


def result_of(
    task: bytes, attempt: int, engine: str, message: jupyter.Message
) -> tuple[Result | NotRun | None, Sequence[Any]]:
    """What a stock engine's reply says of a native task, and the frames of the result; None where it lacks the function.

    Raises:
        WireError: it says nothing that makes sense.
    """
    content = jupyter.dict_of(message.content, "content")
    status = content.get("status")
    if status == "aborted":
        return NotRun(task, attempt, "dropped"), ()
    if status != "ok":
        return _failed_outside(task, attempt, engine, content), ()
    if len(message.buffers) != 2:
        raise WireError(f"a reply of {len(message.buffers)} buffers, where the guest's result is one")
    whole = memoryview(message.buffers[1])
    length = int.from_bytes(whole[:4], "big")
    try:
        head = _decode_head(whole[4 : 4 + length])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"the guest's result: {error}") from error
    if head.needs:
        return None, ()
    at = 4 + length
    body = bytes(whole[at : at + head.body]) if head.body < len(whole) else b""
    at += head.body
    frames: list[Any] = []
    for size in head.frames:
        frames.append(whole[at : at + size])
        at += size
    if at > len(whole) or min(head.frames, default=0) < 0 or head.body < 0:
        raise WireError("the guest's result is shorter than it says")
    if head.status:
        body = _failure(head, engine, body)
    body, placed = place_body(body, frames)
    outcome = Result(
        task,
        attempt,
        STATUS_ERROR if head.status else STATUS_OK,
        head.started,
        head.finished,
        head.stdout,
        head.stderr,
        body,
        len(placed),
        head.display,
    )
    return outcome, placed


def _failure(head: Head, engine: str, exception: bytes) -> bytes:
    kind = _ERRORS.get(head.error)
    if kind is not None:
        exception = pickle.dumps(kind(head.message, hint=head.hint), 5)
    failure = payload.RemoteFailure(head.name, head.message, head.traceback, engine, head.index, exception)
    return payload.pack_failure(failure)


def refused(task: bytes, attempt: int, engine: str, error: ClusterdError) -> Result:
    """A task that cannot be sent to a stock engine, or whose reply cannot be read."""
    body = payload.pack_failure(
        payload.RemoteFailure(type(error).__name__, error.message, str(error), engine, -1, pickle.dumps(error, 5))
    )
    return Result(task, attempt, STATUS_ERROR, 0.0, 0.0, "", "", body)


def _failed_outside(task: bytes, attempt: int, engine: str, content: dict[str, Any]) -> Result:
    """The call failed before the guest ran, or after: an interrupt, or an engine that lacks something."""
    name, text = str(content.get("ename", "TaskError")), str(content.get("evalue", ""))
    lines = content.get("traceback")
    told = "\n".join(map(str, lines)) if isinstance(lines, list) else ""
    exception = pickle.dumps(KeyboardInterrupt(), 5) if name == "KeyboardInterrupt" else b""
    failure = payload.RemoteFailure(name, text, f"On engine {engine}:\n{told}", engine, -1, exception)
    return Result(task, attempt, STATUS_ERROR, 0.0, 0.0, "", "", payload.pack_failure(failure))

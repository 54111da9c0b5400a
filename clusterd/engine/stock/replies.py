"""What a reply to a stock client says: its metadata, its content, and errors as IPython shows them.

The keys are those that ipyparallel's scheduler and client look at. Everything is made JSON here, whatever user code put into it.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec

from clusterd.core.wire.jupyter import date_of
from clusterd.engine.sources import format_traceback, without_ours

if TYPE_CHECKING:
    from clusterd.engine.shell import EngineShell

UNMET = "UnmetDependency"
"""The error by which a task says that this engine is not the one for it; known by its name, as in ipyparallel."""


class Identity:
    """How stock clients know this engine.

    Attributes:
        uuid: in hexadecimal digits.
        id: what clients call it; -1 before it has registered.
    """

    __slots__ = ("id", "uuid")

    def __init__(self, uuid: bytes) -> None:
        self.uuid = uuid.hex()
        self.id = -1

    def info(self, method: str) -> dict[str, Any]:
        """`engine_info` of an error. A client waits for the end of the output of whatever has it."""
        return {"engine_uuid": self.uuid, "engine_id": self.id, "method": method}


def metadata(identity: Identity, request: dict[str, Any], started: float, content: dict[str, Any]) -> dict[str, Any]:
    """Metadata of a reply. `request` is that of the request, `content` that of the reply."""
    status = content["status"]
    found = {
        "started": date_of(started),
        "dependencies_met": content.get("ename") != UNMET,
        "engine": identity.uuid,
        # Broadcasts hang where these are missing.
        "is_broadcast": request.get("is_broadcast", False),
        "is_coalescing": request.get("is_coalescing", False),
        "original_msg_id": request.get("original_msg_id", ""),
        "label": request.get("label"),
        "status": status,
    }
    if status != "ok":
        found["engine_info"] = {"engine_uuid": identity.uuid, "engine_id": identity.id}
    return found


def failure(error: BaseException, lines: list[str], identity: Identity, method: str) -> dict[str, Any]:
    """Content of an error reply; never raises."""
    try:
        text = str(error)
    except BaseException as problem:  # noqa: BLE001 - user code
        text = f"(its text cannot be had: {type(problem).__name__})"
    return {
        "status": "error",
        "ename": type(error).__name__,
        "evalue": text,
        "traceback": lines,
        "engine_info": identity.info(method),
    }


def traceback_lines(shell: EngineShell, error: BaseException) -> list[str]:
    """The traceback as IPython shows it, without the frames that are ours; never raises."""
    try:
        trace = without_ours(error.__traceback__)
        if isinstance(error, SyntaxError) and trace is None:
            lines = shell.SyntaxTB.structured_traceback(type(error), error, [])
        else:
            lines = shell.InteractiveTB.structured_traceback(type(error), error, trace)
        return [str(line) for line in lines]
    except BaseException:  # noqa: BLE001 - __repr__ and line caches of user code
        return format_traceback(error, "this engine").splitlines()
    finally:
        # It names all locals of the task: arguments and values would live until the next failure.
        shell.InteractiveTB.tb = None


def flat(buffer: Any) -> memoryview:
    """A buffer as the wire wants it: one dimension of bytes."""
    view = memoryview(buffer)
    if view.ndim == 1 and view.format == "B":
        return view
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def plain_json(value: Any) -> bytes:
    """JSON of what user code has given: bytes become base64, what JSON does not know its text."""
    try:
        return _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return _encode(_plain(value, 16))


def _hook(value: Any) -> Any:
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        # A number of numpy's.
        return item()
    if isinstance(value, memoryview):
        return base64.b64encode(value).decode()
    return str(value)


def _plain(value: Any, depth: int) -> Any:
    """With keys that are text, and text that is Unicode; cut where it is deep, or bites its tail."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, bool | float | bytes | bytearray):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    if depth and isinstance(value, dict):
        return {_plain(str(key), 0): _plain(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth - 1) for item in value]
    return _plain(str(value), 0)


_encode = msgspec.json.Encoder(enc_hook=_hook).encode

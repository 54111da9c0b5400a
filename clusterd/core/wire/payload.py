"""The payload: what a user's values, functions and exceptions look like in bytes. Pure; cloudpickle is passed in.

A value is one *body*, a pickle of protocol 5, and *frames*, its buffers of 16 KiB and more, which are never copied here.
What is unpacked shares the memory of its frames: over a writable frame (a received zmq frame is one) an array is writable,
over a read-only frame (bytes) it is read-only; buffers below 16 KiB keep what they were at the sender. Code by value is
bytecode, and bytecode of another minor release can crash the interpreter: such bodies end in a mark with the release.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from clusterd.errors import TaskError, TaskNotSendable, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OUT_OF_BAND_BYTES: Final = 16 * 1024
"""Smaller buffers travel in the body: a frame of its own costs about 1 us on each of three hops, the copy of 16 KiB less."""
MAX_FRAMES: Final = 256
"""Buffers of one value beyond this number travel in the body, so that one value never exceeds a message's frame limit."""

_ATOMS: Final = frozenset({type(None), bool, int, float, str})
_CONTAINERS: Final = frozenset({tuple, list, dict})
# What `_survey` finds: only builtin values (plain pickle takes 0.2 us, cloudpickle 1.7); anything else; long bytes.
_PLAIN, _OTHER, _LONG = range(3)
# Searches look into containers up to this many elements: a list of a million numbers is not searched for long bytes.
_LIFT_WIDTH: Final = 64
_LIFT_DEPTH: Final = 3
# Whatever cloudpickle sends by value is rebuilt by functions of this module, whose name stands in the pickle.
_CODE_NAME: Final = b"cloudpickle.cloudpickle"
# A pickle ends at its STOP opcode and what follows is ignored (library reference, pickle.loads): the mark stands there.
_MARK: Final = b"\0py"
_RELEASE: Final = bytes(sys.version_info[:2])


class Dumps(Protocol):
    """`pickle.dumps` or `cloudpickle.dumps`."""

    def __call__(self, value: Any, /, protocol: int, *, buffer_callback: Callable[[Any], Any]) -> bytes:
        """The pickle of `value`."""
        ...


class _Buffer:
    """A long bytes or bytearray on its way out of band; pickle itself would copy it into the body."""

    __slots__ = ("value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        # bytes(x) of a frame that is bytes already is x itself: no copy on that side either.
        return (type(self.value), (pickle.PickleBuffer(self.value),))


def _survey(values: Any, depth: int) -> int:
    """_PLAIN, _OTHER or _LONG: the worst of what a container holds, looking no deeper and no wider than the bounds."""
    worst = _PLAIN
    for value in values:
        kind = type(value)
        if kind in _ATOMS:
            continue
        found = _OTHER
        if kind is bytes or kind is bytearray:
            found = _LONG if len(value) >= OUT_OF_BAND_BYTES else _PLAIN
        elif kind in _CONTAINERS and depth and len(value) <= _LIFT_WIDTH:
            found = _survey(value, depth - 1)
            if kind is dict:
                found = max(found, _survey(value.values(), depth - 1))
        worst = max(worst, found)
    return worst


def _lift(value: Any, depth: int) -> Any:
    """`value` with each long bytes in the reach of `_survey` wrapped in a `_Buffer`; containers are copied, not changed."""
    kind = type(value)
    if kind is bytes or kind is bytearray:
        return _Buffer(value) if len(value) >= OUT_OF_BAND_BYTES else value
    if depth < 0 or kind not in _CONTAINERS or len(value) > _LIFT_WIDTH:
        return value
    if kind is dict:
        return {key: _lift(item, depth - 1) for key, item in value.items()}
    items = [_lift(item, depth - 1) for item in value]
    return items if kind is list else tuple(items)


def pack(value: Any, dumps: Dumps, what: str = "the value") -> tuple[bytes, list[memoryview]]:
    """The body of a value and its out-of-band frames, in order.

    Args:
        value: anything that can be pickled.
        dumps: `cloudpickle.dumps`, or `pickle.dumps` where no code goes by value.
        what: how an error calls the value.

    Raises:
        TaskNotSendable: it cannot be pickled; the cause is attached.
    """
    found = _PLAIN if type(value) in _ATOMS else _survey((value,), _LIFT_DEPTH)
    if found == _PLAIN:
        return pickle.dumps(value, 5), []
    frames: list[memoryview] = []

    def is_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND_BYTES or len(frames) == MAX_FRAMES:
            return True
        frames.append(raw)
        return False

    try:
        body = dumps(_lift(value, _LIFT_DEPTH) if found == _LONG else value, protocol=5, buffer_callback=is_in_band)
    except Exception as error:
        raise TaskNotSendable(
            f"{what} cannot be pickled: {type(error).__name__}: {error}",
            hint=f"it is {describe(value)}",
        ) from error
    if _CODE_NAME in body:
        body += _MARK + _RELEASE
    return body, frames


def unpack(body: Any, frames: Sequence[Any] = (), loads: Callable[..., Any] = pickle.loads) -> Any:
    """The value again; shares memory with `frames` (see the head of this module).

    Args:
        body: bytes or another buffer.
        frames: the out-of-band buffers, in order.
        loads: `pickle.loads` or one of the same signature.

    Raises:
        TaskNotSendable: it holds code by value that another minor release of Python made.
        Exception: whatever unpickling raises (a module that is not installed here, for one).
    """
    if type(body) is not bytes or body[-5:-2] == _MARK:
        check_release(body)
    return loads(body, buffers=frames)


def writable(frames: Sequence[Any]) -> list[Any]:
    """`frames` with those that are read-only copied: transports give small frames as bytes, and large ones writable.

    For values whose new owner may change them in place, as an engine's tasks may their arguments.
    """
    return [bytearray(frame) if memoryview(frame).readonly else frame for frame in frames]


def check_release(body: Any) -> None:
    """Refuse code by value of another Python.

    Raises:
        TaskNotSendable: the mark of `body` names another minor release.
    """
    tail = bytes(body[-5:])
    if tail[:3] == _MARK and tail[3:] != _RELEASE:
        there, here = (f"{major}.{minor}" for major, minor in (tail[3:], _RELEASE))
        raise TaskNotSendable(
            f"code by value from Python {there} cannot run on Python {here}",
            hint="Use the same minor release on both sides (`python:` in the profile), or put the function into a module "
            "that both sides import.",
        )


def has_code(body: bytes) -> bool:
    """True when the body holds functions or classes by value: it needs the same Python on the other side."""
    return body.endswith(_MARK + _RELEASE)


def describe(value: Any, limit: int = 200) -> str:
    """`repr`, cut to `limit` characters, of a value whose repr may be huge or raise."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - user code
        text = f"an object of type {type(value).__qualname__} (its repr raised {type(error).__name__})"
    return text if len(text) <= limit else f"{text[:limit]}..."


# --- functions -------------------------------------------------------------------------------------------------------


def pack_function(
    function: Callable[..., Any], dumps: Dumps, sources: dict[str, tuple[int, str]] | None = None
) -> tuple[bytes, list[memoryview]]:
    """The body of a `Function` message and its frames.

    Args:
        function: what is to be called.
        dumps: as in `pack`.
        sources: by file name of code: number of the first line and text, for remote tracebacks of code whose file the
            engine does not have (a notebook cell, a script in a private directory).
    """
    return pack((function, sources or {}), dumps, f"the function {getattr(function, '__qualname__', function)}")


def function_digest(name: str, python: str, body: bytes, frames: Sequence[Any] = ()) -> bytes:
    """The 16 bytes that name a function on the wire (PROTOCOL.md section 5)."""
    digest = blake2b(digest_size=16)
    for part in (name.encode(), python.encode(), body, *frames):
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


# --- failures --------------------------------------------------------------------------------------------------------


class RemoteTraceback(Exception):
    """The cause of every exception that comes from an engine: its text is the traceback there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class RemoteFailure(msgspec.Struct, array_like=True):
    """The body of a Result with STATUS_ERROR, in MessagePack: to be shown without running a user's pickle.

    Attributes:
        name: qualified name of the exception's type.
        message: its text.
        traceback: of the engine, with source lines.
        engine: "local/engines/3".
        index: position in the chunk of the item that failed, -1 outside of a map.
        exception: pickle of the exception, empty where it has none.
    """

    name: str
    message: str
    traceback: str
    engine: str = ""
    index: int = -1
    exception: bytes = b""

    def to_exception(self, loads: Callable[..., Any] = pickle.loads) -> BaseException:
        """The exception with its own type, or a TaskError where that type cannot be had here; never raises."""
        unpacked: Any = None
        with contextlib.suppress(Exception):  # the type's module may be missing here, or do anything
            unpacked = unpack(self.exception, (), loads)
        told = f"{self.name}: {self.message}" if self.message else self.name
        error = unpacked if isinstance(unpacked, BaseException) else TaskError(told)
        error.__cause__ = RemoteTraceback(self.traceback)
        return error


_failure_decoder = msgspec.msgpack.Decoder(RemoteFailure)


def pack_failure(failure: RemoteFailure) -> bytes:
    """The body of a Result with STATUS_ERROR."""
    return msgspec.msgpack.encode(failure)


def unpack_failure(body: Any) -> RemoteFailure:
    """The failure again.

    Raises:
        WireError: it is none.
    """
    try:
        return _failure_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"not the record of a failure: {error}") from error


def pack_exception(error: BaseException, dumps: Dumps) -> bytes:
    """A pickle of an exception that was proved to unpickle, or b"" when there is none.

    The usual pickle of an exception calls its class with `args`, which fails for every class whose `__init__` takes
    something else than it passes to Exception: for these the instance is rebuilt without `__init__`.
    """
    for candidate in (error, _Rebuilt(error)):
        try:
            body, _ = pack(candidate, _in_band(dumps))
            copy = unpack(body)
            # The usual way may also succeed and be wrong: an __init__ that words its message does so a second time.
            if isinstance(copy, BaseException) and _text(copy) == _text(error):
                return body
        except Exception:  # noqa: BLE001, S112 - user code: any failure means the next way
            continue
    return b""


def _text(error: BaseException) -> str:
    return f"{type(error).__qualname__}: {error}"


def _in_band(dumps: Dumps) -> Dumps:
    def dump(value: Any, /, protocol: int, *, buffer_callback: Callable[[Any], Any]) -> bytes:
        del buffer_callback  # a failure is one body: arrays inside of an exception are copied
        return dumps(value, protocol, buffer_callback=lambda _: True)

    return dump


class _Rebuilt:
    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return (rebuild_exception, (type(self.error), self.error.args, self.error.__dict__))


def rebuild_exception(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """An exception as it was, without a call of its `__init__`; named in pickles, so it keeps name and place."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error

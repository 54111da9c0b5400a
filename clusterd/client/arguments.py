"""Values in bytes: arguments of calls, columns of a map, names to push.

Plain pickle where that is certain to do, cloudpickle else; large buffers go out of band. A buffer that its owner may still
change is copied unless the caller waits for the result: a task may wait in a queue, or be sent again, long after the call.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Final

import cloudpickle

from clusterd.core.wire import payload
from clusterd.core.wire.frames import INLINE_BODY_BYTES, place_body
from clusterd.errors import TaskNotSendable

if TYPE_CHECKING:
    from collections.abc import Sequence

Packed = tuple[bytes, "Sequence[Any]"]
"""Body field of the message, and its payload frames."""

_ATOMS: Final = frozenset({type(None), bool, int, float, str})
_NOTHING: Final[Packed] = (pickle.dumps(((), {}), 5), ())


def pack_call(args: tuple[Any, ...], kwargs: dict[str, Any], *, name: str, is_copying: bool = True) -> Packed:
    """The arguments of one call.

    Args:
        args: by position.
        kwargs: by name.
        name: of the function, for errors.
        is_copying: copy buffers that can be changed.

    Raises:
        TaskNotSendable: an argument cannot be pickled; says which.
    """
    if not kwargs:
        if not args:
            return _NOTHING
        for value in args:
            if type(value) not in _ATOMS:
                break
        else:
            # The usual small call; it costs 0.3 us here and 2 us below.
            body = pickle.dumps((args, kwargs), 5)
            return (body, ()) if len(body) <= INLINE_BODY_BYTES else place_body(body, ())
    try:
        return _pack((args, kwargs), is_copying=is_copying)
    except TaskNotSendable as error:
        for number, value in enumerate(args):
            _blame(value, f"argument {number} of {name}")
        for key, value in kwargs.items():
            _blame(value, f"argument {key!r} of {name}")
        raise error from error.__cause__


def pack_columns(columns: tuple[Sequence[Any], ...], *, name: str) -> Packed:
    """The items of a chunk: for each parameter the list of its values.

    Raises:
        TaskNotSendable: an item cannot be pickled; says which, by its place in the chunk.
    """
    if all(set(map(type, column)) <= _ATOMS for column in columns):
        return place_body(pickle.dumps(columns, 5), ())
    try:
        return _pack(columns, is_copying=True)
    except TaskNotSendable as error:
        for column in columns:
            for place, value in enumerate(column):
                _blame(value, f"item {place} of a chunk for {name}")
        raise error from error.__cause__


def pack_names(names: dict[str, Any], *, is_copying: bool = True) -> Packed:
    """Names to push and their values.

    Raises:
        TaskNotSendable: a value cannot be pickled; says which.
    """
    try:
        return _pack(names, is_copying=is_copying)
    except TaskNotSendable as error:
        for key, value in names.items():
            _blame(value, f"the value of {key!r}")
        raise error from error.__cause__


def pack_plain(value: Any) -> Packed:
    """Text, or a list of names."""
    return place_body(pickle.dumps(value, 5), ())


def _pack(value: Any, *, is_copying: bool) -> Packed:
    body, views = payload.pack(value, cloudpickle.dumps, "the arguments")
    frames: Sequence[Any] = views
    if is_copying and views:
        frames = [view if view.readonly else bytes(view) for view in views]
    return place_body(body, frames)


def _blame(value: Any, what: str) -> None:
    """Raise with the name of the culprit, if this is one."""
    try:
        payload.pack(value, cloudpickle.dumps, what)
    except TaskNotSendable as error:
        raise error from error.__cause__

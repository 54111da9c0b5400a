"""Rows of stock tasks read back: the reply that a row stands for, and what is to be done for it again. Pure.

A broadcast is a row of its own (WHOLE) with what its parts have together, their engines among it; each part (PART) refers to it. Neither is
shown in histories or found by queries, because ipcontroller records no broadcasts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from clusterd.controller.compat import broadcast
from clusterd.controller.compat.names import no_engine
from clusterd.controller.compat.origin import Group, Origin, metadata_of
from clusterd.controller.compat.replies import error_content, failure_of, metadata_of_ours
from clusterd.controller.compat.task_options import TaskOptions
from clusterd.core.wire import jupyter
from clusterd.errors import WireError
from clusterd.storage.taskstore.row import PART, TaskRow

if TYPE_CHECKING:
    from collections.abc import Sequence


class Wish(msgspec.Struct, array_like=True):
    """What of a stock task its row does not say otherwise.

    Attributes:
        channel, name: as in `Origin`.
        target: wire ids of the engines that may run it; null: any.
        whole: msg_id of the broadcast that it is a part of, and `index`: its place there.
        engines: of a broadcast: wire ids by place; -1 where there was no engine.
    """

    channel: str
    name: bytes = b""
    target: int | list[int] | None = None
    whole: str = ""
    index: int = 0
    engines: list[int] = []


encode_wish = msgspec.msgpack.Encoder().encode
decode_wish = msgspec.msgpack.Decoder(Wish).decode


class FromRow(NamedTuple):
    """A reply without its parent, which is the header of the row; `engine`: who answered."""

    header: bytes
    metadata: bytes
    content: bytes
    buffers: Sequence[Any]
    engine: str


# --- replies ---


def reply_of(row: TaskRow) -> FromRow:
    """The reply of a task that has ended."""
    outcome = row.outcome
    assert outcome is not None  # noqa: S101 - asked by the caller
    if outcome.content:
        header = outcome.header or _header(row, row.engine)
        return FromRow(header, outcome.metadata, outcome.content, outcome.buffers, row.engine)
    wish = decode_wish(row.wish)
    engine = wish.name.decode("ascii", "replace") or row.engine
    content, status = failure_of(outcome.status, outcome.message, wish.channel, row.msg_id, engine)
    metadata = metadata_of_ours(metadata_of(row.metadata), status, engine)
    return FromRow(_header(row, engine), jupyter.json_of(metadata), jupyter.json_of(content), (), engine)


def joined(group: Group, whole: TaskRow) -> FromRow:
    """The one reply to a broadcast that asked for that; `group` has the rows of its parts."""
    for index, row in enumerate(group.rows):
        if row is not None:
            reply = reply_of(row)
            group.replies[index] = (reply.metadata, reply.content, reply.buffers)
            if row.outcome is not None and row.outcome.status != "ok":
                group.error = group.error or (reply.metadata, reply.content)
    return FromRow(_header(whole, ""), *broadcast.together(group), "")


def _header(row: TaskRow, engine: str) -> bytes:
    """The header of a reply that no stock engine has made."""
    outcome = row.outcome
    asked = jupyter.header_of(row.header).msg_type
    header = {
        "msg_id": f"{row.msg_id}_reply",
        "msg_type": f"{asked.removesuffix('_request')}_reply",
        "username": "clusterd",
        "session": engine or "clusterd",
        "date": jupyter.date_of(0.0 if outcome is None else outcome.completed),
        "version": jupyter.VERSION,
    }
    return jupyter.json_of(header)


# --- what is to be done again ---


def needs_of(row: TaskRow) -> tuple[bytes, ...]:
    """The tasks that a task waits for."""
    if row.queue != "task" or row.metadata == jupyter.EMPTY:
        return ()
    try:
        return TaskOptions(metadata_of(row.metadata)).needs
    except WireError:
        return ()


def is_aimed(row: TaskRow) -> bool:
    """Say whether it is for some engines alone."""
    return decode_wish(row.wish).target is not None


# --- broadcasts ---


def is_coalescing(row: TaskRow) -> bool:
    """Say whether a part has its answer with all others."""
    return bool(metadata_of(row.metadata).is_coalescing)


def group_of(whole: TaskRow) -> Group:
    """The broadcast that a row stands for; nothing is known of its parts."""
    metadata = metadata_of(whole.metadata)
    origin = Origin("broadcast", b"", whole.header, jupyter.header_of(whole.header), metadata)
    group = Group(origin, metadata.targets, is_coalescing=bool(metadata.is_coalescing))
    group.row = whole
    return group


def part_ids(whole: TaskRow) -> list[str]:
    """The msg_ids of its parts, by place."""
    targets = broadcast.targets_of(metadata_of(whole.metadata))
    return [broadcast.part_id(whole.msg_id, name) for name, _ in targets]


def engines_of(whole: TaskRow) -> list[int]:
    """The wire ids of their engines."""
    return decode_wish(whole.wish).engines


def part_row(whole: TaskRow, index: int) -> TaskRow:
    """The row of a part that was never written down."""
    group = group_of(whole)
    message = jupyter.Message((), b"", whole.header, jupyter.EMPTY, whole.metadata, whole.content, ())
    metadata = metadata_of(whole.metadata)
    decoded = jupyter.header_of(whole.header)
    copies = broadcast.copies(message, decoded, group, broadcast.targets_of(metadata), metadata)
    origin, narrowed = list(copies)[index]
    wish = Wish("broadcast", origin.name, engines_of(whole)[index], whole.msg_id, index)
    return TaskRow(
        origin.msg_id,
        whole.client,
        PART,
        whole.submitted,
        label=None,
        header=origin.header,
        metadata=narrowed,
        content=whole.content,
        is_whole=False,
        wish=encode_wish(wish),
        is_owed=True,
    )


def refuse_missing(group: Group, whole: TaskRow, index: int) -> None:
    """A part has no row: there was no engine for it, or somebody has removed it."""
    name, _ = broadcast.targets_of(metadata_of(whole.metadata))[index]
    text = no_engine(name.encode())
    if engines_of(whole)[index] >= 0:
        text = f"the result of its part for engine {name!r} is not in the store any more"
    echo = metadata_of(whole.metadata)
    echo.original_msg_id = whole.msg_id
    reply = (
        jupyter.json_of(metadata_of_ours(echo, "error", "")),
        jupyter.json_of(error_content("EngineError", text)),
    )
    group.replies[index] = (*reply, ())
    group.error = group.error or reply

"""One request for several engines: a copy for each, and one reply for all where the client asked for that.

Each copy is a task of its own, under `<msg_id>_<uuid>`, as clients expect it. Buffers are shared by all. Replies are put together in
the order in which the client named the engines; if any failed, that error is the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clusterd.controller.compat.origin import Group, Origin
from clusterd.core.wire import jupyter
from clusterd.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clusterd.controller.compat.origin import Metadata


def targets_of(metadata: Metadata) -> list[tuple[str, Any]]:
    """[(uuid, id)] in the order of the request.

    Raises:
        WireError: it is no such list.
    """
    targets = metadata.targets
    if not isinstance(targets, list) or not targets:
        raise WireError("a broadcast without targets")
    pairs: list[tuple[str, Any]] = []
    for target in targets:
        match target:
            case [str(uuid), number]:
                pairs.append((uuid, number))
            case _:
                raise WireError(f"a broadcast to {target!r}, which is no [uuid, id]")
    return pairs


def part_id(msg_id: str, uuid: str) -> str:
    """The msg_id of the copy for one engine."""
    return f"{msg_id}_{uuid}"


def copies(
    request: jupyter.Message, decoded: jupyter.Header, group: Group, targets: Sequence[tuple[str, Any]], echo: Metadata
) -> Iterator[tuple[Origin, bytes]]:
    """For each target: the origin of its copy (`target` is not set), and its metadata."""
    header = jupyter.dict_of(request.header, "header")
    metadata = jupyter.dict_of(request.metadata, "metadata")
    metadata["original_msg_id"] = echo.original_msg_id = decoded.msg_id
    for index, (uuid, number) in enumerate(targets):
        header["msg_id"] = own = part_id(decoded.msg_id, uuid)
        metadata["targets"] = [[uuid, number]]
        part = jupyter.Header(own, decoded.msg_type, decoded.session, decoded.date)
        origin = Origin("broadcast", group.origin.route, jupyter.json_of(header), part, echo, name=uuid.encode())
        origin.group, origin.index = group, index
        yield origin, jupyter.json_of(metadata)


def together(group: Group) -> tuple[bytes, bytes, Sequence[Any]]:
    """(metadata, content, buffers) of the one reply to a coalescing broadcast of which all parts have ended."""
    if group.error is not None:
        data, content = group.error
        buffers: list[Any] = []
    else:
        first = next(reply for reply in group.replies if reply is not None)
        data, content = first[0], first[1]
        buffers = [frame for reply in group.replies if reply is not None for frame in reply[2]]
    metadata = jupyter.dict_of(data, "metadata")
    metadata["is_broadcast"] = metadata["is_coalescing"] = True
    metadata["original_msg_id"] = group.origin.msg_id
    metadata["broadcast_targets"] = group.targets
    return jupyter.json_of(metadata), content, buffers

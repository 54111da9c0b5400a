"""What the edge remembers of a request from a stock client until it has its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from clusterd.core.wire import jupyter
from clusterd.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.core.wire.jupyter import Header
    from clusterd.storage.taskstore.row import TaskRow


class Echo(msgspec.Struct):
    """What of a request's metadata every reply repeats: clients look for it there, and wait for ever without it."""

    label: Any = None
    is_broadcast: Any = False
    is_coalescing: Any = False
    original_msg_id: Any = ""


class Metadata(Echo):
    """The metadata of a request: all optional, and checked where it is used."""

    targets: Any = None
    after: Any = None
    follow: Any = None
    timeout: Any = None
    retries: Any = None


_decode_metadata = msgspec.json.Decoder(Metadata).decode
_NONE = Metadata()


def metadata_of(data: bytes) -> Metadata:
    """Decode the metadata of a request.

    Raises:
        WireError: it is no JSON object.
    """
    if data == jupyter.EMPTY:
        return _NONE
    try:
        return _decode_metadata(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"metadata: {error}") from error


class Origin:
    """Where a task came from.

    Attributes:
        channel: mux, task, broadcast, control (our own task for a control request), hub (run once more) or comm: both answered to nobody.
        route: routing id of the client's socket.
        header: of the request, as the engine gets it: the parent of all that comes of it.
        msg_id, msg_type, session, date: from that header.
        metadata: of the request, decoded; in so far as replies of our own making repeat it.
        target: wire id of the engine that it was sent to; -1 where any may run it.
        name: what the client called that engine; empty where it named none.
        group: the broadcast that it is a part of, and `index` its place there.
        has_shown: output of it has been published.
    """

    __slots__ = (
        "channel",
        "date",
        "group",
        "has_shown",
        "header",
        "index",
        "metadata",
        "msg_id",
        "msg_type",
        "name",
        "route",
        "session",
        "target",
    )

    def __init__(
        self,
        channel: str,
        route: bytes,
        header: bytes,
        decoded: Header,
        metadata: Echo,
        target: int = -1,
        name: bytes = b"",
    ) -> None:
        self.channel = channel
        self.route = route
        self.header = header
        self.msg_id = decoded.msg_id
        self.msg_type = decoded.msg_type
        self.session = decoded.session
        self.date = decoded.date
        self.metadata = metadata
        self.target = target
        self.name = name
        self.group: Group | None = None
        self.index = 0
        self.has_shown = False

    @property
    def reply_type(self) -> str:
        """The msg_type of its reply."""
        return f"{self.msg_type.removesuffix('_request')}_reply"


class Group:
    """One broadcast.

    Attributes:
        origin: of the request itself.
        targets: [uuid, id] as the client gave them: the order of results.
        is_coalescing: one reply for all.
        replies: by place: (metadata, content, buffers) of those that have come.
        left: how many have not ended.
        error: (metadata, content) of the first that failed.
        is_mute: the client knows already that it failed, and prints what comes late as a stranger.
        row: where it is durable: what is written down of the request, and `rows` by place: of parts that have ended here.
    """

    __slots__ = ("error", "is_coalescing", "is_mute", "left", "origin", "replies", "row", "rows", "targets")

    def __init__(self, origin: Origin, targets: Sequence[Any], *, is_coalescing: bool) -> None:
        self.origin = origin
        self.targets = targets
        self.is_coalescing = is_coalescing
        self.replies: list[tuple[bytes, bytes, Sequence[Any]] | None] = [None] * len(targets)
        self.left = len(targets)
        self.error: tuple[bytes, bytes] | None = None
        self.is_mute = False
        self.row: TaskRow | None = None
        self.rows: list[TaskRow | None] = [None] * len(targets)

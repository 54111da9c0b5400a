"""What a link tells its owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.core.wire.messages import Attached, Welcome
    from clusterd.errors import ClusterdError


class Received(NamedTuple):
    """One header's worth of messages; `payload` are memoryviews, `digests` are theirs where the link has them."""

    messages: list[Any]
    payload: list[memoryview]
    digests: list[bytes] | None


class Up(NamedTuple):
    """Attached. `is_new_controller` is true when its incarnation differs from the one before (also the first time)."""

    attached: Attached
    welcome: Welcome
    is_new_controller: bool


class Down(NamedTuple):
    """The connection is gone and will be dialled again. `unacked`: (messages, payload) never acknowledged, oldest first."""

    reason: str
    unacked: list[tuple[Sequence[Any], Sequence[Any]]]


class Refusal(NamedTuple):
    """The controller refuses for good: the link is closed."""

    error: ClusterdError


Event = Received | Up | Down | Refusal

"""Tells stock clients at once which engines come and go, and when the controller ends.

Work that an engine does before its client has heard of it belongs to nobody there, so its coming is said before anything else about it. A
client that hears that an engine has left fails all that it has sent to it, in words of its own, so that is said a moment behind our
answers, which name the cause. Nothing but these three messages may be said here.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from clusterd.controller.compat.names import name_of
from clusterd.core.wire import jupyter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.peers import Engine

LEAVING_SECONDS: Final = 0.1
"""So long after our answers for what an engine had is its leaving announced: they travel on other sockets."""
RECENT_SECONDS: Final = 15.0
"""A client asks who is there, and begins to listen after that; it may take so long (it gives up after 10 s) or miss what comes between."""
MAX_RECENT: Final = 4096
MAX_GONE: Final = 1000
"""Engines that have left whose names are remembered, for errors about them."""


class Announcements:
    """The notification channel.

    Args:
        edge: what the parts of the edge share.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        # By wire id, the one that left last at the end.
        self._gone: dict[int, str] = {}
        # Engines whose leaving is to be announced, with the monotonic time, in order.
        self._leaving: deque[tuple[float, int, str]] = deque()
        # What was said last of each engine, with the monotonic time, oldest first.
        self._recent: OrderedDict[int, tuple[float, str, str]] = OrderedDict()
        edge.listen("notification", self._subscribed)
        edge.hub.notices.on_came = self._came
        edge.hub.notices.on_gone = self._left

    def called(self, wire_id: int) -> str:
        """What clients call an engine, also one that has left; empty where there was none."""
        engine = self._edge.hub.engines_by_id.get(wire_id)
        return name_of(engine) if engine is not None else self._gone.get(wire_id, "")

    def has_left(self, wire_id: int) -> bool:
        """Say whether clients hear, or have heard, that an engine has left."""
        return wire_id in self._gone

    def close(self) -> None:
        """Say that the controller ends."""
        self.tick(float("inf"))
        self._say("shutdown_notification", {"status": "ok"})

    def _subscribed(self, frames: list[bytes], now: float) -> None:
        """A client listens from now on: it is told again of the last seconds; who knows that already takes no notice."""
        if frames[0][:1] == b"\1":
            for wire_id, (since, what, name) in list(self._recent.items()):
                if since + RECENT_SECONDS >= now:
                    self._say(what, {"id": wire_id, "uuid": name})

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        return self._leaving[0][0] if self._leaving else None

    def tick(self, now: float) -> None:
        """Announce who has left a moment ago."""
        while self._leaving and self._leaving[0][0] <= now:
            _, wire_id, name = self._leaving.popleft()
            self._tell(wire_id, "unregistration_notification", name)

    def _tell(self, wire_id: int, what: str, name: str) -> None:
        self._recent.pop(wire_id, None)
        self._recent[wire_id] = (self._edge.operations.now, what, name)
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        self._say(what, {"id": wire_id, "uuid": name})

    def _came(self, engine: Engine) -> None:
        if any(name == name_of(engine) for _, _, name in self._leaving):
            self.tick(float("inf"))  # it is back under its old name, and has left before
        self._tell(engine.id, "registration_notification", name_of(engine))

    def _left(self, engine: Engine) -> None:
        self._gone[engine.id] = name_of(engine)
        if len(self._gone) > MAX_GONE:
            del self._gone[next(iter(self._gone))]
        self._leaving.append((self._edge.operations.now + LEAVING_SECONDS, engine.id, name_of(engine)))

    def dismiss(self, signer: jupyter.Signer) -> None:
        """Have clients that have this key close themselves, as at the end of the controller: they will hear nothing more."""
        self._say("shutdown_notification", {"status": "ok"}, [signer])

    def _say(self, what: str, content: dict[str, Any], signers: Sequence[jupyter.Signer] = ()) -> None:
        try:
            header = self._edge.header(what, time.time())
            for signer in signers or self._edge.signers_for(None):
                frames = self._edge.sealed(header, jupyter.EMPTY, jupyter.EMPTY, jupyter.json_of(content), signer)
                self._edge.say(what, partial(self._edge.sockets.send, "notification", frames))
        except Exception as error:  # noqa: BLE001 - whoever comes or goes does so without it
            self._edge.fail(f"the notice {what}", error)

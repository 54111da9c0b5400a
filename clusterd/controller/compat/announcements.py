"""Tells stock clients at once which engines come and go, and when the controller ends.

A client that hears that an engine has left fails all that it has sent to it; work that an engine does before its client has heard of it
belongs to nobody there. So this is said before anything else about the engine. Nothing but these three messages may be said here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from clusterd.controller.compat.names import name_of
from clusterd.core.wire import jupyter

if TYPE_CHECKING:
    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.peers import Engine

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
        edge.hub.notices.on_came = self._came
        edge.hub.notices.on_gone = self._left

    def called(self, wire_id: int) -> str:
        """What clients call an engine, also one that has left; empty where there was none."""
        engine = self._edge.hub.engines_by_id.get(wire_id)
        return name_of(engine) if engine is not None else self._gone.get(wire_id, "")

    def close(self) -> None:
        """Say that the controller ends."""
        self._say("shutdown_notification", {"status": "ok"})

    def _came(self, engine: Engine) -> None:
        self._say("registration_notification", {"id": engine.id, "uuid": name_of(engine)})

    def _left(self, engine: Engine) -> None:
        self._gone[engine.id] = name_of(engine)
        if len(self._gone) > MAX_GONE:
            del self._gone[next(iter(self._gone))]
        self._say("unregistration_notification", {"id": engine.id, "uuid": name_of(engine)})

    def _say(self, what: str, content: dict[str, Any]) -> None:
        try:
            header = self._edge.header(what, time.time())
            frames = self._edge.sealed(header, jupyter.EMPTY, jupyter.EMPTY, jupyter.json_of(content))
            self._edge.sockets.send("notification", frames)
        except Exception as error:  # noqa: BLE001 - whoever comes or goes does so without it
            self._edge.fail(f"the notice {what}", error)

"""The whole edge as the controller's loop sees it: descriptors to poll, a way in, and what time asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.controller.compat.clients import Clients
from clusterd.controller.compat.engines import Engines
from clusterd.controller.compat.output import Output

if TYPE_CHECKING:
    from collections.abc import Container

    from clusterd.controller.compat.edge import Edge
    from clusterd.core.wire import jupyter

WORK = ("mux", "task", "broadcast", "mux_engine", "task_engine", "broadcast_engine")
_OF_ENGINES = frozenset({"registration_request", "unregistration_request"})


class Front:
    """All stock clients and engines of one controller.

    Args:
        edge: what its parts share.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self.output = Output(edge)
        self.engines = Engines(edge, self.output)
        self.clients = Clients(edge, self.output, self.engines)
        # One socket for engines that register and for the questions of clients.
        edge.listen_to_messages("registration", self._registration)

    def _registration(self, message: jupyter.Message, header: jupyter.Header, now: float) -> None:
        if header.msg_type in _OF_ENGINES:
            self.engines.registration(message, header, now)
        else:
            self.clients.query(message, header, now)

    # --- keys ---

    def change_key(self, key: str) -> None:
        """Have another key; whoever is there has the one that was the present one until now."""
        self._edge.keys.change(key, self.engines.names)

    def refuse_earlier_key(self, now: float) -> None:
        """Refuse who has an earlier key; clients are told in the only words that they know."""
        keys = self._edge.keys
        is_used = keys.is_inherited or any(session.signer is keys.earlier for session in self.clients.sessions.all())
        if keys.earlier is not None and is_used:
            self.clients.announcements.dismiss(keys.earlier)
        self.engines.refuse(keys.refuse_earlier(), now)

    @property
    def engines_with_earlier_key(self) -> list[str]:
        """Their names; a successor is to know them."""
        return sorted(name.decode("ascii") for name in self._edge.keys.engines)

    def using_old(self, now: float) -> dict[str, list[str]]:
        """Who has an earlier key, by kind, in words for people."""
        keys, hub = self._edge.keys, self._edge.hub
        there = {name: engine.name for name, engine in hub.engines.items() if engine.door is not None}
        return {
            "stock_engines": sorted(there.get(name, name.decode("ascii")) for name in keys.engines),
            "stock_clients": [
                f"{session.client.user or 'somebody'}, heard {now - session.last_heard:.0f} s ago"
                for session in self.clients.sessions.all()
                if session.signer is keys.earlier
            ],
        }

    # --- for the loop ---

    @property
    def descriptors(self) -> list[int]:
        """What to poll for reading."""
        return self._edge.sockets.descriptors

    @property
    def has_more(self) -> bool:
        """True while `receive` is to be called without sleeping before."""
        return self._edge.sockets.has_more

    def receive(self, readable: Container[int], now: float) -> None:
        """Take what has arrived."""
        self._edge.sockets.receive(readable, now)

    def hold_work(self, *, is_held: bool) -> None:
        """Read no work and no results, or read them again."""
        self._edge.sockets.hold(WORK if is_held else ())

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        due = [at for at in (self.clients.next_deadline(), self.engines.next_deadline()) if at is not None]
        return min(due, default=None)

    def tick(self, now: float) -> None:
        """Let time pass; called often."""
        self.clients.tick(now)
        self.engines.tick(now)

    def close(self, now: float) -> None:
        """Say goodbye to all. The sockets are closed by who bound them."""
        self.clients.close(now)
        self.engines.close(now)

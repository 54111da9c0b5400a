"""The hearts of stock engines: a ping to all every period, pongs back, and who has missed too many.

A pong counts when it answers the present ping or the one before. Beats are missed by pings that were sent, never by time alone: a
controller that was stopped for a minute holds that against nobody. An engine beats in a thread of C code, so one that does not is frozen,
cut off or dead, and nobody can say which: it is silent first, and given up only after as long again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from clusterd.controller.compat.edge import Edge

MISSES: Final = 10
"""Beats in a row that may be missed, as at ipcontroller's."""
HURRY_SECONDS: Final = 0.1
"""While an engine joins, the present ping is said again so often ..."""
HURRY_FOR: Final = 3.0
"""... for so long: nobody waits a whole period for an engine that is there."""
MIN_GRACE: Final = 5.0
"""Seconds at least between silent and given up, whatever the period: as long as ipcontroller waits for late results."""


class Owner(Protocol):
    """Who is told."""

    def pong(self, name: bytes, now: float) -> None:
        """An engine that is not followed has answered the present ping."""

    def silent(self, name: bytes, now: float) -> None:
        """It has missed too many."""

    def woken(self, name: bytes, now: float) -> None:
        """It was silent, and beats again."""

    def given_up(self, name: bytes, now: float) -> None:
        """It was silent for too long, and is not followed any more."""


class Heart:
    """One engine's. `given_up_at` is None while it is not silent."""

    __slots__ = ("given_up_at", "has_beaten", "missed")

    def __init__(self) -> None:
        self.missed = 0
        self.has_beaten = True
        self.given_up_at: float | None = None


class Heartbeat:
    """All of them.

    Args:
        edge: what the parts of the edge share.
        owner: is told.
    """

    def __init__(self, edge: Edge, owner: Owner) -> None:
        self._edge = edge
        self._owner = owner
        self._hearts: dict[bytes, Heart] = {}
        self._next_ping = 0.0
        # While somebody joins: when the ping is said again, and until when that goes on.
        self._next_repeat = float("inf")
        self._hurry_until = float("-inf")
        # How many pings there were.
        self.pings_sent = 0
        self._pings: tuple[bytes, bytes] = (b"", b"")
        edge.listen("hb_pong", self._pong)

    @property
    def grace(self) -> float:
        """Seconds between silent and given up."""
        return max(MIN_GRACE, MISSES * self._edge.ping)

    def follow(self, name: bytes) -> None:
        """Count the beats of an engine that has just beaten."""
        self._hearts[name] = Heart()

    def forget(self, name: bytes) -> None:
        """Count them no more."""
        self._hearts.pop(name, None)

    def hurry(self, now: float) -> None:
        """Somebody joins: its first beat is to come soon."""
        self._hurry_until = now + HURRY_FOR
        self._next_repeat = min(self._next_repeat, now + HURRY_SECONDS)

    def next_deadline(self) -> float:
        """When `tick` is due."""
        return min(self._next_ping, self._next_repeat)

    def tick(self, now: float) -> None:
        """Send the next ping when it is time, after a look at who has not answered the last one."""
        if now < self._next_ping:
            if now >= self._next_repeat:
                # The same as before: it counts as no beat that anybody could miss.
                self._next_repeat = now + HURRY_SECONDS if now < self._hurry_until else float("inf")
                self._edge.sockets.send("hb_ping", [self._pings[0]])
            return
        self._next_ping = now + self._edge.ping
        for name, heart in list(self._hearts.items()):
            self._look(name, heart, now)
        self.pings_sent += 1
        # In the form of ipcontroller's, an ASCII decimal number; engines send back whatever it is.
        ping = b"%d.0" % self.pings_sent
        self._pings = (ping, self._pings[0])
        self._edge.sockets.send("hb_ping", [ping])

    def _look(self, name: bytes, heart: Heart, now: float) -> None:
        if heart.has_beaten:
            heart.has_beaten = False
            heart.missed = 0
            return
        heart.missed += 1
        if heart.missed <= MISSES:
            return
        if heart.given_up_at is None:
            heart.given_up_at = now + self.grace
            self._owner.silent(name, now)
        elif now >= heart.given_up_at:
            del self._hearts[name]
            self._owner.given_up(name, now)

    def _pong(self, frames: list[bytes], now: float) -> None:
        if len(frames) != 2 or not frames[1] or frames[1] not in self._pings:
            return
        name = frames[0]
        heart = self._hearts.get(name)
        if heart is None:
            self._owner.pong(name, now)
            return
        heart.has_beaten = True
        if heart.given_up_at is not None:
            heart.given_up_at = None
            heart.missed = 0
            self._owner.woken(name, now)

"""The truth table: three views of an engine -> what is to be believed. A test holds it to be total.

The reasons, by the word of the agent (who holds a pidfd, and so is the best witness):
EXITED is proof. ALIVE means that silence is only a long task; a closed link makes a suspect, since nothing can be sent. FROZEN
(stopped) is suspect whatever still trickles in, and never more than that. STALE and GONE say nothing: the engine survives its
agent and the next one adopts it, so bytes or a look at its process must tell. NONE: nobody will ever bring proof, so only there
does a link that was closed for very long end it. A process seen to be GONE, by its full identity, is proof again.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Link(StrEnum):
    """What the connection to an engine shows."""

    FRESH = "fresh"  # something came lately
    SILENT = "silent"  # open, and nothing came for a while
    CLOSED = "closed"  # not connected
    EXPIRED = "expired"  # not connected for very long


class Word(StrEnum):
    """What the agent says of an engine."""

    ALIVE = "alive"
    FROZEN = "frozen"
    STALE = "stale"  # the agent itself is silent
    GONE = "gone"  # the agent itself is dead
    NONE = "none"  # no agent watches it
    EXITED = "exited"


class Process(StrEnum):
    """What was seen of an engine's process by who can look at it without the agent."""

    UNKNOWN = "unknown"
    RUNNING = "running"
    GONE = "gone"


class Verdict(StrEnum):
    """What is to be believed."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    LOST = "lost"


class Standing(StrEnum):
    """How an engine stands: the verdict, and QUARANTINED for one that is alive and was suspect too often. LOST is for ever."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    QUARANTINED = "quarantined"


def _row(fresh: Verdict, silent: Verdict, closed: Verdict, expired: Verdict) -> Mapping[Link, Verdict]:
    return {Link.FRESH: fresh, Link.SILENT: silent, Link.CLOSED: closed, Link.EXPIRED: expired}


_LOST: Final = _row(fresh=Verdict.LOST, silent=Verdict.LOST, closed=Verdict.LOST, expired=Verdict.LOST)
_SUSPECT: Final = _row(fresh=Verdict.SUSPECT, silent=Verdict.SUSPECT, closed=Verdict.SUSPECT, expired=Verdict.SUSPECT)
_BY_LINK: Final = _row(fresh=Verdict.ALIVE, silent=Verdict.SUSPECT, closed=Verdict.SUSPECT, expired=Verdict.SUSPECT)
_SILENCE_IS_FINE: Final = _row(
    fresh=Verdict.ALIVE, silent=Verdict.ALIVE, closed=Verdict.SUSPECT, expired=Verdict.SUSPECT
)
_UNWATCHED: Final = _row(fresh=Verdict.ALIVE, silent=Verdict.SUSPECT, closed=Verdict.SUSPECT, expired=Verdict.LOST)

TABLE: Final[Mapping[Word, Mapping[Process, Mapping[Link, Verdict]]]] = {
    Word.ALIVE: {Process.UNKNOWN: _SILENCE_IS_FINE, Process.RUNNING: _SILENCE_IS_FINE, Process.GONE: _LOST},
    Word.FROZEN: {Process.UNKNOWN: _SUSPECT, Process.RUNNING: _SUSPECT, Process.GONE: _LOST},
    Word.STALE: {Process.UNKNOWN: _BY_LINK, Process.RUNNING: _SILENCE_IS_FINE, Process.GONE: _LOST},
    Word.GONE: {Process.UNKNOWN: _BY_LINK, Process.RUNNING: _SILENCE_IS_FINE, Process.GONE: _LOST},
    Word.NONE: {Process.UNKNOWN: _UNWATCHED, Process.RUNNING: _SILENCE_IS_FINE, Process.GONE: _LOST},
    Word.EXITED: {Process.UNKNOWN: _LOST, Process.RUNNING: _LOST, Process.GONE: _LOST},
}

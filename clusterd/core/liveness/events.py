"""What is told to liveness: observations in the past participle, with their `age` in seconds where they were not made here and now.

Observations of engines, agents and clients that are not known (any more) are legal and change nothing.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct


class Event(Struct, frozen=True, gc=False):
    """Base of all."""


class EngineAttached(Event, frozen=True):
    """An engine is there, linked. `agent` watches it; None: nobody does (by hand, MPI). Told again, it is linked again."""

    engine: int
    agent: str | None = None


class EngineHeard(Event, frozen=True):
    """Bytes came from it. Once a turn of the loop is enough."""

    engine: int


class EngineUnlinked(Event, frozen=True):
    """Its connection is gone."""

    engine: int


class EngineReported(Event, frozen=True):
    """Its agent (an adopting one, when it is another than before) says that its process lives; frozen: that it is stopped."""

    engine: int
    agent: str
    is_frozen: bool = False
    age: float = 0.0


class EngineExited(Event, frozen=True):
    """Its agent says that its process has ended. `running`: the task on its status page."""

    engine: int
    cause: str
    last_output: str = ""
    running: bytes | None = None
    is_wanted: bool = False


class EngineLeft(Event, frozen=True):
    """It said goodbye, and whoever has to know does: it is judged no more."""

    engine: int


class ProcessSeen(Event, frozen=True):
    """Somebody who can look at its process without the agent has; `evidence` is for people. An error is no observation."""

    engine: int
    is_running: bool
    evidence: str
    age: float = 0.0


class AgentHeard(Event, frozen=True):
    """Bytes came from an agent."""

    agent: str


class AgentUnlinked(Event, frozen=True):
    """An agent's connection is gone; its engines go on."""

    agent: str


class AgentGone(Event, frozen=True):
    """An agent is dead, by proof; its engines go on."""

    agent: str


class ClientAttached(Event, frozen=True):
    """A client is there, linked, for the first time or again."""

    client: int


class ClientHeard(Event, frozen=True):
    """Bytes came from it."""

    client: int


class ClientUnlinked(Event, frozen=True):
    """Its connections are gone."""

    client: int


class ClientLeft(Event, frozen=True):
    """It said goodbye: it will not come back."""

    client: int


class Tick(Event, frozen=True):
    """Time has passed."""


AnyEvent: TypeAlias = (
    EngineAttached
    | EngineHeard
    | EngineUnlinked
    | EngineReported
    | EngineExited
    | EngineLeft
    | ProcessSeen
    | AgentHeard
    | AgentUnlinked
    | AgentGone
    | ClientAttached
    | ClientHeard
    | ClientUnlinked
    | ClientLeft
    | Tick
)

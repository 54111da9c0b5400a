"""What liveness asks the controller to do: most are told on to the scheduler as they are."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct


class Action(Struct, frozen=True, gc=False):
    """Base of all."""


class Suspect(Action, frozen=True):
    """Give the engine nothing new (scheduler: EngineSuspected)."""

    engine: int
    why: str


class Quarantine(Action, frozen=True):
    """It is back, and was suspect too often: give it nothing new yet. It is a suspect to the scheduler already."""

    engine: int
    why: str


class Trust(Action, frozen=True):
    """It is well (scheduler: EngineReturned)."""

    engine: int


class Lose(Action, frozen=True):
    """It is dead (scheduler: EngineLost, with the same fields)."""

    engine: int
    cause: str
    last_output: str = ""
    running: bytes | None = None
    is_wanted: bool = False


class AskAgent(Action, frozen=True):
    """Ask the agent what it sees of the engine; EngineReported or EngineExited answers."""

    agent: str
    engine: int


class AskDaemon(Action, frozen=True):
    """Ask who can look at the engine's process without its agent; ProcessSeen answers."""

    engine: int


class DetachClient(Action, frozen=True):
    """The client is away (scheduler: ClientDetached)."""

    client: int


class ReturnClient(Action, frozen=True):
    """The client is back (scheduler: ClientReturned)."""

    client: int


class ForgetClient(Action, frozen=True):
    """The client will not come back (scheduler: ClientForgotten)."""

    client: int


AnyAction: TypeAlias = (
    Suspect | Quarantine | Trust | Lose | AskAgent | AskDaemon | DetachClient | ReturnClient | ForgetClient
)

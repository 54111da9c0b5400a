"""HOLDS what liveness has observed: when, and by whom. Nothing here judges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from clusterd.core.liveness.verdicts import Process, Standing
from clusterd.core.timers import NEVER, Timers

if TYPE_CHECKING:
    from clusterd.core.liveness.actions import AnyAction
    from clusterd.core.liveness.events import EngineExited
    from clusterd.core.liveness.settings import Settings

Out: TypeAlias = "list[AnyAction]"

LONG_AGO: Final = float("-inf")


class Agent:
    """One agent. `heard`: when, last; `engines`: all and only engines that it watches."""

    __slots__ = ("engines", "heard", "is_gone", "is_linked", "name", "watch_at")

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.heard = now
        self.is_linked = True
        self.is_gone = False
        self.engines: dict[int, Engine] = {}
        self.watch_at = NEVER

    def speaks(self, now: float, settings: Settings) -> bool:
        """Say whether its word is worth anything."""
        return self.is_linked and not self.is_gone and now < self.heard + settings.agent_silent_after


class Engine:
    """One engine that is not lost.

    Attributes:
        heard: when bytes came from it, last.
        closed_since: when its connection went; None while linked.
        is_frozen, said_at: what its agent said of it last, and when that was so.
        exit: the end of its process.
        process, process_at, evidence: what was seen of its process last, when, and how.
        standing: what the scheduler was told.
        suspected_at: the last times at which it became suspect, within the flap window, oldest first.
        quarantined_until: no earlier does it get work; LONG_AGO for most.
        ask_at: when evidence is asked for again; NEVER unless suspect.
        watch_at: see `core.timers`.
    """

    __slots__ = (
        "agent",
        "ask_at",
        "closed_since",
        "evidence",
        "exit",
        "heard",
        "id",
        "is_frozen",
        "process",
        "process_at",
        "quarantined_until",
        "said_at",
        "standing",
        "suspected_at",
        "watch_at",
    )

    def __init__(self, number: int, agent: Agent | None, now: float) -> None:
        self.id = number
        self.agent = agent
        self.heard = now
        self.closed_since: float | None = None
        self.is_frozen = False
        self.said_at = now  # an engine that attaches was forked by its agent
        self.exit: EngineExited | None = None
        self.process = Process.UNKNOWN
        self.process_at = LONG_AGO
        self.evidence = ""
        self.standing = Standing.ALIVE
        self.suspected_at: list[float] = []
        self.quarantined_until = LONG_AGO
        self.ask_at = NEVER
        self.watch_at = NEVER


class Client:
    """One client. `away_since`: None while it is there."""

    __slots__ = ("away_since", "handle", "heard", "watch_at")

    def __init__(self, handle: int, now: float) -> None:
        self.handle = handle
        self.heard = now
        self.away_since: float | None = None
        self.watch_at = NEVER


class State:
    """Everything; an engine that is lost and a client that is forgotten are gone from here."""

    __slots__ = ("agents", "clients", "engines", "settings", "timers")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engines: dict[int, Engine] = {}
        self.agents: dict[str, Agent] = {}
        self.clients: dict[int, Client] = {}
        self.timers: Timers[Engine | Agent | Client] = Timers()

    def drop_idle(self, agent: Agent) -> None:
        """Drop an agent that watches nothing and does not speak: it is made anew when it does."""
        if not agent.engines and (agent.is_gone or not agent.is_linked):
            self.agents.pop(agent.name, None)

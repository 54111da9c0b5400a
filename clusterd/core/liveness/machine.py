"""DECIDES who is alive: the one entrance to liveness. See the package's docstring for how to drive it.

Handlers are functions by event type: they book the observation and have judged whom it concerns. What was heard costs one store
while nothing changes by it. Timers only make somebody look again; nothing is concluded from one having fired.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from clusterd.core.liveness import clients, engines, events
from clusterd.core.liveness.judging import describe, judge
from clusterd.core.liveness.settings import Settings
from clusterd.core.liveness.state import Agent, Engine, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterd.core.liveness.actions import AnyAction
    from clusterd.core.liveness.events import AnyEvent, Tick
    from clusterd.core.liveness.state import Out
    from clusterd.core.liveness.verdicts import Standing


def _tick(state: State, _event: Tick, now: float, out: Out) -> None:
    deadline = state.timers.next()
    if deadline is not None and now - deadline > state.settings.own_stall:
        engines.forgive(state, deadline, now)
        clients.forgive(state, deadline, now)
    for whose in list(state.timers.due(now)):
        if isinstance(whose, Engine):
            judge(state, whose, now, out)
        elif isinstance(whose, Agent):
            engines.look_at_agent(state, whose, now, out)
        else:
            clients.look_at_client(state, whose, now, out)


HANDLERS: Final[Mapping[type, Callable[[State, Any, float, Out], None]]] = {
    events.EngineAttached: engines.engine_attached,
    events.EngineHeard: engines.engine_heard,
    events.EngineUnlinked: engines.engine_unlinked,
    events.EngineReported: engines.engine_reported,
    events.EngineExited: engines.engine_exited,
    events.EngineLeft: engines.engine_left,
    events.ProcessSeen: engines.process_seen,
    events.AgentHeard: engines.agent_heard,
    events.AgentUnlinked: engines.agent_unlinked,
    events.AgentGone: engines.agent_gone,
    events.ClientAttached: clients.client_attached,
    events.ClientHeard: clients.client_heard,
    events.ClientUnlinked: clients.client_unlinked,
    events.ClientLeft: clients.client_left,
    events.Tick: _tick,
}
"""All events, each with its handler; a test holds this to the union `AnyEvent`."""


class Liveness:
    """The liveness of one cluster's engines and clients.

    Attributes:
        state: what was observed; for `invariants` and tests to read.
        story: the last events that changed somebody's standing, each with its time and what followed.
    """

    __slots__ = ("state", "story")

    def __init__(self, settings: Settings | None = None) -> None:
        self.state = State(settings or Settings())
        self.story: deque[tuple[float, AnyEvent, tuple[AnyAction, ...]]] = deque(maxlen=256)

    def handle(self, event: AnyEvent, now: float) -> list[AnyAction]:
        """Take one observation; return what follows."""
        out: list[AnyAction] = []
        self.handle_into(event, now, out)
        return out

    def handle_into(self, event: AnyEvent, now: float, out: list[AnyAction]) -> None:
        """Take one observation and append what follows."""
        before = len(out)
        HANDLERS[type(event)](self.state, event, now, out)
        if len(out) > before:
            self.story.append((now, event, tuple(out[before:])))

    def next_deadline(self) -> float | None:
        """Return when `Tick` is due at the latest; None: nothing is timed."""
        return self.state.timers.next()

    def standing(self, engine: int) -> Standing | None:
        """Return how an engine stands; None: it is lost, or was never known."""
        known = self.state.engines.get(engine)
        return None if known is None else known.standing

    def why(self, engine: int, now: float) -> str:
        """Return the evidence about an engine in a sentence; an empty string when it is not known."""
        known = self.state.engines.get(engine)
        return "" if known is None else describe(self.state, known, now)

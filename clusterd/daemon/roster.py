"""What the controller says of engines and agents: the last word on each, and when it was said. Turned into events, it decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.core.model.engine import EngineView
from clusterd.core.supervisor import events

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterd.core.wire.messages import AgentNotice, EngineGone, EngineInfo

__all__ = ["Roster"]


class Roster:
    """Engines and agents, as the controller knows them.

    Attributes:
        engines: registered ones by wire id.
        agents: the last notice about each launch that has an agent, by launch.
    """

    def __init__(self) -> None:
        self.engines: dict[int, EngineInfo] = {}
        self.agents: dict[str, AgentNotice] = {}

    def replace(self, engines: Iterable[EngineInfo]) -> None:
        """Take a complete list of engines."""
        self.engines = {engine.id: engine for engine in engines}

    def forget_agents(self) -> None:
        """The connection is gone: the next one tells anew which agents there are."""
        self.agents = {}

    def change(self, added: Iterable[EngineInfo], removed: Iterable[EngineGone]) -> set[str]:
        """Take changes; return the engine sets that they are in."""
        touched = set()
        for gone in removed:
            self.engines.pop(gone.id, None)
            touched.add(gone.engine_set)
        for engine in added:
            self.engines[engine.id] = engine
            touched.add(engine.engine_set)
        return touched

    def note_agent(self, notice: AgentNotice) -> None:
        """Take a notice about an agent."""
        if notice.event == "left":
            self.agents.pop(notice.launch, None)
        else:
            self.agents[notice.launch] = notice

    def observed(self, engine_set: str, asked_at: float) -> events.EnginesObserved:
        """Return the engines of a set as an event."""
        views = tuple(
            EngineView(engine.slot, engine.agent, engine.state == "idle", engine.started_at, engine.id)
            for engine in self.of_set(engine_set)
        )
        return events.EnginesObserved(engine_set, views, asked_at)

    def of_set(self, engine_set: str) -> list[EngineInfo]:
        """Return the registered engines of a set, by slot."""
        found = [engine for engine in self.engines.values() if engine.engine_set == engine_set]
        return sorted(found, key=lambda engine: (engine.slot, engine.id))

    def in_slots(self, engine_set: str, slots: Iterable[int]) -> dict[int, int]:
        """Return wire id -> slot of the engines in these slots."""
        wanted = set(slots)
        return {engine.id: engine.slot for engine in self.of_set(engine_set) if engine.slot in wanted}

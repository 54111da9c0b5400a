"""When a controller that succeeds another one knows enough to place what clients offer again; until then such offers wait.

What an engine runs or holds must not be given to another one. It is known once the agents that the predecessor had are back, and
each engine that they list has attached, or runs a task and holds no result besides (it cannot attach before it has ended).
Invariant: it is over at the latest AGENT_SECONDS after the start; what was not heard of by then may be run twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterd.core.wire.messages import EngineState

PEER_SECONDS = 2.0
"""Peers that live dial at least once a second. One that is later was stopped, or its host is gone."""
AGENT_SECONDS = 10.0
"""An agent that died with the controller is started anew, which may take seconds on a busy machine; its engines run on meanwhile."""


class Recovery:
    """The beginning of a controller.

    Args:
        places: the agents that the predecessor had, by engine set and host (`place`); None: nobody knows.
        started: monotonic time; None: there is no predecessor.
    """

    def __init__(self, places: Iterable[str] | None = None, started: float | None = None) -> None:
        self._started = started or 0.0
        # All and only agents that are still to come; None while that is not known.
        self._places: set[str] | None = None if places is None else set(places)
        # Wire ids of engines that were listed and have not said yet what they hold.
        self._engines: set[int] = set()
        # True where one of them is a stock engine, which speaks when it is asked: once a period of seconds.
        self._has_stock = False
        self._is_over = started is None

    def is_over(self, now: float) -> bool:
        """Say whether offers may be placed; once it is over it stays so."""
        if not self._is_over:
            has_heard_all = self._places is not None and not self._places and not self._engines
            self._is_over = has_heard_all or now >= self.deadline
        return self._is_over

    @property
    def goes_on(self) -> bool:
        """True until `is_over` has said that it is."""
        return not self._is_over

    def places(self, now: float) -> set[str]:
        """The agents that are still waited for."""
        return set() if self._places is None or self.is_over(now) else set(self._places)

    @property
    def deadline(self) -> float:
        """When it is over whoever has not spoken, as far as is known now."""
        return self._started + (AGENT_SECONDS if self._places or self._has_stock else PEER_SECONDS)

    def agent_reported(self, place: str) -> None:
        """The agent's inventory is in, and what it knew of deaths."""
        if self._places is not None:
            self._places.discard(place)

    def engine_listed(self, engine: int, state: EngineState) -> None:
        """An agent lists an engine that has not attached."""
        if state.state != "running" or state.has_results:
            self._engines.add(engine)

    def stock_engine_expected(self, engine: int) -> None:
        """A stock engine of the predecessor's is to beat again."""
        self._engines.add(engine)
        self._has_stock = True

    def awaits(self, engine: int) -> bool:
        """Say whether an engine lives, as its agent says, and has not said yet what it holds."""
        return engine in self._engines

    def engine_settled(self, engine: int) -> None:
        """It has attached, and said what it holds; or it is dead."""
        self._engines.discard(engine)


def place(engine_set: str, host: str) -> str:
    """The name under which the agent of a set on a host is remembered; its successor there has the same."""
    return f"{engine_set}@{host}"

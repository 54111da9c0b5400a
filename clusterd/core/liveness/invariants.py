"""CHECKS what must hold of a Liveness after every event. For tests and debugging.

Above all: how an engine stands is what the table says of the evidence at this moment, so no change of evidence was overlooked and no
timer is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.core.liveness.judging import link_of, process_of, word_of
from clusterd.core.liveness.verdicts import TABLE, Standing, Verdict

if TYPE_CHECKING:
    from clusterd.core.liveness.state import Engine, State


class InvariantViolation(AssertionError):
    """Liveness contradicts itself: a bug in it."""


def _hold(condition: object, text: str) -> None:
    if not condition:
        raise InvariantViolation(text)


def check(state: State, now: float) -> None:
    """Check everything, at a moment at which no Tick is due."""
    for number, engine in state.engines.items():
        _hold(engine.id == number, f"{number} leads to another engine")
        _check_engine(state, engine, now)
        _hold(
            engine.agent is None or state.agents.get(engine.agent.name) is engine.agent,
            f"the agent of {number} is not known",
        )
    for name, agent in state.agents.items():
        _hold(agent.name == name, f"{name} leads to another agent")
        mine = {number for number, engine in state.engines.items() if engine.agent is agent}
        _hold(mine == set(agent.engines), f"{name} is wrong about its engines")
        _hold(agent.engines or not agent.is_gone, f"{name} is dead, watches nothing and is kept")
    live = {id(whose) for when, _, whose in state.timers.heap if whose.watch_at == when}
    _hold(all(id(client) in live for client in state.clients.values()), "nobody watches a client")


def _check_engine(state: State, engine: Engine, now: float) -> None:
    verdict = TABLE[word_of(state, engine, now)][process_of(state, engine, now)][link_of(state, engine, now)]
    _hold(verdict is not Verdict.LOST, f"engine {engine.id} is lost and was not told so")
    if verdict is Verdict.SUSPECT:
        expected = Standing.SUSPECT
    else:
        expected = Standing.QUARANTINED if now < engine.quarantined_until else Standing.ALIVE
    _hold(engine.standing is expected, f"engine {engine.id} is {expected} and stands as {engine.standing}")
    _hold(engine.standing is not Standing.SUSPECT or engine.ask_at > now, f"nobody asks about engine {engine.id}")

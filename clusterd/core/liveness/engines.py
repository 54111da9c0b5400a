"""TAKES observations of engines and of the agents that watch them.

The order of observations is that of when they were made: an older one than what is believed changes nothing. An engine belongs to the agent
that last spoke of it: the next agent adopts what its dead predecessor left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.core.liveness.judging import judge, remove
from clusterd.core.liveness.state import Agent, Engine
from clusterd.core.liveness.verdicts import Process, Standing

if TYPE_CHECKING:
    from clusterd.core.liveness.events import (
        AgentGone,
        AgentHeard,
        AgentUnlinked,
        EngineAttached,
        EngineExited,
        EngineHeard,
        EngineLeft,
        EngineReported,
        EngineUnlinked,
        ProcessSeen,
    )
    from clusterd.core.liveness.state import Out, State


def engine_attached(state: State, event: EngineAttached, now: float, out: Out) -> None:
    """Take an engine in, or note that it is linked again."""
    engine = state.engines.get(event.engine)
    if engine is None:
        engine = state.engines[event.engine] = Engine(event.engine, None, now)
    if event.agent is not None:
        _belong(state, engine, event.agent, now)
    engine.heard = now
    engine.closed_since = None
    judge(state, engine, now, out)


def engine_heard(state: State, event: EngineHeard, now: float, out: Out) -> None:
    """Note that it was heard; judge it only where that can change anything."""
    engine = state.engines.get(event.engine)
    if engine is not None:
        engine.heard = now
        if engine.standing is Standing.SUSPECT:
            judge(state, engine, now, out)


def engine_unlinked(state: State, event: EngineUnlinked, now: float, out: Out) -> None:
    """Note since when it is not linked."""
    engine = state.engines.get(event.engine)
    if engine is not None and engine.closed_since is None:
        engine.closed_since = now
        judge(state, engine, now, out)


def engine_reported(state: State, event: EngineReported, now: float, out: Out) -> None:
    """Take its agent's word, unless a later one is known."""
    engine = state.engines.get(event.engine)
    if engine is None:
        return
    said_at = now - event.age
    if said_at >= engine.said_at:
        engine.said_at = said_at
        engine.is_frozen = event.is_frozen
        _belong(state, engine, event.agent, now)
    judge(state, engine, now, out)


def engine_exited(state: State, event: EngineExited, now: float, out: Out) -> None:
    """Take the proof of its end."""
    engine = state.engines.get(event.engine)
    if engine is not None:
        engine.exit = event
        judge(state, engine, now, out)


def engine_left(state: State, event: EngineLeft, _now: float, _out: Out) -> None:
    """Judge it no more."""
    engine = state.engines.get(event.engine)
    if engine is not None:
        remove(state, engine)


def process_seen(state: State, event: ProcessSeen, now: float, out: Out) -> None:
    """Take a look at its process, unless a later look or a later word of its agent says otherwise."""
    engine = state.engines.get(event.engine)
    if engine is None:
        return
    seen_at = now - event.age
    is_outdated = engine.agent is not None and not event.is_running and seen_at < engine.said_at
    if seen_at >= engine.process_at and not is_outdated:
        engine.process = Process.RUNNING if event.is_running else Process.GONE
        engine.process_at = seen_at
        engine.evidence = event.evidence
        judge(state, engine, now, out)


def agent_heard(state: State, event: AgentHeard, now: float, out: Out) -> None:
    """Note that it was heard; its engines are judged only where its word counted for nothing before."""
    agent = _agent(state, event.agent, now)
    spoke = agent.speaks(now, state.settings)
    agent.heard = now
    agent.is_linked = True
    agent.is_gone = False
    state.timers.arm(agent, now + state.settings.agent_silent_after)
    if not spoke:
        _judge_all(state, agent, now, out)


def agent_unlinked(state: State, event: AgentUnlinked, now: float, out: Out) -> None:
    """Its word counts for nothing until it is back; one without engines is dropped."""
    agent = state.agents.get(event.agent)
    if agent is not None:
        agent.is_linked = False
        _judge_all(state, agent, now, out)
        state.drop_idle(agent)


def agent_gone(state: State, event: AgentGone, now: float, out: Out) -> None:
    """Its word will never count again; its engines go on until somebody else tells."""
    agent = state.agents.get(event.agent)
    if agent is not None:
        agent.is_gone = True
        _judge_all(state, agent, now, out)
        state.drop_idle(agent)


def look_at_agent(state: State, agent: Agent, now: float, out: Out) -> None:
    """Its timer has fired: it may have fallen silent."""
    if agent.speaks(now, state.settings):
        state.timers.arm(agent, agent.heard + state.settings.agent_silent_after)
    else:
        _judge_all(state, agent, now, out)


def forgive(state: State, deadline: float, now: float) -> None:
    """Count whoever was not silent at `deadline` as heard now: we were away since then, and with us perhaps the whole machine."""
    settings = state.settings
    for engine in state.engines.values():
        if engine.heard + settings.silent_after >= deadline:
            engine.heard = now
        if engine.closed_since is not None:
            engine.closed_since = min(now, engine.closed_since + now - deadline)
    for agent in state.agents.values():
        if agent.heard + settings.agent_silent_after >= deadline:
            agent.heard = now


def _judge_all(state: State, agent: Agent, now: float, out: Out) -> None:
    for engine in list(agent.engines.values()):
        judge(state, engine, now, out)


def _belong(state: State, engine: Engine, name: str, now: float) -> None:
    old, new = engine.agent, _agent(state, name, now)
    if old is not new:
        if old is not None:
            del old.engines[engine.id]
            state.drop_idle(old)
        engine.agent = new
        new.engines[engine.id] = engine


def _agent(state: State, name: str, now: float) -> Agent:
    agent = state.agents.get(name)
    if agent is None:
        agent = state.agents[name] = Agent(name, now)
        state.timers.arm(agent, now + state.settings.agent_silent_after)
    return agent

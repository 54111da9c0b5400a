"""JUDGES one engine: takes the three views from what was observed, looks up the verdict, and says what changes by it.

A change of standing is told once. A suspect is asked about, again and again, where an answer can come from: its agent while that
one speaks, the daemon otherwise. One that is suspect too often is kept in quarantine: alive, and trusted with nothing for a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.core.liveness.actions import AskAgent, AskDaemon, Lose, Quarantine, Suspect, Trust
from clusterd.core.liveness.verdicts import TABLE, Link, Process, Standing, Verdict, Word
from clusterd.core.timers import NEVER

if TYPE_CHECKING:
    from clusterd.core.liveness.state import Engine, Out, State


def judge(state: State, engine: Engine, now: float, out: Out) -> None:
    """Judge an engine anew, tell what has changed, and arm the moment at which time alone may change it."""
    verdict = TABLE[word_of(state, engine, now)][process_of(state, engine, now)][link_of(state, engine, now)]
    if verdict is Verdict.LOST:
        _lose(state, engine, now, out)
        return
    if verdict is Verdict.SUSPECT:
        _suspect(state, engine, now, out)
    else:
        _trust(state, engine, now, out)
    state.timers.arm(engine, _next_change(state, engine, now))


def link_of(state: State, engine: Engine, now: float) -> Link:
    """Return what its connection shows."""
    settings = state.settings
    if engine.closed_since is not None:
        return Link.EXPIRED if now >= engine.closed_since + settings.expire_after else Link.CLOSED
    return Link.SILENT if now >= engine.heard + settings.silent_after else Link.FRESH


def word_of(state: State, engine: Engine, now: float) -> Word:
    """Return what its agent says."""
    agent = engine.agent
    if engine.exit is not None:
        return Word.EXITED
    if agent is None:
        return Word.NONE
    if not agent.speaks(now, state.settings):
        return Word.GONE if agent.is_gone else Word.STALE
    return Word.FROZEN if engine.is_frozen else Word.ALIVE


def process_of(state: State, engine: Engine, now: float) -> Process:
    """Return what is known of its process without its agent. That it runs is soon old news; that it is gone never is."""
    if engine.process is Process.RUNNING and now >= engine.process_at + state.settings.process_stale_after:
        return Process.UNKNOWN
    return engine.process


def describe(state: State, engine: Engine, now: float) -> str:
    """Return the evidence in a sentence."""
    link = link_of(state, engine, now)
    if engine.closed_since is not None:
        linked = f"its connection has been closed for {now - engine.closed_since:.1f} s"
    else:
        linked = f"its link is {link}, heard {now - engine.heard:.1f} s ago"
    agent = engine.agent
    if agent is None:
        said = "no agent watches it"
    else:
        word = word_of(state, engine, now)
        said = {
            Word.ALIVE: f"its agent {agent.name} says it lives",
            Word.FROZEN: f"its agent {agent.name} says it is stopped",
            Word.STALE: f"its agent {agent.name} was heard {now - agent.heard:.1f} s ago",
            Word.GONE: f"its agent {agent.name} is dead",
            Word.EXITED: f"its agent {agent.name} says it has ended",
        }[word]
    process = process_of(state, engine, now)
    seen = "" if process is Process.UNKNOWN else f"; {engine.evidence} {now - engine.process_at:.1f} s ago"
    return f"{linked}; {said}{seen}"


def _lose(state: State, engine: Engine, now: float, out: Out) -> None:
    end = engine.exit
    if end is not None:
        out.append(Lose(engine.id, end.cause, end.last_output, end.running, end.is_wanted))
    else:
        out.append(Lose(engine.id, describe(state, engine, now)))
    remove(state, engine)


def remove(state: State, engine: Engine) -> None:
    """Judge an engine no more."""
    del state.engines[engine.id]
    engine.watch_at = NEVER
    if engine.agent is not None:
        del engine.agent.engines[engine.id]
        state.drop_idle(engine.agent)


def _suspect(state: State, engine: Engine, now: float, out: Out) -> None:
    settings = state.settings
    if engine.standing is not Standing.SUSPECT:
        engine.suspected_at = [at for at in engine.suspected_at if at > now - settings.flap_window]
        engine.suspected_at.append(now)
        if engine.standing is Standing.ALIVE:
            out.append(Suspect(engine.id, describe(state, engine, now)))
        engine.standing = Standing.SUSPECT
        engine.ask_at = now
    if len(engine.suspected_at) >= settings.flaps:
        engine.quarantined_until = now + settings.quarantine
    if now >= engine.ask_at:
        engine.ask_at = now + settings.ask_again
        agent = engine.agent
        if agent is not None and agent.speaks(now, settings):
            out.append(AskAgent(agent.name, engine.id))
        else:
            out.append(AskDaemon(engine.id))


def _trust(state: State, engine: Engine, now: float, out: Out) -> None:
    engine.ask_at = NEVER
    if now < engine.quarantined_until:
        if engine.standing is not Standing.QUARANTINED:
            engine.standing = Standing.QUARANTINED
            settings = state.settings
            why = f"suspect {len(engine.suspected_at)} times in {settings.flap_window:g} s"
            out.append(Quarantine(engine.id, why))
        return
    if engine.standing is not Standing.ALIVE:
        if engine.standing is Standing.QUARANTINED:
            engine.suspected_at.clear()
        engine.standing = Standing.ALIVE
        out.append(Trust(engine.id))


def _next_change(state: State, engine: Engine, now: float) -> float:
    """Return the earliest moment after `now` at which a view changes by time alone, or something is to be done."""
    settings = state.settings
    closed_since = engine.closed_since
    moments = (
        engine.heard + settings.silent_after if closed_since is None else closed_since + settings.expire_after,
        engine.process_at + settings.process_stale_after,
        engine.quarantined_until,
        engine.ask_at,
    )
    return min((moment for moment in moments if moment > now), default=NEVER)

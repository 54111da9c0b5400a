"""WATCHES engines over time: heads that run over while others wait behind them, and run-time limits.

What waits behind a late head is recalled, and placed elsewhere only once the engine or its agent has answered for it: no task is
ever in two places. A task over its timeout is interrupted; an engine that ignores this is killed. Neither needs the engine to answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.core.scheduler.actions import Interrupt, KillEngine, Recall
from clusterd.core.scheduler.engine import CONDEMNED, STALLED
from clusterd.core.timers import NEVER

if TYPE_CHECKING:
    from clusterd.core.scheduler.engine import Engine
    from clusterd.core.scheduler.events import DispatchesHeld
    from clusterd.core.scheduler.state import Out, State
    from clusterd.core.scheduler.tasks import Task


def dispatches_held(state: State, event: DispatchesHeld, _now: float, _out: Out) -> None:
    """Give heads so much longer. Else what waits behind each would be recalled and given out anew, to be held again: for ever."""
    if state.overrun < NEVER:
        state.overrun = state.settings.overrun + state.settings.prefetch_below + event.seconds


def watch(state: State, engine: Engine, now: float, out: Out) -> None:
    """Look at an engine whose timer has fired, and arm the next one."""
    head = next(iter(engine.held.values()), None)
    if head is None:
        return
    if head.timeout is not None:
        _limit(state, engine, head, now, out)
    if len(engine.held) > 1:
        late = engine.head_since + state.overrun
        if late <= now:
            stall(state, engine, now, out)
        else:
            state.timers.arm(engine, late)


def stall(state: State, engine: Engine, now: float, out: Out) -> None:
    """Give an engine nothing more until its head has ended, and recall what can run elsewhere."""
    engine.flags |= STALLED
    state.levels.update(engine)
    behind = [task for task in list(engine.held.values())[1:] if task.order]  # what was adopted has no order to name
    if not behind:
        return
    # Direct work has nowhere else to go, and a lone engine's work neither: but another may come.
    if len(state.engines) > 1 and not all(isinstance(task.target, int) for task in behind):
        recall(engine, behind[0].order, behind[-1].order, out)
    state.timers.arm(engine, now + state.settings.recall_again)


def recall(engine: Engine, first: int, last: int, out: Out) -> None:
    """Have the agent revoke orders first..last.

    An engine's status page has room for one range. While an earlier recall is not answered in full the new one has to cover it, or
    what the first has revoked would run after all.
    """
    if any(engine.recall_first <= task.order <= engine.recall_last for task in engine.held.values()):
        first = min(first, engine.recall_first)
        last = max(last, engine.recall_last)
    engine.recall_first = first
    engine.recall_last = last
    out.append(Recall(engine.id, first, last))


def arm_limit(state: State, engine: Engine, now: float) -> None:
    """Arm the timeout of the task that has become the head."""
    head = next(iter(engine.held.values()))
    if head.timeout is not None:
        state.timers.arm(engine, now + head.timeout)


def _limit(state: State, engine: Engine, head: Task, now: float, out: Out) -> None:
    assert head.timeout is not None  # noqa: S101  (the caller has looked)
    settings = state.settings
    if head.interrupted is None:
        due = engine.head_since + head.timeout
        if due > now:
            state.timers.arm(engine, due)
            return
        head.interrupted = now
        out.append(Interrupt(engine.id, head.id, head.attempt))
    else:
        due = head.interrupted + settings.interrupt_grace
        if due > now:
            state.timers.arm(engine, due)
            return
        engine.flags |= CONDEMNED
        state.levels.update(engine)
        text = f"task {head.id.hex()} ran over its timeout of {head.timeout:g} s and ignored an interrupt"
        out.append(KillEngine(engine.id, text))
        head.interrupted = now  # ordered again after another grace, should the agent not have heard
    state.timers.arm(engine, now + settings.interrupt_grace)

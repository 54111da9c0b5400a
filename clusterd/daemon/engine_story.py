"""Tells the story of engines, from what controller and agents say of them: what changed since they said it last.

What befell many engines of a set alike, and was told together, is one event with all their slots: a thousand engines that start
must not drive out of the ring what somebody wished. It decides nothing, and is told before the supervisor.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from clusterd.core.model.slots import format_slots
from clusterd.system import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from clusterd.core.wire.messages import AgentNotice, EngineGone, EngineInfo, EnginesChanged, SlotReport
    from clusterd.daemon.roster import Roster
    from clusterd.daemon.story import Story

__all__ = ["EngineStory"]

REMEMBERED: Final = 20_000
"""Engines whose end was told by the controller: their agent tells it once more."""


class EngineStory:
    """What is told of engines.

    Args:
        story: is told.
        roster: what was known before.
        sets: called for the engine sets that are ours; others' engines join and leave as they like.
    """

    def __init__(self, story: Story, roster: Roster, sets: Callable[[], list[str]]) -> None:
        self._story, self._roster, self._sets = story, roster, sets
        self._gone: deque[bytes] = deque(maxlen=REMEMBERED)

    def changed(self, message: EnginesChanged) -> None:
        """Tell of engines that came, went or fell silent; before the roster takes it."""
        self._came(message.added)
        self._silent(message.added)
        by_cause: dict[tuple[str, str, bool], list[EngineGone]] = {}
        for gone in message.removed:
            self._gone.append(gone.uuid)
            by_cause.setdefault((gone.engine_set, gone.cause, gone.is_wanted), []).append(gone)
        for (unit, cause, is_wanted), engines in by_cause.items():
            # An end that nobody asked for is what people look for later.
            level = logging.INFO if is_wanted or unit not in self._sets() else logging.WARNING
            if len(engines) == 1:
                [one] = engines
                name = f"{one.engine_set}/{one.slot}"
                text = f"engine {name} (id {one.id}) is gone: {cause}"
                fields: dict[str, Any] = {"engine": name, "id": one.id}
            else:
                text = f"{len(engines)} engines are gone: {format_slots(unit, (one.slot for one in engines))}: {cause}"
                fields = {"ids": [one.id for one in engines]}
            slots = [one.slot for one in engines]
            self._story.tell("engine_gone", text, level=level, **fields, cause=cause, unit=unit, slots=slots)

    def reported(self, notice: AgentNotice, known: AgentNotice | None) -> None:
        """Tell what an agent says that is new; `known` is what it said before."""
        # Asked for its list the controller tells of every agent anew.
        if known is None or known.event == "lost":
            self._story.tell(
                "agent_attached",
                f"the agent of {notice.engine_set} (process {notice.pid}) is connected, with"
                f" {sum(bool(slot.pid) for slot in notice.slots)} engines",
                unit=notice.engine_set,
                launch=notice.launch,
            )
        before = {} if known is None else {slot.slot: slot for slot in known.slots}
        warned = set() if known is None else set(known.warnings)
        for warning in notice.warnings:
            if warning not in warned:
                text = f"{notice.engine_set}: {warning}"
                self._story.tell("warning", text, level=logging.WARNING, unit=notice.engine_set)
        changes = [(before.get(slot.slot), slot) for slot in notice.slots]
        self._failed(notice.engine_set, changes)
        if known is not None:
            self._started(notice.engine_set, changes)
        self._waits(notice.engine_set, changes)
        self._crash_loops(notice.engine_set, changes)

    # --- inside ---

    def _came(self, added: Iterable[EngineInfo]) -> None:
        sets = self._sets()
        ours: dict[str, list[EngineInfo]] = {}
        for engine in added:
            if engine.id in self._roster.engines:
                continue
            if engine.engine_set in sets:
                ours.setdefault(engine.engine_set, []).append(engine)
                continue
            # Stock ones, and those that somebody started by hand.
            name = f"{engine.engine_set}/{engine.slot}"
            where = f" on {engine.host}" if engine.host else ""
            text = f"engine {name} (id {engine.id}) has joined{where}"
            self._story.tell("engine_joined", text, engine=name, id=engine.id)
        for unit, engines in ours.items():
            slots = [engine.slot for engine in engines]
            verb = f"is ready, as id {engines[0].id}" if len(slots) == 1 else "are ready"
            self._story.tell("engine_ready", f"{format_slots(unit, slots)} {verb}", unit=unit, slots=slots)

    def _silent(self, added: Iterable[EngineInfo]) -> None:
        silent: dict[str, list[int]] = {}
        for engine in added:
            known = self._roster.engines.get(engine.id)
            if engine.state == "suspect" and known is not None and known.state != "suspect":
                silent.setdefault(engine.engine_set, []).append(engine.slot)
        for unit, slots in silent.items():
            verb = "has" if len(slots) == 1 else "have"
            text = f"{format_slots(unit, slots)} {verb} lost the connection, or been silent for a while"
            self._story.tell("engine_suspect", text, level=logging.WARNING, unit=unit, slots=slots)

    def _failed(self, unit: str, changes: list[tuple[SlotReport | None, SlotReport]]) -> None:
        """Ends that only the agent saw, because the engine had not registered."""
        by_reason: dict[str, list[int]] = {}
        for old, new in changes:
            is_over = old is not None and bool(old.uuid) and old.uuid != new.uuid
            if new.reason and old is not None and (is_over or new.restarts > old.restarts or not old.reason):
                if old.uuid in self._gone or old.state == "stopping" or new.state == "crash-loop":
                    continue
                by_reason.setdefault(new.reason, []).append(new.slot)
        for reason, slots in by_reason.items():
            verb = "ended before it was ready" if len(slots) == 1 else "ended before they were ready"
            text = f"{format_slots(unit, slots)} {verb}: {reason}"
            self._story.tell("engine_failed", text, level=logging.WARNING, unit=unit, slots=slots, cause=reason)

    def _started(self, unit: str, changes: list[tuple[SlotReport | None, SlotReport]]) -> None:
        begun = [new for old, new in changes if new.pid and (old is None or old.pid != new.pid)]
        if begun:
            slots = [slot.slot for slot in begun]
            process = f": process {begun[0].pid}" if len(begun) == 1 else ""
            verb = "was started" if len(begun) == 1 else "were started"
            self._story.tell("engine_started", f"{format_slots(unit, slots)} {verb}{process}", unit=unit, slots=slots)

    def _waits(self, unit: str, changes: list[tuple[SlotReport | None, SlotReport]]) -> None:
        now = clock.wall()
        for old, new in changes:
            if new.state == "backoff" and new.retry_at > now and (old is None or old.retry_at != new.retry_at):
                text = f"{format_slots(unit, [new.slot])} is started again in {new.retry_at - now:.1f} s"
                self._story.tell("engine_waits", text, unit=unit, slots=[new.slot])

    def _crash_loops(self, unit: str, changes: list[tuple[SlotReport | None, SlotReport]]) -> None:
        for old, new in changes:
            if new.state == "crash-loop" and (old is None or old.state != "crash-loop"):
                name = f"{unit}/{new.slot}"
                text = f"{name} is not started any more: {new.reason}"
                level = logging.ERROR
                self._story.tell(
                    "crash_loop", text, level=level, engine=name, unit=unit, slots=[new.slot], cause=new.reason
                )

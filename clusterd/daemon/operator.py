"""The daemon as an operator of the controller: what the controller says becomes events, what the supervisor wants becomes requests.

Invariant: the roster is complete before the supervisor hears of a controller or a single engine: on each connection the full list
is asked for first, and what changes follows it, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clusterd.core.model import ids
from clusterd.core.supervisor import events
from clusterd.core.wire.messages import (
    AgentNotice,
    ControllerStatus,
    Drain,
    Drained,
    EngineInfo,
    EnginesChanged,
    ListEngines,
    ResumeSlots,
    SetDesired,
    StopAsked,
)
from clusterd.daemon.engine_story import EngineStory
from clusterd.errors import ClusterdError, ControlError
from clusterd.system import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from clusterd.core.supervisor import actions
    from clusterd.daemon.controller_link import ControllerLink
    from clusterd.daemon.driver import Driver
    from clusterd.daemon.roster import Roster
    from clusterd.daemon.story import Story

__all__ = ["Operator"]

_log = logging.getLogger("clusterd.daemon")
FAR_GENERATION: Final = 2**62
"""Newer than any order: the last one that an agent gets."""

# A controller answers in a millisecond; one that is stopped or swapping must not keep `clusterctl engines` waiting.
REFRESH_SECONDS = 2.0


class Operator:
    """Between the link and the supervisor.

    Args:
        link: to the controller.
        roster: what it says is kept there.
        driver: for the supervisor's state.
        story: is told of engines that come and go.
        feed: takes events.
    """

    def __init__(
        self,
        link: ControllerLink,
        roster: Roster,
        driver: Driver,
        story: Story,
        feed: Callable[..., None],
    ) -> None:
        self._link, self._roster, self._driver, self._story, self._feed = link, roster, driver, story, feed
        # Launch that the controller at the other end says it is; empty while there is none.
        self._launch = ""
        # Wire id -> (set, slot) of engines that were told to be drained.
        self._draining: dict[int, tuple[str, int]] = {}
        # Those that `drain_all` waits for, and whether none is left.
        self._leaving: set[int] = set()
        self._all_idle = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._engine_story = EngineStory(story, roster, self._sets)
        # Called when a client of the controller has asked for the end of the cluster.
        self.on_stop_asked: Callable[[str], None] = lambda _who: None
        link.on_up, link.on_messages, link.on_down = self.up, self.receive, self.down

    # --- what the link tells ---

    def up(self) -> None:
        """We are attached: find out to whom, then what engines there are."""
        self._link.ask(ControllerStatus, self._introduced)

    def down(self, reason: str) -> None:
        """The connection is gone."""
        launch, self._launch = self._launch, ""
        self._draining.clear()
        self._roster.forget_agents()
        if launch:
            text = f"lost the connection to the controller: {reason}"
            # It is so while somebody stops it, too.
            is_wanted = self._driver.supervisor.state.is_wanted
            level = logging.WARNING if is_wanted else logging.INFO
            self._story.tell("controller_unreachable", text, level=level, unit=ids.CONTROLLER, launch=launch)
            self._feed(events.ControllerUnreachable(launch, reason))

    def receive(self, messages: list[Any]) -> None:
        """Take notices."""
        now = clock.monotonic()
        touched: set[str] = set()
        drained: list[int] = []
        for message in messages:
            match message:
                case EnginesChanged():
                    self._engine_story.changed(message)
                    touched |= self._roster.change(message.added, message.removed)
                case AgentNotice():
                    self._agent_notice(message, now)
                case Drained():
                    drained += message.engines
                case StopAsked():
                    self.on_stop_asked(message.who)
        if drained:
            # A thousand idle engines are drained at the same moment: one decision, not one for each.
            self._drained(drained)
        if touched:
            self._feed(*(self._roster.observed(unit, now) for unit in sorted(touched) if unit))

    # --- what the supervisor wants ---

    def set_desired(self, action: actions.SetDesired) -> None:
        """Tell an agent its slots."""
        slots = list(action.slots)
        self._ask(lambda number: SetDesired(number, action.launch, action.generation, slots))

    def resume_slots(self, action: actions.ResumeSlots) -> None:
        """Tell an agent to try again."""
        self._ask(lambda number: ResumeSlots(number, action.launch))

    def dismiss(self, action: actions.Dismiss) -> None:
        """Tell an agent to end all its engines; it has no other way to be told from afar."""
        self._ask(lambda number: SetDesired(number, action.launch, FAR_GENERATION, []))

    def drain(self, action: actions.Drain) -> None:
        """Tell the controller which engines get no new work."""
        engines = self._roster.in_slots(action.engine_set, action.slots)
        for wire_id, slot in engines.items():
            if action.is_draining:
                self._draining[wire_id] = (action.engine_set, slot)
            else:
                self._draining.pop(wire_id, None)
        if engines:
            self._go(self._drain(list(engines), is_draining=action.is_draining))

    async def drain_all(self, seconds: float) -> None:
        """Give no engine new work, and wait until all are idle, or the time is over."""
        self._leaving = set(self._roster.engines)
        if not self._leaving:
            return
        self._all_idle = asyncio.Event()
        with contextlib.suppress(ClusterdError, TimeoutError):
            async with asyncio.timeout(seconds):
                engines = list(self._leaving)
                answer = await self._link.request(lambda number: Drain(number, engines, is_draining=True))
                self._drained(answer["idle"])
                await self._all_idle.wait()

    async def resume(self, engine_set: str, slots: list[int] | None) -> None:
        """Have the agents of a set try again in these slots (None: all that they hold, if there are any)."""
        launches = self._driver.supervisor.state.of_unit(engine_set)
        if slots is None:
            for launch in launches:
                # One without a connection has said nothing that could mislead, and is told its slots when it is back.
                with contextlib.suppress(ClusterdError):
                    await self._resume(launch.id, None)
            return
        if not launches:
            raise ControlError(f"{engine_set} has no agent to tell", hint="clusterctl status says why")
        for launch in launches:
            mine = [slot for slot in slots if slot in launch.slots]
            if mine:
                await self._resume(launch.id, mine)

    async def refresh(self) -> None:
        """Ask the controller how the engines are now: who is busy changes with every task, and is told to nobody by itself.

        Without an answer in time the last word stands, with its age.
        """
        asked_at = clock.monotonic()
        with contextlib.suppress(ClusterdError, TimeoutError):
            value = await asyncio.wait_for(self._link.request(ListEngines), REFRESH_SECONDS)
            self._feed(*self._listed(value, asked_at))

    # --- inside ---

    async def _resume(self, launch: str, slots: list[int] | None) -> None:
        await self._link.request(lambda number: ResumeSlots(number, launch, slots))

    def _introduced(self, about: dict[str, Any]) -> None:
        launch = str(about["launch"])
        asked_at = clock.monotonic()

        def listed(value: list[Any]) -> None:
            self._launch = launch
            seen = self._listed(value, asked_at)
            self._story.tell(
                "controller_ready",
                f"connected to the controller, process {about['pid']}",
                unit=ids.CONTROLLER,
                launch=launch,
            )
            self._feed(events.ControllerReady(launch), *seen)

        self._link.ask(ListEngines, listed)

    def _listed(self, value: list[Any], asked_at: float) -> list[events.EnginesObserved]:
        self._roster.replace(msgspec.convert(value, list[EngineInfo]))
        known = {*self._driver.supervisor.sets(), *(engine.engine_set for engine in self._roster.engines.values())}
        return [self._roster.observed(unit, asked_at) for unit in sorted(known) if unit]

    async def _drain(self, engines: list[int], *, is_draining: bool) -> None:
        answer = await self._link.request(lambda number: Drain(number, engines, is_draining))
        if is_draining:
            self._drained(answer["idle"])

    def _drained(self, engines: list[int]) -> None:
        by_set: dict[str, list[int]] = {}
        self._leaving.difference_update(engines)
        if not self._leaving:
            self._all_idle.set()
        for wire_id in engines:
            if place := self._draining.pop(wire_id, None):
                by_set.setdefault(place[0], []).append(place[1])
        self._feed(*(events.EnginesDrained(unit, tuple(sorted(slots))) for unit, slots in by_set.items()))

    def _sets(self) -> list[str]:
        # Asked each time: a command that could not be recorded puts another supervisor in the place of this one.
        return self._driver.supervisor.sets()

    def _agent_notice(self, notice: AgentNotice, now: float) -> None:
        known = self._roster.agents.get(notice.launch)
        self._roster.note_agent(notice)
        if notice.event in {"lost", "left"}:
            evidence = "its connection is lost" if notice.event == "lost" else "it said goodbye"
            self._story.tell(
                "agent_unreachable",
                f"the agent of {notice.engine_set}: {evidence}",
                unit=notice.engine_set,
                launch=notice.launch,
            )
            self._feed(events.AgentUnreachable(notice.launch, evidence))
            return
        self._engine_story.reported(notice, known)
        slots = tuple(events.SlotView(slot.slot, slot.state, slot.reason) for slot in notice.slots)
        self._feed(events.AgentReported(notice.launch, notice.generation, slots, now))

    def _ask(self, make: Callable[[int], Any]) -> None:
        async def ask() -> None:
            await self._link.request(make)

        self._go(ask())

    def _go(self, coroutine: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await coroutine
            except ClusterdError as error:
                # Not lost for good: the next report of the agent shows an older generation, the next connection begins anew.
                _log.debug("the controller did not take it: %s", error.message)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

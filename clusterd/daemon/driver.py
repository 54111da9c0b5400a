"""Turns events into actions: the supervisor decides, the journal keeps, the effects act. The order of the three is the point.

Invariants: nothing is done before the records that intend it are durable (one write and one fsync for all events that have come by
then: a hundred launches that are confirmed at the same moment wait for the disk once); a command is answered only after that; when
the journal cannot be written a command is refused and nothing has changed, and anything else ends the daemon, because what it would
do next could not be remembered. What runs goes on.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from clusterd.core.model.ids import CONTROLLER
from clusterd.core.supervisor import actions, events, records
from clusterd.core.supervisor.footprint import footprint, plan
from clusterd.daemon.footprints import named
from clusterd.daemon.record_story import RecordStory
from clusterd.errors import ControlError, StorageError
from clusterd.system import clock, fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterd.core.supervisor.events import CommandEvent, Event
    from clusterd.core.supervisor.footprint import Footprint
    from clusterd.core.supervisor.machine import Supervisor
    from clusterd.daemon.effects import Effects
    from clusterd.daemon.story import Story
    from clusterd.storage.journal import Journal

__all__ = ["Driver"]


class _NotRecorded(Exception):
    """A command's own records could not be written, before anything was done about it."""

    def __init__(self, cause: StorageError) -> None:
        super().__init__(cause)
        self.cause = cause


class Driver:
    """One supervisor at work.

    Attributes:
        supervisor: the present one; a refused write puts the one from before the command in its place.
    """

    def __init__(self, supervisor: Supervisor, journal: Journal, effects: Effects, story: Story) -> None:
        self.supervisor = supervisor
        self._journal = journal
        self._effects = effects
        self._story = story
        self._record_story = RecordStory(story)
        self._record_story.begin(supervisor.state)
        # Events that arrived while another one was being handled, oldest first.
        self._queue: deque[Event] = deque()
        self._is_busy = False
        self._next_request = 0
        # The command being handled: the one event that may fail without harm, because somebody is there to be told.
        self._journal_first: Event | None = None
        # Why nothing is decided any more; None while all is well.
        self.broken: StorageError | None = None
        # Called when that happens.
        self.on_broken: Callable[[], None] = lambda: None
        # The supervisor before the command that is being handled, and what the command has touched.
        self._before: Supervisor | None = None
        self._footprint: Footprint | None = None
        # Answers by request, until `command` fetches them.
        self._answers: dict[int, actions.Answer | actions.Refuse] = {}

    def is_able(self) -> bool:
        """Say whether a command could be made durable now."""
        return self.broken is None and self._journal.is_writable()

    def new_request(self) -> int:
        """Return a number for a command."""
        self._next_request += 1
        return self._next_request

    def feed(self, *new: Event) -> None:
        """Handle events, and all that follow from them at once.

        Raises:
            StorageError: the journal cannot be written: `broken` says why, and nothing is decided any more.
        """
        self._queue.extend(new)
        if self._is_busy or self.broken is not None:
            return
        self._is_busy = True
        try:
            while self._queue:
                self._handle_all()
            if self._journal.is_compaction_due:
                self._journal.compact([records.encode(record) for record in self.supervisor.snapshot()])
        except StorageError as error:
            self.broken = error
            self._story.tell(
                "journal_broken", f"the journal cannot be written: {error.message}", level=logging.CRITICAL
            )
            self.on_broken()
            raise
        finally:
            self._is_busy = False
            self._story.touch()

    def command(self, event: Event, request: int) -> dict[str, Any]:
        """Handle a command and return its answer, with what it touches under `touched`; it is durable by then.

        Raises:
            ControlError: the supervisor refuses it.
            StorageError: it cannot be made durable; nothing has changed.
        """
        # A few hundred small structs. Commands are rare, and a wish that was refused must leave no trace.
        before = copy.deepcopy(self.supervisor)
        self._before, self._footprint = before, None
        try:
            self._journal_first = event
            self.feed(event)
        except _NotRecorded as error:
            self.supervisor = before
            raise StorageError(
                f"nothing was changed, because the wish could not be recorded: {error.cause.message}",
                hint=error.cause.hint or "is the disk full? see: df -h; clusterctl logs daemon",
            ) from None
        answer = self._answers.pop(request)
        if isinstance(answer, actions.Refuse):
            raise ControlError(answer.message, hint=answer.hint)
        return {**answer.value, **self._touched()}

    def plan(self, event: CommandEvent) -> Footprint:
        """Return what a command would touch; nothing is done.

        Raises:
            ControlError: the supervisor would refuse it.
        """
        planned = plan(self.supervisor, event, clock.monotonic())
        if isinstance(planned, actions.Refuse):
            raise ControlError(planned.message, hint=planned.hint)
        return planned

    def next_deadline(self) -> float | None:
        """Return when `feed(TimePassed())` is due."""
        return self.supervisor.next_deadline()

    def _handle_all(self) -> None:
        """Decide on all events that wait, write that down, then do it."""
        waiting = list(self._queue)
        self._queue.clear()
        decided: list[actions.Action] = []
        for event in waiting:
            if isinstance(event, events.LaunchExited):
                self._tell_end(event)
            decided += self.supervisor.handle(event, clock.monotonic())
            self._note_footprint(event)
        batch = [action.record for action in decided if isinstance(action, actions.Append)]
        try:
            self._journal.append([records.encode(record) for record in batch])
        except StorageError as error:
            if any(event is self._journal_first for event in waiting):
                raise _NotRecorded(error) from error
            raise
        self._record_story.tell(batch)
        for action in decided:
            match action:
                case actions.Append():
                    if isinstance(action.record, records.LaunchEnded):
                        self._effects.forget(action.record.launch)
                case actions.Answer() | actions.Refuse():
                    self._answers[action.request] = action
                case _:
                    self._queue.extend(self._effects.perform(action))
        if batch:
            fault.point("daemon.handle.after_actions")

    def _touched(self) -> dict[str, Any]:
        return {} if self._footprint is None else {"touched": named(self._footprint)}

    def _note_footprint(self, event: Event) -> None:
        if self._before is not None and event is self._journal_first:
            self._footprint, self._before = footprint(self._before, self.supervisor), None

    def _tell_end(self, event: events.LaunchExited) -> None:
        launch = self.supervisor.state.launches.get(event.launch)
        if launch is None:
            return
        name = launch.unit if launch.unit == CONTROLLER else f"agent of {launch.unit}"
        pid = f" (process {launch.identity.pid})" if launch.identity is not None else ""
        level = logging.INFO if launch.is_stopping else logging.WARNING
        text = f"the {name}{pid} {event.reason}"
        self._story.tell("launch_ended", text, level=level, unit=launch.unit, launch=launch.id, cause=event.reason)

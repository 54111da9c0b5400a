"""What happened, as a ring of events that people and programs can read and follow; each is a line of the log as well.

Every change of what `status` would say gets a number, told or not, so that a long poll knows whether its caller has seen it.
Readers hold a place in the ring, never a queue: one that is slow misses events and is told how many. The ring is filled from a
file, so that a daemon knows what its predecessors told; each life has numbers of its own, above all earlier ones.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from clusterd.system import clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterd.daemon.story_file import StoryFile

__all__ = ["Story"]

_log = logging.getLogger("clusterd.daemon")
KEPT: Final = 4000
LIFE: Final = 1_000_000
"""Numbers of one life of the daemon: most changes are not told, so the last number in the file is not the last one given."""


class Story:
    """The events of one daemon and its predecessors.

    Args:
        file: where they are kept; None: in memory only.

    Attributes:
        number: of the last change; 1 before the first of all.
    """

    def __init__(self, file: StoryFile | None = None) -> None:
        # The last KEPT events, oldest first.
        self._events: deque[dict[str, Any]] = deque([] if file is None else file.last(KEPT), maxlen=KEPT)
        self.number = 1 if not self._events else (self._events[-1]["seq"] // LIFE + 1) * LIFE + 1
        self._file = file
        # Called once at the next change, then forgotten.
        self._waiting: list[Callable[[], None]] = []

    def tell(self, event: str, text: str, *, level: int = logging.INFO, **fields: Any) -> None:
        """Note an event.

        Args:
            event: stable word for programs: `launch_started`, `engines_changed`.
            text: the sentence for people.
            level: of the log line; what is worse than information says so in the event, too.
            fields: what else programs may want to know: `unit`, `slots` or `engine` say whom it is about.
        """
        self.number += 1
        told: dict[str, Any] = {"seq": self.number, "time": clock.wall(), "event": event, "text": text}
        if level > logging.INFO:
            told["level"] = logging.getLevelName(level).lower()
        told |= fields
        self._events.append(told)
        if self._file is not None:
            self._file.add(told)
        _log.log(level, "%s", text)
        self._wake()

    def touch(self) -> None:
        """Note that something changed that is not worth an event."""
        self.number += 1
        self._wake()

    def since(self, number: int) -> list[dict[str, Any]]:
        """Return the events after `number`; one that was never given (the file is lost) gives all."""
        if number > self.number:
            number = 0
        found = [event for event in self._events if event["seq"] > number]
        if number and len(self._events) == KEPT and len(found) == KEPT:
            lost = {"seq": found[0]["seq"] - 1, "time": found[0]["time"], "event": "missed"}
            return [{**lost, "text": f"events between {number} and {found[0]['seq']} are forgotten"}, *found]
        return found

    def all(self) -> list[dict[str, Any]]:
        """Return all events that are remembered, oldest first."""
        return list(self._events)

    def call_at_next_change(self, function: Callable[[], None]) -> None:
        """Call `function` once, at the next change."""
        self._waiting.append(function)

    def forget(self, function: Callable[[], None]) -> None:
        """Take back `call_at_next_change`."""
        if function in self._waiting:
            self._waiting.remove(function)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for function in waiting:
            function()

"""What happened, as a ring of events that people and programs can read and follow; each is a line of the log as well.

Every change of what `status` would say gets a number, told or not, so that a long poll knows whether its caller has seen it.
Readers hold a place in the ring, never a queue: one that is slow misses events and is told how many.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from clusterd.system import clock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Story"]

_log = logging.getLogger("clusterd.daemon")
KEPT: Final = 2000


class Story:
    """The events of one daemon.

    Attributes:
        number: of the last change; 1 before the first.
    """

    def __init__(self) -> None:
        self.number = 1
        # The last KEPT events, oldest first.
        self._events: deque[dict[str, Any]] = deque(maxlen=KEPT)
        # Called once at the next change, then forgotten.
        self._waiting: list[Callable[[], None]] = []

    def tell(self, event: str, text: str, *, level: int = logging.INFO, **fields: Any) -> None:
        """Note an event.

        Args:
            event: stable word for programs: `launch_started`, `engines_changed`.
            text: the sentence for people.
            level: of the log line.
            fields: what else programs may want to know.
        """
        self.number += 1
        self._events.append({"seq": self.number, "time": clock.wall(), "event": event, "text": text, **fields})
        _log.log(level, "%s", text)
        self._wake()

    def touch(self) -> None:
        """Note that something changed that is not worth an event."""
        self.number += 1
        self._wake()

    def since(self, number: int) -> list[dict[str, Any]]:
        """Return the events after `number`; a number of an earlier daemon's life gives all."""
        if number > self.number:
            number = 0
        found = [event for event in self._events if event["seq"] > number]
        if number and len(self._events) == KEPT and len(found) == KEPT:
            lost = {"seq": found[0]["seq"] - 1, "time": found[0]["time"], "event": "missed"}
            return [{**lost, "text": f"events between {number} and {found[0]['seq']} are forgotten"}, *found]
        return found

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

"""HOLDS orphans: executions that an engine reports and that no client has submitted to this controller (yet).

They come from before a restart. Their clients offer the tasks again, and find them running or done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.core.timers import NEVER

if TYPE_CHECKING:
    from clusterd.core.model.task import TaskId
    from clusterd.core.scheduler.engine import Engine
    from clusterd.core.scheduler.events import TaskFinished


class Orphan:
    """One execution. `result` is set once it has finished, `until` is when that is given up."""

    __slots__ = ("attempt", "engine", "result", "until")

    def __init__(self, engine: Engine, attempt: int) -> None:
        self.engine = engine
        self.attempt = attempt
        self.result: TaskFinished | None = None
        self.until = NEVER


class Orphanage:
    """All orphans.

    Attributes:
        running: by task; each counts in its engine's `orphans`.
        finished: by task, those that finished first come first: the controller keeps their results.
        watch_at: see `timers`; when the oldest result is given up.
    """

    __slots__ = ("finished", "running", "watch_at")

    def __init__(self) -> None:
        self.running: dict[TaskId, Orphan] = {}
        self.finished: dict[TaskId, Orphan] = {}
        self.watch_at = NEVER

    @property
    def is_used(self) -> bool:
        """There are orphans."""
        return bool(self.running or self.finished)

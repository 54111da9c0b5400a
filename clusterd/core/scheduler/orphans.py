"""HOLDS orphans: executions that an engine reports and that no client has submitted to this controller (yet).

They come from before a restart. Their clients offer the tasks again, and find them running, done, or dead with their engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterd.core.timers import NEVER

if TYPE_CHECKING:
    from clusterd.core.model.task import TaskId
    from clusterd.core.scheduler.engine import Engine
    from clusterd.core.scheduler.events import TaskFinished


class Orphan:
    """One execution. `result` is set once it has finished, `end` once its engine was lost; `until` is when that is given up."""

    __slots__ = ("attempt", "end", "engine", "result", "until")

    def __init__(self, engine: Engine, attempt: int) -> None:
        self.engine = engine
        self.attempt = attempt
        self.result: TaskFinished | None = None
        self.end = ""
        self.until = NEVER


class Orphanage:
    """All orphans.

    Attributes:
        running: by task; each counts in its engine's `orphans`.
        finished: by task, those that finished first come first: the controller keeps their results.
        lost: by task, those that were lost first come first.
        watch_at: see `timers`; when the oldest of those two is given up.
    """

    __slots__ = ("finished", "lost", "running", "watch_at")

    def __init__(self) -> None:
        self.running: dict[TaskId, Orphan] = {}
        self.finished: dict[TaskId, Orphan] = {}
        self.lost: dict[TaskId, Orphan] = {}
        self.watch_at = NEVER

    @property
    def is_used(self) -> bool:
        """There are orphans."""
        return bool(self.running or self.finished or self.lost)

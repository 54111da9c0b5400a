"""A batch system's job as a query shows it. The word job means nothing else anywhere."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

__all__ = ["JOB_STATES", "Job", "JobState"]

JobState = Literal["queued", "running", "ended"]
JOB_STATES: tuple[JobState, ...] = get_args(JobState)


class Job(Struct, frozen=True):
    """One job.

    Attributes:
        id: the batch system's name of it (`4711`, `4711.head`, `17[3]`).
        launch: the launch id that was given to it as a tag; this, not the id, is how ours are recognised.
        state: `ended` covers every end; the reason tells which. A job may also vanish without ever being seen as ended.
        reason: the batch system's words: why it waits, how it ended.
    """

    id: str
    launch: str
    state: JobState
    reason: str = ""

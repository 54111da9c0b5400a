"""What a launcher is. Two kinds: one starts processes on this host, the other submits jobs to a batch system.

Both are told a `Program`: what to run, with the launch id in it. Whatever can go wrong ends in one of three answers: it
runs (identity or job id), it certainly does not (LaunchError), or nobody knows (Unknown): never a guess between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, field

from clusterd.core.model.profile import Limits

if TYPE_CHECKING:
    from clusterd.core.model.job import Job
    from clusterd.core.model.launch import ProcessIdentity
    from clusterd.core.supervisor.settings import LauncherTraits

__all__ = ["JobLauncher", "Launcher", "ProcessLauncher", "Program", "Unknown"]


class Program(Struct, frozen=True, kw_only=True):
    """One thing to start.

    Attributes:
        launch: id of the launch; a job carries it as its name or tag.
        title: `controller local`, `agent local/engines`: for messages.
        word: which of our programs: `controller` or `agent`.
        spec: the file that it is told to read.
        python: the interpreter; None is the daemon's own. Without a slash it is looked up in PATH.
        setup: shell lines that run before it.
        env: variables on top of the daemon's environment.
        log: file for its standard output and error; appended to.
        cluster: whose it is.
        unit: `controller` or the engine set.
        limits: what it may use, with all that it starts.
        stop_timeout: seconds that it may take to end.
    """

    launch: str
    title: str
    word: str
    spec: str
    log: str
    python: str | None = None
    setup: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    cluster: str = ""
    unit: str = ""
    limits: Limits = Limits()
    stop_timeout: float = 15.0


class Unknown(Exception):
    """Neither done nor refused: the answer was lost. A query will tell."""


class Launcher(Protocol):
    """What every launcher says of itself."""

    traits: LauncherTraits


class ProcessLauncher(Launcher, Protocol):
    """Starts processes on this host. Their ends are seen by pidfd, adoption is by identity: both need no launcher."""

    def start(self, program: Program) -> ProcessIdentity:
        """Start it and return who it is.

        Raises:
            LaunchError: nothing was started.
            Unknown: whether it was, its identity file will tell.
        """


class JobLauncher(Launcher, Protocol):
    """Submits jobs. Calls may take seconds: they are made in a thread."""

    def submit(self, program: Program) -> str:
        """Submit it and return the job's id.

        Raises:
            LaunchError: the batch system said no.
            Unknown: it did not say anything that can be understood.
        """

    def query(self) -> tuple[Job, ...]:
        """Return all jobs of ours, in one question.

        Raises:
            Unknown: no certain answer; nothing follows from it.
        """

    def cancel(self, job: str) -> None:
        """Ask for the end of a job; whether it ended, a query tells."""

"""What the daemon must offer to be served: one method for each route, plain data in and out.

The server knows nothing of daemons, and the daemon nothing of HTTP. Errors are those of clusterd.errors; the server turns them
into answers. A method that changes something returns when the wish is durable, not when it has come true. `logs` and
`events` refuse what they do not like when they are called: once a stream has begun there is no answer left to give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from clusterd.control.authorize import Caller
    from clusterd.control.requests import (
        Drain,
        Events,
        Explain,
        Logs,
        Restart,
        Resume,
        RotateKey,
        Scale,
        Start,
        StatusQuery,
        Stop,
        Strays,
        Targets,
        TasksPurge,
        TasksQuery,
    )

__all__ = ["Service"]


class Service(Protocol):
    """One daemon; `name` is the profile's, and for now the name of its only cluster."""

    name: str

    def version(self) -> dict[str, Any]:
        """Release, API version, profile, pid."""

    def clusters(self) -> list[dict[str, Any]]:
        """Name and state of each cluster."""

    async def status(self, request: StatusQuery) -> dict[str, Any]:
        """All about the cluster: desired, observed, and why they differ; after a wait when one is asked for."""

    async def engines(self) -> list[dict[str, Any]]:
        """Each slot and what is in it."""

    def connection(self) -> dict[str, Any]:
        """Where the connection files are, and whether they are there."""

    async def start(self, request: Start, caller: Caller) -> dict[str, Any]:
        """Wish that the cluster runs."""

    async def stop(self, request: Stop, caller: Caller) -> dict[str, Any]:
        """Wish that nothing runs."""

    async def restart(self, request: Restart, caller: Caller) -> dict[str, Any]:
        """End parts and start them again."""

    async def scale(self, engine_set: str, request: Scale, caller: Caller) -> dict[str, Any]:
        """Wish for a number of engines."""

    async def drain(self, request: Drain, caller: Caller) -> dict[str, Any]:
        """Give some engines no new tasks, and end them when they have none left."""

    async def resume(self, engine_set: str, request: Resume, caller: Caller) -> dict[str, Any]:
        """Try again what was given up."""

    async def command_engines(self, command: str, request: Targets, caller: Caller) -> dict[str, Any]:
        """Interrupt, stop, kill or restart engines."""

    async def reload(self, caller: Caller) -> dict[str, Any]:
        """Read the profile again; the old one stays when the new one is wrong."""

    async def tasks(self, request: TasksQuery) -> dict[str, Any]:
        """Some tasks as `tasks`, and in `next` where the following page begins; null after the last one."""

    async def task(self, name: str) -> dict[str, Any]:
        """One task in full, as `task`."""

    async def purge_tasks(self, request: TasksPurge, caller: Caller) -> dict[str, Any]:
        """Forget tasks that have ended: how many as `purged`, and in `next` where to go on; null when it is done."""

    async def rotate_key(self, request: RotateKey, caller: Caller) -> dict[str, Any]:
        """Change the keys of the cluster."""

    async def orphans(self) -> list[dict[str, Any]]:
        """What runs in the runtime directory and is nobody's."""

    async def end_orphans(self, request: Strays, caller: Caller) -> dict[str, Any]:
        """End some of it."""

    async def explain(self, request: Explain) -> dict[str, Any]:
        """The story of one engine, set, agent or controller, and how it is now."""

    def logs(self, request: Logs) -> AsyncGenerator[dict[str, Any]]:
        """Lines of log files as `{"source", "line"}`, oldest first."""

    def events(self, request: Events) -> AsyncGenerator[dict[str, Any]]:
        """What happened, as `{"seq", "time", "event", ...}`."""

"""What the control socket offers, done by the daemon: commands become events of the supervisor, questions are answered from views.

Commands return when the wish is durable. Nothing here waits for the world, except a question to the controller, with a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from clusterd import __version__
from clusterd.core.model.ids import CONTROLLER
from clusterd.core.model.slots import format_slots
from clusterd.core.supervisor import events
from clusterd.core.wire.messages import ControllerStatus
from clusterd.daemon.connecting import connection_of
from clusterd.daemon.engine_commands import command_engines, resolve
from clusterd.daemon.explaining import explain
from clusterd.daemon.key_rotation import rotate_keys
from clusterd.daemon.logs import LogFiles, sources_of
from clusterd.daemon.planning import plan_of
from clusterd.daemon.profiles import EFFECTS
from clusterd.daemon.startup import default_set
from clusterd.daemon.status import cluster_status, engine_list
from clusterd.daemon.strays import Stray, described, end, strays
from clusterd.daemon.tasks import TaskRecords
from clusterd.errors import ClusterdError, ControlError
from clusterd.system import clock
from clusterd.system.paths import host_id

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
    from clusterd.daemon.loop import Daemon

__all__ = ["Service"]

Request: TypeAlias = (
    events.StartRequested
    | events.StopRequested
    | events.ScaleRequested
    | events.DrainRequested
    | events.RestartRequested
    | events.ResumeRequested
)

CONTROLLER_PATIENCE: Final = 0.2
"""Seconds that a question to the controller may delay `status`: without its answer the task counts are left out."""


class Service:
    """The API of one daemon; see `control.service` for what each method means."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.name = daemon.places.name
        self._started_at = clock.wall()
        self._started = clock.monotonic()
        self._records = TaskRecords(
            daemon.link, daemon.places.records, lambda: daemon.profile.profile, lambda: default_set(daemon.profile)
        )

    # --- questions ---

    def version(self) -> dict[str, Any]:
        """Release, profile, process."""
        return {
            "release": __version__,
            "profile": self.name,
            "pid": os.getpid(),
            "uid": os.geteuid(),
            "host": host_id(),
        }

    def clusters(self) -> list[dict[str, Any]]:
        """The only one."""
        seen = self._view()
        return [{key: seen[key] for key in ("cluster", "state", "desired", "is_converged")}]

    async def status(self, request: StatusQuery) -> dict[str, Any]:
        """Everything."""
        if request.wait is not None:
            await self._wait(request)
        daemon = self._daemon
        # Before anything is read: what changes while the controller is asked is then told by the next poll.
        number = daemon.story.number
        about = await self._ask_controller()
        seen = self._view()
        source = daemon.profile
        return {
            **seen,
            "seq": number,
            "tasks": about.get("tasks"),
            "clients": None if not about else len([c for c in about["clients"] if not c["is_operator"]]),
            "stock": self._stock(),
            "keys": about.get("keys"),
            "warnings": self._warnings(),
            "daemon": {
                "pid": os.getpid(),
                "release": __version__,
                "uid": os.geteuid(),
                "host": host_id(),
                "started_at": self._started_at,
                "uptime": clock.monotonic() - self._started,
                "profile": self.name,
                "profile_file": str(source.path),
                "profile_loaded_at": source.loaded_at,
                "runtime_dir": str(daemon.places.runtime),
                "state_dir": str(daemon.places.state),
                "ends_on_stop": daemon.ends_on_stop,
            },
        }

    async def engines(self) -> list[dict[str, Any]]:
        """Each slot."""
        await self._daemon.refresh_engines()
        return engine_list(self._daemon.driver.supervisor, self._daemon.roster)

    async def tasks(self, request: TasksQuery) -> dict[str, Any]:
        """What ran."""
        return await self._records.page(request)

    async def task(self, name: str) -> dict[str, Any]:
        """One task."""
        return await self._records.show(name)

    async def purge_tasks(self, request: TasksPurge, caller: Caller) -> dict[str, Any]:
        """Forget what has ended."""
        if request.cursor is None:
            self._tell("purge of task records", caller)
        return await self._records.purge(request)

    def connection(self) -> dict[str, Any]:
        """The connection files."""
        daemon = self._daemon
        is_shared = not daemon.profile.profile.access.is_closed
        state = self._view()["controller"]["state"]
        return connection_of(daemon.places, state, daemon.publisher.file, is_shared=is_shared)

    def logs(self, request: Logs) -> AsyncGenerator[dict[str, Any]]:
        """Lines of log files; of the daemon from memory where its log goes elsewhere (systemd's journal, a terminal)."""
        sets = self._daemon.driver.supervisor.sets()
        files = LogFiles(self._daemon.places.logs, sources_of(request.source, sets))
        if request.source == "daemon" and not _is_our_log(self._daemon):
            return self._own_lines(request)
        return files.lines(request.tail, follow=request.follow, after=request.after)

    def events(self, request: Events) -> AsyncGenerator[dict[str, Any]]:
        """The story."""
        return self._events(request.since, follow=request.follow, after=request.after)

    async def orphans(self) -> list[dict[str, Any]]:
        """What is nobody's."""
        await self._daemon.refresh_engines()
        return described(self._strays())

    async def end_orphans(self, request: Strays, caller: Caller) -> dict[str, Any]:
        """End it, after one more look at whose it is."""
        await self._daemon.refresh_engines()
        self._tell(f"end {', '.join(request.names)}", caller)
        found = [stray for stray in self._strays() if stray.name in request.names]
        answer = await end(found, self._daemon.driver.supervisor.settings.longest_stop)
        missing = {name: "it is claimed, or has ended" for name in request.names if name not in {s.name for s in found}}
        return {"done": answer["done"], "failed": answer["failed"] | missing}

    async def explain(self, request: Explain) -> dict[str, Any]:
        """One story."""
        await self._daemon.refresh_engines()
        return await explain(self._daemon, request.subject)

    # --- commands ---

    async def start(self, request: Start, caller: Caller) -> dict[str, Any]:
        """Run."""
        if self._daemon.is_leaving:
            raise ControlError("the service is being stopped", hint="start it again when it has: systemctl start ...")
        self._daemon.end_when_idle(wanted=False)
        counts = {} if request.n is None else {default_set(self._daemon.profile): request.n}
        return self._command("start", events.StartRequested(self._number(), counts), caller)

    async def stop(self, request: Stop, caller: Caller) -> dict[str, Any]:
        """Run nothing, and end if asked to, or if `clusterctl start` began this daemon."""
        ends_daemon = self._daemon.ends_on_stop if request.daemon is None else request.daemon
        event = events.StopRequested(self._number())
        if request.plan:
            return {**await self._plan("stop", event), "ends_daemon": ends_daemon}
        answer = self._command("stop", event, caller)
        if request.timeout is not None:
            self._daemon.kill_after(request.timeout)
        self._daemon.end_when_idle(wanted=ends_daemon)
        return {**answer, "ends_daemon": ends_daemon}

    async def restart(self, request: Restart, caller: Caller) -> dict[str, Any]:
        """End and start again."""
        unit = "" if request.what == "all" else request.what
        event, what = events.RestartRequested(self._number(), unit), f"restart {request.what}"
        return await self._plan(what, event) if request.plan else self._command(what, event, caller)

    async def scale(self, engine_set: str, request: Scale, caller: Caller) -> dict[str, Any]:
        """Wish for engines."""
        # Idle engines go first when there are too many: that is asked now, not remembered.
        await self._daemon.refresh_engines()
        event = events.ScaleRequested(self._number(), engine_set, request.n, request.drain_timeout)
        what = f"scale {engine_set} to {request.n}"
        return await self._plan(what, event) if request.plan else self._command(what, event, caller)

    async def drain(self, request: Drain, caller: Caller) -> dict[str, Any]:
        """Let engines finish and go."""
        meant = resolve(request.targets, engine_list(self._daemon.driver.supervisor, self._daemon.roster))
        slots: dict[str, tuple[int, ...]] = {}
        for engine in meant:
            slots[engine["set"]] = (*slots.get(engine["set"], ()), engine["slot"])
        event = events.DrainRequested(self._number(), slots, request.replace, request.drain_timeout)
        what = f"drain {', '.join(format_slots(unit, some) for unit, some in slots.items())}"
        return await self._plan(what, event) if request.plan else self._command(what, event, caller)

    async def resume(self, engine_set: str, request: Resume, caller: Caller) -> dict[str, Any]:
        """Try again."""
        if request.slots is not None and engine_set != CONTROLLER:
            await self._daemon.resume_slots(engine_set, request.slots)
            return {"cluster": self.name}
        answer = self._command(f"resume {engine_set}", events.ResumeRequested(self._number(), engine_set), caller)
        if engine_set != CONTROLLER:
            # The agents' word comes before the answer, so that who waits for the set does not take its old state for the new one.
            await self._daemon.resume_slots(engine_set, None)
        return answer

    async def command_engines(self, command: str, request: Targets, caller: Caller) -> dict[str, Any]:
        """Act on engines."""
        meant = resolve(request.targets, engine_list(self._daemon.driver.supervisor, self._daemon.roster))
        units = {engine["set"] for engine in meant}
        about = {"unit": units.pop(), "slots": [engine["slot"] for engine in meant]} if len(units) == 1 else {}
        self._tell(f"{command} {', '.join(map(str, request.targets))}", caller, **about)
        return await command_engines(self._daemon, command, request.targets)

    async def reload(self, caller: Caller) -> dict[str, Any]:
        """Read the profile again."""
        self._tell("reload", caller)
        changes = self._daemon.reload()
        return {
            "profile_file": str(self._daemon.profile.path),
            "changes": [
                {
                    "setting": change.path,
                    "applies": change.applies,
                    "effect": EFFECTS[change.applies].format(engine_set=change.engine_set),
                }
                for change in changes
            ],
        }

    async def rotate_key(self, request: RotateKey, caller: Caller) -> dict[str, Any]:
        """Change the keys."""
        self._tell("rotate-key", caller)
        return {"cluster": self.name, **await rotate_keys(self._daemon, request.grace)}

    # --- inside ---

    def _number(self) -> int:
        return self._daemon.driver.new_request()

    def _tell(self, what: str, caller: Caller, **about: Any) -> None:
        text = f"{what}, asked for by {caller}"
        self._daemon.story.tell("command", text, uid=caller.uid, pid=caller.pid, **about)

    def _command(self, what: str, event: Request, caller: Caller) -> dict[str, Any]:
        about: dict[str, Any] = {}
        if isinstance(event, events.DrainRequested):
            if len(event.slots) == 1:
                [(about["unit"], slots)] = event.slots.items()
                about["slots"] = list(slots)
        elif unit := event.engine_set if isinstance(event, events.ScaleRequested) else getattr(event, "unit", ""):
            about["unit"] = unit
        self._tell(what, caller, **about)
        answer = self._daemon.command(event, event.request)
        return {"cluster": self.name, **answer}

    def _strays(self) -> list[Stray]:
        daemon = self._daemon
        return strays(daemon.places.units, daemon.driver.supervisor, daemon.roster)

    async def _plan(self, what: str, event: Request) -> dict[str, Any]:
        daemon = self._daemon
        await daemon.refresh_engines()
        planned = daemon.driver.plan(event)
        return {"cluster": self.name, **await plan_of(daemon, what, planned)}

    def _view(self) -> dict[str, Any]:
        daemon = self._daemon
        return cluster_status(
            daemon.driver.supervisor,
            daemon.roster,
            heard_at=daemon.link.last_heard if daemon.link.is_up else None,
            link_problem=daemon.link.problem,
            now=clock.monotonic(),
        )

    async def _ask_controller(self) -> dict[str, Any]:
        if not self._daemon.link.is_up:
            return {}
        try:
            async with asyncio.timeout(CONTROLLER_PATIENCE):
                value = await self._daemon.link.request(ControllerStatus)
        except (TimeoutError, ClusterdError):
            return {}
        return value if isinstance(value, dict) else {}

    async def queued(self) -> int:
        """Return how many tasks wait for an engine; 0 when the controller does not say."""
        tasks = (await self._ask_controller()).get("tasks", {})
        return sum(tasks.get(name, 0) for name in ("queued", "waiting", "parked"))

    def _stock(self) -> dict[str, Any]:
        told = self.connection()
        return {"served": told["stock"], "client_file": told["client_file"], "ipython_file": told["ipython_file"]}

    def _warnings(self) -> list[str]:
        daemon = self._daemon
        found = list(daemon.warnings)
        if daemon.profile.problem:
            found.append(daemon.profile.problem)
        for notice in daemon.roster.agents.values():
            found += [f"{notice.engine_set}: {warning}" for warning in notice.warnings]
        found += [f"{unit}: {note}" for unit, note in daemon.limit_notes().items()]
        if daemon.publisher.problem:
            found.append(f"publish: {daemon.publisher.problem}")
        found += [*daemon.sharing.problems, *filter(None, [daemon.audit.problem])]
        if daemon.driver.broken is not None:
            found.append(f"the journal cannot be written: {daemon.driver.broken.message}")
        return list(dict.fromkeys(found))

    async def _wait(self, request: StatusQuery) -> None:
        story = self._daemon.story
        # When the time is over the status tells how far it is.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(request.timeout):
                if request.wait == "change":
                    # A number above ours is of an earlier daemon: everything is news.
                    while story.number == request.since:
                        await self._next_change()
                else:
                    while not ((seen := self._view())["is_converged"] or seen["is_stuck"]):
                        await self._next_change()

    async def _next_change(self) -> None:
        changed = asyncio.Event()
        self._daemon.story.call_at_next_change(changed.set)
        try:
            await changed.wait()
        finally:
            self._daemon.story.forget(changed.set)

    async def _events(self, since: int, *, follow: bool, after: float | None = None) -> AsyncGenerator[dict[str, Any]]:
        while True:
            for event in self._daemon.story.since(since):
                if after is None or event["time"] > after:
                    yield event
            since = self._daemon.story.number
            if not follow:
                return
            await self._next_change()

    async def _own_lines(self, request: Logs) -> AsyncGenerator[dict[str, Any]]:
        known = [event for event in self._daemon.story.all() if event["time"] > (request.after or 0.0)]
        for event in known[-request.tail :] if request.tail else []:
            yield {"source": "daemon", "line": event["text"]}
        if request.follow:
            async for event in self._events(self._daemon.story.number, follow=True):
                yield {"source": "daemon", "line": event["text"]}


def _is_our_log(daemon: Daemon) -> bool:
    try:
        return os.path.samestat(os.fstat(2), (daemon.places.logs / "daemon.log").stat())
    except OSError:
        return False

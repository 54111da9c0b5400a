"""Performs the supervisor's actions, each once, in order, and returns what is known at once as events for it.

Works without an event loop, so that the daemon can start others before it has one: what needs the controller goes to `link`,
which keeps or drops it. Decides nothing. Every action may be repeated after a crash: starting is guarded by the launch id
(its identity file is claimed by the process itself), the rest is idempotent.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from clusterd.core.model import launch as specs_format
from clusterd.core.model.ids import CONTROLLER
from clusterd.core.supervisor import actions, events
from clusterd.daemon import adoption, specs
from clusterd.errors import ClusterdError, LaunchError
from clusterd.launchers import limits, registry
from clusterd.launchers.base import Unknown
from clusterd.launchers.transient import unit_name
from clusterd.system import clock, fault, files, process

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterd.core.model.profile import Profile
    from clusterd.core.supervisor.events import Event
    from clusterd.daemon.places import Places
    from clusterd.daemon.processes import Processes
    from clusterd.daemon.story import Story
    from clusterd.launchers.base import JobLauncher, ProcessLauncher
    from clusterd.launchers.transient import TransientLauncher

__all__ = ["Effects", "Link"]


Aside: TypeAlias = "Callable[[Callable[[], Any], Callable[[Any], list[Event]]], None]"


class Link(Protocol):
    """What is done through the controller. Lost messages are the supervisor's business: it compares generations."""

    def set_desired(self, action: actions.SetDesired) -> None:
        """Tell an agent its slots."""

    def drain(self, action: actions.Drain) -> None:
        """Tell the controller which engines get no new work; answers EnginesDrained."""

    def resume_slots(self, action: actions.ResumeSlots) -> None:
        """Tell an agent to try again."""

    def dismiss(self, action: actions.Dismiss) -> None:
        """Tell an agent that nobody wants to leave."""


class Effects:
    """Everything that the daemon does to the world.

    Args:
        places: the instance's files.
        profile: called for the profile in effect.
        processes: watches what is started here.
        story: is told what is done.
        units: starts processes in units of systemd; None where the daemon is no service.

    Attributes:
        notes: by unit, what the status should say of how it was started.
    """

    def __init__(
        self,
        places: Places,
        profile: Callable[[], Profile],
        processes: Processes,
        story: Story,
        units: TransientLauncher | None = None,
    ) -> None:
        self._places = places
        self._profile = profile
        self._processes = processes
        self._story = story
        self._units = units
        # Launches whose process is a unit of its own: the manager knows how it ends.
        self._in_units: set[str] = set()
        self.notes: dict[str, str] = {}
        # One launcher per name, made at first use.
        self._launchers: dict[str, ProcessLauncher | JobLauncher] = {}
        # Set by the loop as soon as there is one; until then the supervisor has not heard of any agent to speak to.
        self.link: Link | None = None
        # Set by the loop: begins to end the engines of a set, and reports ReapFinished later.
        self.reap: Callable[[str], None] | None = None
        # Set by the loop: does the first in a thread, and feeds what the second makes of its result.
        self.aside: Aside | None = None
        # Sets to reap that were named before there was a loop.
        self.reap_later: list[str] = []
        # All kinds of action but those that are the driver's: Append, Answer, Refuse.
        self._performers: dict[type[actions.Action], Callable[[Any], list[Event]]] = {
            actions.Start: self._start,
            actions.Adopt: self._adopt,
            actions.Stop: self._stop,
            actions.Submit: self._submit,
            actions.Query: self._query,
            actions.Cancel: self._cancel,
            actions.Reap: self._reap,
            actions.Dismiss: self._dismiss,
            actions.SetDesired: lambda action: self._through_link("set_desired", action),
            actions.Drain: lambda action: self._through_link("drain", action),
            actions.ResumeSlots: lambda action: self._through_link("resume_slots", action),
        }

    def perform(self, action: actions.Action) -> list[Event]:
        """Do it; return what followed at once."""
        return self._performers[type(action)](action)

    def forget(self, launch: str) -> None:
        """Remove what a launch that has ended leaves in the runtime directory.

        An identity file that names nobody stays: it calls the launch off, and its process may have read its spec and not
        yet come to claim its place.
        """
        for path in (self._places.spec_file(launch), self._places.script_file(launch)):
            path.unlink(missing_ok=True)
        self._in_units.discard(launch)
        for path in (self._places.identity_file("controller", launch), self._places.identity_file("agent", launch)):
            if adoption.read_identity(path) is not None:
                path.unlink(missing_ok=True)

    def _start(self, action: actions.Start) -> list[Event]:
        if self._units is not None and self.aside is not None:
            # A manager that is busy may take seconds to answer, and nobody else is to wait for it.
            self.aside(lambda: self._try(action), lambda outcome: self._tried(action, outcome))
            return []
        return self._tried(action, self._try(action))

    def _try(self, action: actions.Start) -> specs_format.ProcessIdentity | str:
        """Start it; return who it is, or why it was not started. Changes nothing of ours: may run in a thread."""
        try:
            try:
                identity = self._spawn(action)
            except Unknown as error:
                identity = self._claimed(action, str(error))
            fault.point("daemon.start.after_spawn")
        except ClusterdError as error:
            return error.message
        except OSError as error:
            return str(error)
        return identity

    def _tried(self, action: actions.Start, outcome: specs_format.ProcessIdentity | str) -> list[Event]:
        name = action.unit if action.unit == CONTROLLER else f"agent of {action.unit}"
        if isinstance(outcome, str):
            self._story.tell(
                "launch_refused", f"{name} was not started: {outcome}", unit=action.unit, launch=action.launch
            )
            return [events.LaunchRefused(action.launch, outcome)]
        identity = outcome
        self._note(action.unit, action.launch, identity.pid)
        self._story.tell(
            "launch_started",
            f"started the {name}: process {identity.pid}",
            unit=action.unit,
            launch=action.launch,
            pid=identity.pid,
        )
        started = events.Started(action.launch, identity)
        log = self._places.log_file(action.unit)
        if self._processes.watch(action.launch, identity, log):
            return [started]
        # A shell ends at once where a setup line fails: the reason is in its log.
        known = self.how_it_ended(action.unit, action.launch)
        reason = self._processes.why_gone(identity, log) if known is None else known[0]
        return [started, events.LaunchExited(action.launch, reason)]

    @property
    def has_units(self) -> bool:
        """Whether processes are started in units of systemd."""
        return self._units is not None

    def how_it_ended(self, unit: str, launch: str) -> tuple[str, int | None] | None:
        """Return what systemd knows of the end of a launch, in words and as a status; None when it was no unit of its own.

        Takes as long as the manager does; may be called in a thread.
        """
        if self._units is None:
            return None
        name, log = unit_name(self._places.name, unit, launch), self._places.log_file(unit)
        return self._units.how_it_ended(name, log, is_unit=launch in self._in_units)

    def _claimed(self, action: actions.Start, problem: str) -> specs_format.ProcessIdentity:
        """Find out whether a launch runs that nobody has answered for; it never will when nobody has claimed it.

        Raises:
            LaunchError: so it is.
        """
        result = adoption.look_for(actions.Adopt(action.launch, action.unit, None), self._places)
        if result.identity is None or result.verdict != "found":
            raise LaunchError(f"{problem}; it was called off")
        return result.identity

    def _note(self, unit: str, launch: str, pid: int) -> None:
        """Remember how a process of ours runs: in a unit or not, and which of its limits are not held."""
        profile = self._profile()
        section = profile.controller if unit == CONTROLLER else profile.engine_sets.get(unit)
        if section is None:
            return
        if self._units is not None and process.is_in_unit(pid, unit_name(self._places.name, unit, launch)):
            self._in_units.add(launch)
            self.notes[unit] = limits.not_held(section.limits, pid)
        else:
            self.notes[unit] = limits.without_units(section.limits)

    def _spawn(self, action: actions.Start) -> specs_format.ProcessIdentity:
        profile, places = self._profile(), self._places
        launcher_name = (
            profile.controller.launcher if action.unit == CONTROLLER else profile.engine_sets[action.unit].launcher
        )
        if launcher_name not in self._launchers:
            self._launchers[launcher_name] = registry.make(launcher_name)
        launcher = self._launchers[launcher_name]
        if self._units is not None and launcher_name == "local":
            launcher = self._units
        if launcher.traits.has_queue:
            raise LaunchError(f"the launcher {launcher_name} submits jobs, it starts no processes")
        spec = (
            specs.controller_spec(profile, places, action.launch)
            if action.unit == CONTROLLER
            else specs.agent_spec(
                profile, places, action.launch, action.unit, action.slots, action.generation, has_journal=self.has_units
            )
        )
        files.atomic_write(places.spec_file(action.launch), specs_format.encode(spec), durable=False)
        fault.point("daemon.start.before_spawn")
        return launcher.start(specs.program(profile, places, action.launch, action.unit))  # type: ignore[union-attr]

    def _adopt(self, action: actions.Adopt) -> list[Event]:
        result = adoption.look_for(action, self._places)
        name = action.unit if action.unit == CONTROLLER else f"agent of {action.unit}"
        if result.verdict == "found" and result.identity is not None:
            pid = result.identity.pid
            if self._processes.watch(action.launch, result.identity, self._places.log_file(action.unit)):
                self._note(action.unit, action.launch, pid)
                text = f"adopted the {name}: process {pid}"
                self._story.tell("launch_adopted", text, unit=action.unit, launch=action.launch, pid=pid)
            else:
                gone = f"process {pid} ended in this moment"
                result = events.AdoptionResult(action.launch, "absent", result.identity, gone)
        if result.verdict == "absent":
            known = self.how_it_ended(action.unit, action.launch)
            how = "" if known is None else f"; it {known[0]}"
            self._story.tell(
                "launch_absent",
                f"the {name} does not run any more: {result.evidence}{how}",
                unit=action.unit,
                launch=action.launch,
            )
        return [result]

    def _stop(self, action: actions.Stop) -> list[Event]:
        number = signal.SIGTERM if action.how == "term" else signal.SIGKILL
        name = action.unit if action.unit == CONTROLLER else f"agent of {action.unit}"
        if self._processes.signal(action.launch, number):
            verb = "asked to end" if action.how == "term" else "killed"
            self._story.tell("launch_stopping", f"{verb}: the {name}", unit=action.unit, launch=action.launch)
        return []

    def _submit(self, action: actions.Submit) -> list[Event]:
        return [events.LaunchRefused(action.launch, f"the launcher of {action.unit} has no queue")]

    def _query(self, action: actions.Query) -> list[Event]:
        return [events.QueryFailed(action.unit, clock.monotonic(), f"the launcher of {action.unit} has no queue")]

    def _cancel(self, action: actions.Cancel) -> list[Event]:
        self._story.tell(
            "job_left", f"job {action.job} of {action.unit} cannot be cancelled: its launcher has no queue"
        )
        return []

    def _reap(self, action: actions.Reap) -> list[Event]:
        if self.reap is None:
            self.reap_later.append(action.unit)
        else:
            self.reap(action.unit)
        return []

    def _through_link(self, method: str, action: actions.Action) -> list[Event]:
        if self.link is not None:
            getattr(self.link, method)(action)
        return []

    def _dismiss(self, action: actions.Dismiss) -> list[Event]:
        identity = adoption.read_identity(self._places.identity_file("agent", action.launch))
        self._story.tell("agent_dismissed", f"an agent of an earlier launch ({action.launch}) is told to leave")
        if identity is not None:
            process.send_signal(identity, signal.SIGTERM)
        elif self.link is not None:
            self.link.dismiss(action)
        return []

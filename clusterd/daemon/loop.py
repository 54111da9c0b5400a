"""The daemon's event loop: everything that happens becomes an event of the supervisor; in between it sleeps. Nothing polls.

What happens: a process ends (pidfd), the controller says something, the supervisor's deadline comes, a signal, a request on the
control socket, a new connection file (inotify). Ending the loop ends nothing else: controller, agents and engines go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING, Any, Final

from clusterd.control.audit import Audit
from clusterd.control.authorize import Authorizer
from clusterd.control.server import ControlServer
from clusterd.core.model import connection as connection_file
from clusterd.core.model.ids import CONTROLLER
from clusterd.core.supervisor import events, settings
from clusterd.core.supervisor.view import view
from clusterd.daemon import departure
from clusterd.daemon.connecting import Publisher
from clusterd.daemon.controller_link import ControllerLink
from clusterd.daemon.operator import Operator
from clusterd.daemon.reaping import reap
from clusterd.daemon.roster import Roster
from clusterd.daemon.service import Service
from clusterd.daemon.sharing import Sharing
from clusterd.daemon.status import is_idle
from clusterd.daemon.unit import ServiceManager
from clusterd.errors import ProfileError, StorageError
from clusterd.system import clock
from clusterd.system.inotify import Watcher

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine

    from clusterd.daemon.processes import Ended
    from clusterd.daemon.startup import Begun
    from clusterd.profile import Change

__all__ = ["Daemon"]

_log = logging.getLogger("clusterd.daemon")
LOOK_EVERY: Final = 0.5
"""Seconds between looks at processes on kernels without pidfd."""
SHARING_PATIENCE: Final = 0.5
"""Seconds that the beginning waits until others are let in whom the profile names."""


class Daemon:
    """One daemon at work.

    Attributes:
        ends_on_stop: `clusterctl start` began it, so `stop` ends it.
        is_leaving: systemd or somebody else has told it to end.
        warnings: what people should know, for `status`.
        publisher: keeps the client file in the IPython directory, where the profile wants it.
        sharing: lets others reach what `access` of the profile gives to them; `authorizer` decides, `audit` writes down.
    """

    def __init__(self, begun: Begun) -> None:
        self.places, self.profile, self.story = begun.places, begun.profile, begun.story
        self.driver, self.warnings, self.ends_on_stop = begun.driver, begun.warnings, begun.ends_on_stop
        # It ends as soon as nothing runs any more.
        self._is_ending = False
        self.is_leaving = False
        self.roster = Roster()
        self.publisher = Publisher(self.places, self.story)
        self.authorizer = Authorizer(lambda: self.profile.profile.access, lambda: str(self.profile.path))
        self.audit = Audit(self.places.audit)
        self.sharing = Sharing(self.places, lambda: self.profile.profile.access, self.authorizer, self.story)
        self._begun = begun
        self._processes, self._effects = begun.processes, begun.effects
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._status = 0
        # The timer of the supervisor's next deadline.
        self._timer: asyncio.TimerHandle | None = None
        # Ends of sets' engines that are under way; kept so that they are not collected.
        self._tasks: set[asyncio.Task[None]] = set()
        self._manager = ServiceManager(self._loop, self._is_able)
        # Tasks that wait, as the controller said when it was last asked.
        self._queued = 0
        # What was last told of the cluster's state.
        self._told_state = ""
        self._was_converged = False
        file = self.places.security / connection_file.CLIENT_FILE
        self.link = ControllerLink(file, f"clusterd serve {self.places.name}")
        self._operator = Operator(self.link, self.roster, self.driver, self.story, self.feed)
        self._operator.on_stop_asked = self._stop_asked
        self._service = Service(self)

    async def run(self, listener: socket.socket, on_ready: Callable[[], None]) -> int:
        """Serve until told to end; return the exit status.

        Args:
            listener: the control socket.
            on_ready: called once requests are answered.
        """
        self.driver.on_broken = self._broken
        server = ControlServer(self._service, listener, self.authorizer, self.audit)
        await server.start()
        self._connect_processes()
        self._effects.link = self._operator
        self._effects.reap = self._reap
        self._effects.aside = self._aside
        for unit in self._effects.reap_later:
            self._reap(unit)
        self._install_signals()
        # Who asks as soon as it is ready finds the door open; but a user directory that hangs holds up nothing else.
        await asyncio.wait([self._spawn(self.sharing.begin())], timeout=SHARING_PATIENCE)
        on_ready()
        self._manager.ready()
        self.link.open()
        watcher = self._watch_connection_file()
        # What ended, or came due, while there was no loop.
        self.feed(events.TimePassed())
        self.warnings += self.profile.doubts()
        await self._end.wait()
        self._manager.stopping()
        # Long polls end with the last news instead of being cut.
        self.story.touch()
        await server.close()
        self._close(watcher)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return self._status

    def feed(self, *happened: events.Event) -> None:
        """Hand events to the supervisor, and sleep until its next deadline."""
        # The journal cannot be written: `_broken` has ended the loop already.
        with contextlib.suppress(StorageError):
            self.driver.feed(*happened)
        self._after()

    def command(self, event: events.Event, request: int) -> dict[str, Any]:
        """Hand a command to the supervisor and return its answer.

        Raises:
            ControlError: refused.
            StorageError: not recorded.
        """
        try:
            answer: dict[str, Any] = self.driver.command(event, request)
        finally:
            self._after()
        return answer

    def reload(self) -> list[Change]:
        """Read the profile again.

        Raises:
            ProfileError: it cannot be used; nothing has changed.
        """
        self._manager.reloading()
        try:
            changes = self.profile.reload()
        except ProfileError as error:
            self.story.tell("reload_refused", f"the profile was not reloaded: {error.message}", level=logging.ERROR)
            raise
        finally:
            self._manager.ready()
        told = ", ".join(change.path for change in changes) or "nothing has changed"
        self.story.tell("reloaded", f"reloaded {self.profile.path}: {told}")
        self.publisher.look_again()
        self.authorizer.directory.forget()
        self._spawn(self.sharing.begin())
        if changes:
            self.feed(events.ProfileChanged(settings.from_profile(self.profile.profile)))
        else:
            self._after()
        return changes

    async def refresh_engines(self) -> None:
        """Have the roster say what the controller says now."""
        await self._operator.refresh()

    async def resume_slots(self, engine_set: str, slots: list[int] | None) -> None:
        """Have the agents of a set try again in these slots, or in all.

        Raises:
            ControlError: the controller or the agent refuses.
            ControllerLost: there is no way to tell it.
        """
        await self._operator.resume(engine_set, slots)

    def end_when_idle(self, *, wanted: bool) -> None:
        """End (or do not, after all) as soon as nothing runs any more."""
        self._is_ending = wanted
        self._after()

    def _stop_asked(self, who: str) -> None:
        """Stop the cluster as `clusterctl stop` does: a controller that just ended would be started again."""
        self.story.tell("command", f"stop, asked for by {who}")
        self.audit.note_client(clock.wall(), who, "stop")
        number = self.driver.new_request()
        self.command(events.StopRequested(number), number)
        self.end_when_idle(wanted=self.ends_on_stop)

    def limit_notes(self) -> dict[str, str]:
        """Return, by unit, which limits of the profile are not held."""
        return {unit: note for unit, note in self._effects.notes.items() if note}

    def kill_after(self, seconds: float) -> None:
        """Kill whatever of the stopped cluster still runs by then."""
        self._loop.call_later(seconds, self._kill_what_is_left)

    # --- inside ---

    def _after(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.driver.next_deadline()
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self.feed, events.TimePassed())
        self._tell_state()
        self._publish()
        if self._is_ending and is_idle(self.driver.supervisor):
            self.story.tell("ends", "nothing runs any more: the daemon ends")
            self._end.set()

    def _publish(self) -> None:
        state = self.driver.supervisor.state
        is_wanted = state.is_wanted or bool(state.of_unit(CONTROLLER))
        self.publisher.follow(self.profile.profile.publish, is_up=self.link.is_up, is_wanted=is_wanted)
        self.sharing.follow()

    def _tell_state(self) -> None:
        """Note when the cluster becomes, or ceases to be, as it is wished."""
        seen = view(self.driver.supervisor, clock.monotonic())
        observed, desired = (sum(getattr(unit, name) for unit in seen.sets) for name in ("observed", "desired"))
        text = f"{observed}/{desired} engines"
        queued = f", {self._queued} tasks queued"
        line = text + queued if seen.state == "running" else f"{seen.state}: {text}"
        if line != self._told_state:
            self._told_state = line
            self._manager.status(line)
        if seen.is_converged != self._was_converged:
            self._was_converged = seen.is_converged
            if seen.is_converged:
                sets = ", ".join(f"{unit.unit} {unit.observed}/{unit.desired}" for unit in seen.sets)
                told = f"{seen.state}: {sets}" if sets else seen.state
                self.story.tell("converged", f"as wished: {told}")

    def _connect_processes(self) -> None:
        processes = self._processes

        def added(launch: str, descriptor: int) -> None:
            if descriptor >= 0:
                self._loop.add_reader(descriptor, self._process_ended, launch)
            else:
                self._loop.call_later(LOOK_EVERY, self._look_at, launch)

        def removed(_launch: str, descriptor: int) -> None:
            if descriptor >= 0:
                self._loop.remove_reader(descriptor)

        processes.on_added, processes.on_removed = added, removed
        for launch, descriptor in processes.all():
            added(launch, descriptor)

    def _process_ended(self, launch: str) -> None:
        ended = self._processes.collect(launch)
        if ended is None:
            return
        known = self.driver.supervisor.state.launches.get(launch)
        if ended.status is None and known is not None and self._effects.has_units:
            # No child of ours: systemd may know.
            self._spawn(self._ask_how(ended, known.unit))
        else:
            self.feed(events.LaunchExited(launch, ended.reason, is_clean=ended.status == 0))

    async def _ask_how(self, ended: Ended, unit: str) -> None:
        told = await asyncio.to_thread(self._effects.how_it_ended, unit, ended.launch)
        reason, status = (ended.reason, None) if told is None else told
        self.feed(events.LaunchExited(ended.launch, reason, is_clean=status == 0))

    def _look_at(self, launch: str) -> None:
        self._process_ended(launch)
        if self._processes.identity(launch) is not None:
            self._loop.call_later(LOOK_EVERY, self._look_at, launch)

    def _reap(self, unit: str) -> None:
        async def do() -> None:
            unit_settings = self.driver.supervisor.unit_settings(unit)
            error = await reap(unit, self.places, unit_settings.stop_timeout)
            self.feed(events.ReapFinished(unit, error))

        self._spawn(do())

    def _aside(self, work: Callable[[], Any], then: Callable[[Any], list[events.Event]]) -> None:
        async def do() -> None:
            self.feed(*then(await asyncio.to_thread(work)))

        self._spawn(do())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _kill_what_is_left(self) -> None:
        state = self.driver.supervisor.state
        if state.is_wanted:
            return
        for launch in state.launches.values():
            if self._processes.signal(launch.id, signal.SIGKILL):
                self.story.tell("launch_killed", f"killed launch {launch.id} of {launch.unit}: its time was over")

    def _install_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._told_to_end, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)

    def _told_to_end(self, number: signal.Signals) -> None:
        if self.is_leaving or number != signal.SIGTERM or self.driver.broken is not None:
            self._leave(number)
            return
        # A second one ends the daemon alone.
        self.is_leaving = True
        self._spawn(self._stop_or_leave(number))

    async def _stop_or_leave(self, number: signal.Signals) -> None:
        is_stop, limit = await departure.is_stop(self.profile.profile)
        if not is_stop:
            self._leave(number)
            return
        self.story.tell("command", "stop, asked for by systemctl: the cluster ends, and runs again with the service")
        self._manager.stopping()
        try:
            await departure.pause(self, self._operator, limit)
        except StorageError:
            self._leave(number)

    def _is_able(self) -> bool:
        """Say whether a command could be carried out; asked twice in each WatchdogSec."""
        self._spawn(self._look_at_queue())
        is_able = self.driver.is_able()
        if not is_able:
            _log.error("the journal cannot be written; the watchdog of systemd is not told that all is well")
        return is_able

    async def _look_at_queue(self) -> None:
        self._queued = await self._service.queued()
        self._tell_state()

    def _leave(self, number: signal.Signals) -> None:
        running = len(self.driver.supervisor.state.launches)
        left = f"; {running} launches run on and will be adopted by the next daemon" if running else ""
        self.story.tell("ends", f"{number.name}: the daemon ends{left}")
        self._end.set()

    def _told_to_reload(self) -> None:
        # What is wrong is logged by `reload`, and stands in the status.
        with contextlib.suppress(ProfileError):
            self.reload()

    def _broken(self) -> None:
        self._status = 1
        self._end.set()

    def _watch_connection_file(self) -> Watcher | None:
        watcher = Watcher.open(self.places.security)
        if watcher is not None:

            def changed() -> None:
                if connection_file.CLIENT_FILE in watcher.read():
                    self.sharing.follow()
                    self.link.dial_now()

            self._loop.add_reader(watcher.fileno(), changed)
        return watcher

    def _close(self, watcher: Watcher | None) -> None:
        if watcher is not None:
            self._loop.remove_reader(watcher.fileno())
            watcher.close()
        if self._timer is not None:
            self._timer.cancel()
        self.link.close()
        self.sharing.close()
        self.audit.close()
        self._processes.close()
        self._manager.close()

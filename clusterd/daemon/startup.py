"""The beginning of a daemon, up to the moment at which controller and agents are on their way: before asyncio, zmq and aiohttp.

Their imports cost as much as the controller's own start, so they happen while it starts. Nothing here waits. Invariants: the lock
is held before anything of the instance is read or written; a failure leaves no socket, no lock and no runtime directory behind.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
from typing import TYPE_CHECKING, NamedTuple

from clusterd.control.listening import listen
from clusterd.core.model.cluster import Cluster
from clusterd.core.supervisor import events, records, settings
from clusterd.core.supervisor.machine import Supervisor
from clusterd.daemon.driver import Driver
from clusterd.daemon.effects import Effects
from clusterd.daemon.places import Places
from clusterd.daemon.processes import Processes
from clusterd.daemon.profiles import ProfileSource
from clusterd.daemon.story import Story
from clusterd.daemon.story_file import StoryFile
from clusterd.daemon.units import open_launcher
from clusterd.errors import ControlError, LockHeld
from clusterd.storage.journal import Journal
from clusterd.system import files, systemd
from clusterd.system.lock import LockFile

if TYPE_CHECKING:
    import socket

    from clusterd.launchers.transient import TransientLauncher

__all__ = ["Begun", "begin", "end"]


class Begun(NamedTuple):
    """A daemon that has started others, and has no event loop yet."""

    places: Places
    profile: ProfileSource
    story: Story
    driver: Driver
    effects: Effects
    processes: Processes
    journal: Journal
    lock: LockFile
    listener: socket.socket
    warnings: list[str]
    ends_on_stop: bool
    is_activated: bool


def begin(name: str, *, is_start: bool = False, engines: int | None = None, ends_on_stop: bool = False) -> Begun:
    """Take the instance over and begin what should run.

    Args:
        name: the profile.
        is_start: as if `clusterctl start` had been the first command.
        engines: its -n.
        ends_on_stop: the daemon is to end with the cluster.

    Raises:
        ProfileError: the profile cannot be used.
        LockHeld: another daemon serves it; says which.
        ClusterdError: it cannot begin for another reason.
        OSError: a directory or file cannot be made.
    """
    profile = ProfileSource(name)
    places = Places.of(name)
    user = None
    if os.geteuid() == 0:
        from clusterd.daemon import run_as  # noqa: PLC0415 - for system services only

        user = run_as.user_to_become(profile.profile.run_as, profile.path)
    # Before `become` changes the environment: the title is written over its first place, and cannot be found afterwards.
    _set_title(f"clusterd serve {name}")
    passed = _passed(places)
    units = open_launcher(name, user)
    if user is not None:
        run_as.become(user, places, has_socket=passed is not None)
    files.private_directory(places.runtime)
    lock = LockFile(places.lock)
    try:
        lock.acquire()
    except LockHeld as error:
        who = f"process {error.pid}" if error.pid else "another process"
        raise LockHeld(f"the profile {name} is served already, by {who}", pid=error.pid, host=error.host) from None
    opened: list[Journal | socket.socket] = []
    try:
        for directory in (places.state, places.units, places.specs, places.logs, places.security):
            files.private_directory(directory)
        return _begin(
            places, profile, lock, opened, passed, units, is_start=is_start, engines=engines, ends_on_stop=ends_on_stop
        )
    except BaseException:
        for resource in opened:
            resource.close()
        if passed is None and not any(places.units.glob("*")):
            shutil.rmtree(places.runtime, ignore_errors=True)
        lock.release(remove=True)
        raise


def end(begun: Begun, *, is_idle: bool) -> None:
    """Give everything back; with `is_idle` nothing runs, and nothing but the state stays."""
    begun.journal.close()
    begun.listener.close()
    if not begun.is_activated:
        # Else systemd goes on listening there.
        begun.places.socket.unlink(missing_ok=True)
    if is_idle and not begun.is_activated:
        shutil.rmtree(begun.places.runtime, ignore_errors=True)
    begun.lock.release(remove=True)
    if is_idle and not begun.is_activated:
        # The directory that holds all instances, if it was ours to make and this was the last one.
        with contextlib.suppress(OSError):
            if begun.places.runtime.parent.name.startswith("clusterd"):
                begun.places.runtime.parent.rmdir()


def _begin(
    places: Places,
    profile: ProfileSource,
    lock: LockFile,
    opened: list[Journal | socket.socket],
    passed: socket.socket | None,
    units: TransientLauncher | None,
    *,
    is_start: bool,
    engines: int | None,
    ends_on_stop: bool,
) -> Begun:
    listener = listen(places.socket) if passed is None else passed
    opened.append(listener)
    journal = Journal.open(places.journal)
    opened.append(journal)
    story = Story(StoryFile(places.story))
    warnings: list[str] = []
    if journal.torn is not None:
        torn = journal.torn
        warnings.append(
            f"the journal's end was torn by a crash and was repaired; {torn.size} bytes are kept in {torn.copy}"
        )
        story.tell("journal_repaired", warnings[-1])
    cluster = Cluster(places.name, secrets.token_hex(4), os.geteuid())
    supervisor = Supervisor(cluster, settings.from_profile(profile.profile))
    for record in journal.replay():
        supervisor.apply(records.decode(record))
    is_new = supervisor.state.cluster is None
    processes = Processes()
    effects = Effects(places, lambda: profile.profile, processes, story, units)
    driver = Driver(supervisor, journal, effects, story)
    story.tell("daemon_started", f"serves {places.name} from {profile.path}, process {os.getpid()}")
    driver.feed(events.JournalReplayed())
    # A daemon that knows nothing yet does what its profile describes; later ones go by the last wish.
    if is_start or is_new or supervisor.state.is_paused:
        request = driver.new_request()
        counts = {}
        if supervisor.state.is_paused:
            known = supervisor.sets()
            counts = {unit: wish.n for unit, wish in supervisor.state.desired.items() if unit in known}
        if engines is not None:
            counts[default_set(profile)] = engines
        driver.command(events.StartRequested(request, counts), request)
    return Begun(
        places,
        profile,
        story,
        driver,
        effects,
        processes,
        journal,
        lock,
        listener,
        warnings,
        ends_on_stop,
        is_activated=passed is not None,
    )


def _passed(places: Places) -> socket.socket | None:
    """Return the control socket when systemd made it, and began us because of it.

    Raises:
        ControlError: it passed another one.
    """
    passed = systemd.passed_socket()
    if passed is None:
        return None
    if passed.getsockname() != str(places.socket):
        raise ControlError(
            f"systemd passed the socket {passed.getsockname()}, this instance's is {places.socket}",
            hint="correct ListenStream= in clusterd@.socket",
        )
    passed.setblocking(False)
    return passed


def default_set(profile: ProfileSource) -> str:
    """Return the set that `start -n` means: the default one, or the only one there is.

    Raises:
        ControlError: there are several, and none is the default.
    """
    sets = list(profile.profile.engine_sets)
    if "engines" in sets:
        return "engines"
    if len(sets) == 1:
        return sets[0]
    raise ControlError(
        f"-n does not say which engine set is meant: {', '.join(sets)}",
        code="bad_request",
        hint="start without -n, then: clusterctl scale SET N",
    )


def _set_title(title: str) -> None:
    if "setproctitle" in sys.modules or os.name == "posix":
        import setproctitle  # noqa: PLC0415 - after the refusals, which need no title

        setproctitle.setproctitle(title)

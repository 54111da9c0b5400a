"""What SIGTERM means for a service: `systemctl stop` ends the cluster, or with `on_stop: keep` the daemon alone, as all else does.

A restart, an upgrade and a stop send the same signal; which of them it is, the job tells that systemd has queued for our unit.
The end is in order: tasks that run may finish, as far as TimeoutStopSec allows, then engines and controller end. It is a pause:
the next start of the service runs what ran.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from clusterd.core.supervisor import events
from clusterd.core.supervisor.settings import AGENT_MARGIN
from clusterd.system import clock, systemd
from clusterd.system.service_manager import Manager, NoAnswer, Refused

if TYPE_CHECKING:
    from clusterd.core.model.profile import Profile
    from clusterd.daemon.loop import Daemon
    from clusterd.daemon.operator import Operator

__all__ = ["drain_seconds", "is_stop", "pause"]

_log = logging.getLogger("clusterd.daemon")
MARGIN: Final = 5.0
"""Seconds before TimeoutStopSec at which what is left is killed: systemd would kill the daemon, and leave the rest."""


async def is_stop(profile: Profile) -> tuple[bool, float]:
    """Return whether the cluster is to end now, and how many seconds that may take."""
    service = systemd.service()
    if service is None or profile.on_stop == "keep":
        return False, 0.0
    manager = Manager(service.scope)
    try:
        job = await asyncio.to_thread(manager.queued_job, service.unit)
        limit = await asyncio.to_thread(manager.stop_timeout, service.unit)
    except (NoAnswer, Refused) as error:
        # A cluster that runs on can be stopped by command; one that was stopped by mistake is lost.
        _log.warning("is this a stop or a restart? systemd does not say: %s; the cluster runs on", error)
        return False, 0.0
    return job == "stop", limit


async def pause(daemon: Daemon, operator: Operator, limit: float) -> None:
    """Let what runs finish, then stop everything; the daemon ends when nothing is left.

    Args:
        daemon: whose cluster.
        operator: drains engines.
        limit: seconds that there are for all of it.
    """
    began = clock.monotonic()
    profile = daemon.profile.profile
    if seconds := drain_seconds(profile, limit):
        await operator.drain_all(seconds)
    daemon.kill_after(max(0.0, limit - MARGIN - (clock.monotonic() - began)))
    number = daemon.driver.new_request()
    daemon.command(events.StopRequested(number, is_pause=True), number)
    daemon.end_when_idle(wanted=True)


def drain_seconds(profile: Profile, limit: float) -> float:
    """Return how long tasks may go on: as the profile says, within what the orderly end of the rest leaves."""
    sets = profile.engine_sets.values()
    rest = max(section.stop_timeout for section in sets) + AGENT_MARGIN + profile.controller.stop_timeout + MARGIN
    wanted = [limit if section.drain_timeout is None else section.drain_timeout for section in sets]
    return max(0.0, min(max(wanted), limit - rest))

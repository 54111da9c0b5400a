"""PLACES tasks on engines."""

from clusterd.core.scheduler import actions, events
from clusterd.core.scheduler.machine import Scheduler
from clusterd.core.scheduler.settings import Settings

__all__ = ["Scheduler", "Settings", "actions", "events"]

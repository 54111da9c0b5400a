"""The peers' end of the native wire: dials, proves itself, carries messages, and dials again.

Written once for client, engine, agent and daemon, which may not import each other. It performs what `core.wire` decides,
has no thread and never blocks unless asked (`wait`); it knows no message but the handshake.
"""

from clusterd.link.dealer import SOFTWARE, Link
from clusterd.link.events import Down, Event, Received, Refusal, Up
from clusterd.link.waiting import Waiter, poll_once

__all__ = ["SOFTWARE", "Down", "Event", "Link", "Received", "Refusal", "Up", "Waiter", "poll_once"]

"""The caller's half of the control API: small enough that a command which asks one question starts in a blink.

Standard library only, without asyncio, http.client or ssl. `http` speaks, `instances` finds out to whom, `spawn` starts a daemon
where there is none.
"""

from __future__ import annotations

from clusterd.control.client.http import ControlClient
from clusterd.control.client.instances import Instance, abandoned, running, socket_path

__all__ = ["ControlClient", "Instance", "abandoned", "running", "socket_path"]

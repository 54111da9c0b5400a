"""Whether this daemon is a service of systemd, and with whose rights it then starts others in units of their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from clusterd.launchers.transient import DirectStarter, TransientLauncher
from clusterd.system import systemd
from clusterd.system.service_manager import Manager

if TYPE_CHECKING:
    from clusterd.launchers.transient import Starter

__all__ = ["open_launcher"]


def open_launcher(cluster: str, run_as: str | None) -> TransientLauncher | None:
    """Return the launcher of units; None when the daemon is no service. To be called before root is given up.

    Args:
        cluster: whose units they are.
        run_as: the user of the profile.
    """
    service = systemd.service()
    if service is None:
        return None
    manager = Manager(service.scope)
    starter: Starter = DirectStarter(manager, service.unit)
    if service.scope == "system" and run_as is not None and os.geteuid() == 0:
        from clusterd.daemon.warden import Warden  # noqa: PLC0415 - for system services only

        starter = Warden.fork(cluster, run_as, service.unit)
    return TransientLauncher(manager, starter)

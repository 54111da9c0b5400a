"""From root to the service user of a profile (`run_as`), once and for good, before anything of the instance is made or read.

The directories are root's to make (/run/clusterd, /var/lib/clusterd), and the user's to own.
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from clusterd.errors import ProfileError

if TYPE_CHECKING:
    from pathlib import Path

    from clusterd.daemon.places import Places

__all__ = ["become"]

# Of the user who was left, or of root: they would point the daemon and its children to directories of somebody else.
_PERSONAL = (
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "IPYTHONDIR",
    "MAIL",
    "DBUS_SESSION_BUS_ADDRESS",
)


def become(user: str, places: Places, *, has_socket: bool = False) -> None:
    """Give the instance's directories to `user` and run as it from now on.

    Args:
        user: its name.
        places: of the instance.
        has_socket: systemd made the control socket, for root.

    Raises:
        ProfileError: there is no such user.
        OSError: root may not do that here (a container without the capabilities).
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise ProfileError(
            f"run_as: there is no user {user} on this host", hint=f"make it: useradd --system {user}"
        ) from None
    for directory in (places.runtime, places.state):
        _make(directory, entry.pw_uid, entry.pw_gid)
    if has_socket:
        os.chown(places.socket, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    for name in _PERSONAL:
        os.environ.pop(name, None)
    os.environ.update(HOME=entry.pw_dir, USER=user, LOGNAME=user, SHELL=entry.pw_shell or "/bin/sh")


def _make(directory: Path, uid: int, gid: int) -> None:
    # What is above stays root's and can be passed by all; the instance's own directory is the user's alone.
    directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != uid:
        os.chown(directory, uid, gid, follow_symlinks=False)

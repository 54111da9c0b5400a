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

__all__ = ["become", "user_to_become"]

ALLOW_ROOT = "CLUSTERD_ALLOW_ROOT"

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


def user_to_become(run_as: str | None, profile: Path) -> str | None:
    """Return whom a daemon that runs as root is to become before it starts anything; None: it was told to stay root.

    Args:
        run_as: what the profile says.
        profile: its file.

    Raises:
        ProfileError: it says nothing, and whoever computes there would be root.
    """
    if run_as == "root":
        return None
    if run_as is None and os.environ.get(ALLOW_ROOT) != "1":
        raise ProfileError(
            f"{profile}: run_as is missing, and engines do not run as root: whoever may compute there could do everything on this host",
            hint="have a profile with `run_as: USER` (clusterctl profile create NAME), or start it as a user; if root is meant,"
            f" `run_as: root` or, in a container, {ALLOW_ROOT}=1",
        )
    return run_as


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

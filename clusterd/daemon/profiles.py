"""The profile that the daemon goes by: read at the start, and again when asked; a wrong one is refused and the old one stays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from clusterd import profile as profiles
from clusterd.errors import ProfileError
from clusterd.system import clock

if TYPE_CHECKING:
    from pathlib import Path

    from clusterd.core.model.profile import Profile
    from clusterd.profile import Change

__all__ = ["EFFECTS", "ProfileSource"]

EFFECTS: dict[str, str] = {
    "live": "in effect now",
    "set": "takes effect with the next engines: clusterctl restart {engine_set}",
    "controller": "takes effect with the next controller: clusterctl restart controller",
    "daemon": "takes effect when the daemon is started again",
}
"""What a changed setting needs (`core.model.profile.Applies`), for people."""


class ProfileSource:
    """One profile by name.

    Attributes:
        name: what it is called.
        path: its file, as last found.
        profile: in effect.
        loaded_at: wall time at which it was read.
        problem: why the file is not what is in effect; empty when it is, as far as is known.

    Raises:
        ProfileError: there is none, or it cannot be used.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        # Asked once: a daemon that was started by root reads what root wrote, also after it became another user.
        self._is_privileged = os.geteuid() == 0
        self.path, self.profile = self._read()
        self.loaded_at = clock.wall()
        self.problem = ""

    def reload(self) -> list[Change]:
        """Read it again and return what changed.

        Raises:
            ProfileError: it cannot be used; the old one stays in effect.
        """
        try:
            path, new = self._read()
        except ProfileError as error:
            self.problem = f"the profile was changed but cannot be used: {error.message}"
            raise
        changes = profiles.diff(self.profile, new)
        self.path, self.profile = path, new
        self.loaded_at = clock.wall()
        self.problem = ""
        return changes

    def doubts(self) -> list[str]:
        """Return what is only doubtful on this host."""
        return list(profiles.doubts(self.profile, self.name))

    def _read(self) -> tuple[Path, Profile]:
        path = profiles.find(self.name, is_privileged=self._is_privileged)
        return path, profiles.read(path, is_privileged=self._is_privileged)

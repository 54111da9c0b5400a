"""Which daemon is meant: -p, else the only one that runs, else $CLUSTERD_PROFILE; never a guess between two."""

from __future__ import annotations

import os
from functools import cached_property

from clusterd.control.client import ControlClient, Instance, abandoned, running, socket_path
from clusterd.errors import ControlError, DaemonNotRunning

__all__ = ["DEFAULT_PROFILE", "Target"]

DEFAULT_PROFILE = "default"
VARIABLE = "CLUSTERD_PROFILE"


class Target:
    """The daemon that the command line means.

    Args:
        profile: what -p said, None without it.
    """

    def __init__(self, profile: str | None) -> None:
        self._given = profile

    @cached_property
    def name(self) -> str:
        """Name of the profile.

        Raises:
            ControlError: code `usage`: several daemons run.
            DaemonNotRunning: none runs, and nothing else says which is meant.
        """
        name = self.name_or_none
        if name is None:
            left = abandoned()
            if left:
                hint = f"one was killed; this adopts what it had started: clusterctl -p {left[0]} start"
                raise DaemonNotRunning(f"no daemon runs, but there is something left of: {', '.join(left)}", hint=hint)
            raise DaemonNotRunning("no daemon runs", hint="start one: clusterctl -p PROFILE start")
        return name

    @cached_property
    def name_or_none(self) -> str | None:
        """Name of the profile; None when none runs and nothing says which is meant."""
        if self._given is not None:
            return _checked(self._given)
        instances = running()
        if len(instances) == 1:
            return instances[0].name
        if named := os.environ.get(VARIABLE):
            return _checked(named)
        if instances:
            raise ControlError(
                f"several daemons run: {_listed(instances)}",
                code="usage",
                hint=f"say which: clusterctl -p {instances[0].name} ...   (or set {VARIABLE})",
            )
        return None

    @property
    def path(self) -> str:
        """Path of the cluster in the API."""
        return f"/v1/clusters/{self.name}"

    def client(self, *, timeout: float = 10.0) -> ControlClient:
        """Return a client for the daemon; it connects with its first request."""
        return ControlClient(socket_path(self.name), timeout=timeout)


def _checked(name: str) -> str:
    """Refuse what would lead out of the directories; `core.model.profile` has the rule, and costs 15 ms to import."""
    is_name = name[:1].isalnum() and name.isascii() and all(c.isalnum() or c in "._-" for c in name) and len(name) <= 64
    if not is_name:
        raise ControlError(
            f"{name!r} cannot be the name of a profile",
            code="usage",
            hint="a name is up to 64 letters, digits, '.', '_' or '-', and begins with a letter or digit",
        )
    return name


def _listed(instances: list[Instance]) -> str:
    return ", ".join(f"{instance.name} (process {instance.pid})" for instance in instances)

"""What is no mistake in a profile, but will not work on this host as it stands; for `profile check`.

Only looks. A file of another host, or one that a module system brings later, may be quite right: so these are
warnings.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from clusterd.core.model.profile import Profile

__all__ = ["doubts", "unknown_names"]

# sun_path has 108 bytes with its terminating zero (unix(7)).
_SOCKET_PATH_MAX = 107
# The longest name of a socket in the runtime directory; ARCHITECTURE.md, section 2.
_LONGEST_SOCKET = "engine-control"


def doubts(profile: Profile, name: str, *, environ: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield a sentence for each thing that looks wrong on this host.

    Args:
        profile: with its paths expanded.
        name: of the instance that would serve it.
        environ: instead of os.environ.
    """
    env = os.environ if environ is None else environ
    longest = _runtime_root(env) / name / _LONGEST_SOCKET
    excess = len(os.fsencode(longest)) - _SOCKET_PATH_MAX
    if excess > 0:
        yield (
            f"sockets such as {longest} are {excess} bytes too long: a directory /tmp/clusterd-{os.geteuid()}/HASH takes"
            " the place of theirs; a shorter name or CLUSTERD_RUNTIME_DIR avoids that"
        )
    yield from _user(profile.run_as)
    yield from _interpreter("controller.python", profile.controller.python)
    for set_name, engine_set in profile.engine_sets.items():
        path = f"engine_sets.{set_name}"
        if not engine_set.setup:  # a module or conda environment may bring it
            yield from _interpreter(f"{path}.python", engine_set.python)
        script = engine_set.startup.script
        if script is not None and not Path(script).is_file():
            yield f"{path}.startup.script: {script} is not a file on this host"
        if not Path(engine_set.work_dir).is_dir():
            yield f"{path}.work_dir: {engine_set.work_dir} is not a directory on this host"


def unknown_names(profile: Profile) -> Iterator[str]:
    """Yield a sentence for each name in `access` that this host does not know. Asks the user directory (NSS), which may take its time."""
    import grp  # noqa: PLC0415 - not on every platform that reads profiles
    import pwd  # noqa: PLC0415

    look_ups: tuple[tuple[str, set[str], Callable[[str], object]], ...] = (
        ("user", profile.access.users, pwd.getpwnam),
        ("group", profile.access.groups, grp.getgrnam),
    )
    for noun, names, look_up in look_ups:
        for name in sorted(names):
            try:
                look_up(name)
            except KeyError:
                yield f"access: there is no {noun} {name} on this host"


def _user(run_as: str | None) -> Iterator[str]:
    own = os.geteuid()
    # A daemon that has become that user says so in its environment; its event loop is not to wait for the user directory.
    if run_as is None or own == 0 or os.environ.get("LOGNAME") == run_as:
        return
    import pwd  # noqa: PLC0415 - not on every platform that reads profiles

    try:
        name = pwd.getpwuid(own).pw_name
    except KeyError:
        name = f"uid {own}"
    if name != run_as:
        yield f"run_as: only a daemon that root starts becomes {run_as}; yours runs engines as {name}"


def _interpreter(path: str, python: str | None) -> Iterator[str]:
    if python is not None and "/" in python and not os.access(python, os.X_OK):
        yield f"{path}: {python} is not a program on this host"


def _runtime_root(env: Mapping[str, str]) -> Path:
    if env.get("CLUSTERD_RUNTIME_DIR"):
        return Path(env["CLUSTERD_RUNTIME_DIR"])
    if os.geteuid() == 0:
        return Path("/run/clusterd")
    if env.get("XDG_RUNTIME_DIR"):
        return Path(env["XDG_RUNTIME_DIR"]) / "clusterd"
    return Path(f"/tmp/clusterd-{os.geteuid()}")  # noqa: S108 - looked at as a text, never opened

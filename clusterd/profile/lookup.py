"""Where profiles lie: `NAME.yaml` in the directories of the search path; the first one found is the one that counts."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clusterd.core.model.profile import PROFILE_NAME_PATTERN
from clusterd.errors import ProfileError
from clusterd.profile.mistakes import nearest, shown
from clusterd.profile.reading import home_directory, read
from clusterd.profile.trust import SHIPPED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterd.core.model.profile import Profile

__all__ = ["SYSTEM_DIRECTORY", "Listed", "check_name", "find", "listing", "names", "search_path", "writable_directory"]

SYSTEM_DIRECTORY = Path("/etc/clusterd/profiles")
_SUFFIX = ".yaml"


class Listed(NamedTuple):
    """A file on the search path: either its profile or its error is there."""

    name: str
    path: Path
    profile: Profile | None
    error: ProfileError | None


def search_path(*, is_privileged: bool = False, environ: Mapping[str, str] | None = None) -> list[Path]:
    """Return the directories that are searched, best first; whether they exist or not.

    A root daemon leaves out the home directory. It does take `CLUSTERD_CONFIG_DIR`, which only root could have set
    for it (sudo and systemd drop it): what lies there has to be root's alone, as in /etc, and is refused if not.
    """
    env = os.environ if environ is None else environ
    directories = []
    if env.get("CLUSTERD_CONFIG_DIR"):
        directories.append(Path(env["CLUSTERD_CONFIG_DIR"]).absolute() / "profiles")
    if not is_privileged:
        directories.append(_user_directory(env))
    return [*directories, SYSTEM_DIRECTORY, SHIPPED]


def writable_directory(*, is_privileged: bool = False, environ: Mapping[str, str] | None = None) -> Path:
    """Return where a new profile of the caller belongs: the first directory of the search path."""
    return search_path(is_privileged=is_privileged, environ=environ)[0]


def check_name(name: str) -> str:
    """Return `name` if it may be the name of a profile.

    Raises:
        ProfileError: it may not; among others, it could lead out of the directories.
    """
    if re.fullmatch(PROFILE_NAME_PATTERN, name):
        return name
    hint = "a name is up to 64 letters, digits, '.', '_' or '-', and begins with a letter or digit"
    if "/" in name or name.endswith(_SUFFIX):
        hint += "; it is looked up: no directory and no .yaml"
    raise ProfileError(f"{shown(name)} cannot be the name of a profile", hint=hint)


def find(name: str, *, is_privileged: bool = False, environ: Mapping[str, str] | None = None) -> Path:
    """Return the file of a profile.

    Raises:
        ProfileError: there is none; says where it was looked for, and the nearest name that there is.
    """
    check_name(name)
    directories = search_path(is_privileged=is_privileged, environ=environ)
    for directory in directories:
        path = directory / f"{name}{_SUFFIX}"
        # A file that is there but cannot be looked at is not skipped: another would silently take its place.
        if os.path.lexists(path):
            return path
    hint = f"looked in {', '.join(map(str, directories))}"
    existing = _files(directories)
    near = nearest(name, existing)
    wrong_suffix = next((path for d in directories if (path := d / f"{name}.yml").exists()), None)
    if wrong_suffix is not None:
        hint = f"rename {wrong_suffix} to {name}.yaml"
    elif near:
        hint = f"did you mean '{near}'? {hint}"
    elif existing:
        hint = f"there are: {', '.join(sorted(existing))}; {hint}"
    raise ProfileError(f"there is no profile {name}", hint=hint)


def names(
    *, is_privileged: bool = False, environ: Mapping[str, str] | None = None
) -> list[tuple[str, Path, ProfileError | None]]:
    """Return (name, file, why it cannot be used or None) of every profile that `find` finds, by name."""
    found = listing(is_privileged=is_privileged, environ=environ)
    return [(item.name, item.path, item.error) for item in found]


def listing(*, is_privileged: bool = False, environ: Mapping[str, str] | None = None) -> list[Listed]:
    """Return every profile that `find` finds, by name; those that cannot be used are among them."""
    listed = []
    for name, path in sorted(_files(search_path(is_privileged=is_privileged, environ=environ)).items()):
        try:
            listed.append(Listed(name, path, read(path, is_privileged=is_privileged), None))
        except ProfileError as error:
            listed.append(Listed(name, path, None, error))
    return listed


def _files(directories: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for directory in directories:
        try:
            paths = list(directory.iterdir())
        except OSError:
            continue  # absent, or not ours to read: `find` says the same
        for path in paths:
            if path.suffix == _SUFFIX and re.fullmatch(PROFILE_NAME_PATTERN, path.stem):
                found.setdefault(path.stem, path)
    return found


def _user_directory(env: Mapping[str, str]) -> Path:
    base = Path(env.get("XDG_CONFIG_HOME", ""))
    # The base directory specification: a relative path there is to be ignored.
    return (base if base.is_absolute() else home_directory() / ".config") / "clusterd" / "profiles"

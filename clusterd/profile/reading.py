"""Text -> Profile, or one error with all that is wrong; and a file -> Profile with its paths expanded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from clusterd.errors import ProfileError
from clusterd.profile.mistakes import InvalidProfile, Mistakes, TooManyMistakes, dotted
from clusterd.profile.rules import breaches
from clusterd.profile.text import MAX_BYTES, compose
from clusterd.profile.trust import open_trusted
from clusterd.profile.walk import Walk

if TYPE_CHECKING:
    from clusterd.core.model.profile import EngineSet, Profile

__all__ = ["expanded", "home_directory", "home_of", "parse", "read", "read_bytes", "with_absolute_scripts"]


def parse(text: bytes, source: str) -> Profile:
    """Return the profile that a text describes, its values as they are written.

    Args:
        text: the content of a file.
        source: name of the file, for messages.

    Raises:
        InvalidProfile: a ProfileError with every mistake.
    """
    mistakes = Mistakes()
    profile = None
    is_cut = False
    try:
        root = compose(text, mistakes)
        if root is not None:
            walk = Walk(mistakes)
            profile = walk.profile(root)
            _check_rules(profile, walk, mistakes)
    except TooManyMistakes:
        is_cut = True
    if profile is None or mistakes.found:
        raise InvalidProfile(source, mistakes.found, is_cut=is_cut)
    return profile


def read(path: Path, *, is_privileged: bool = False) -> Profile:
    """Return the profile in a file, with `~` and relative paths expanded.

    Args:
        path: the file.
        is_privileged: the caller is a daemon that runs as root; see `trust`.

    Raises:
        ProfileError: it cannot be read, must not be trusted, or (InvalidProfile) has mistakes.
    """
    profile = parse(read_bytes(path, is_privileged=is_privileged), str(path))
    return expanded(profile, directory=path.parent.absolute(), home=home_of(profile))


def read_bytes(path: Path, *, is_privileged: bool = False) -> bytes:
    """Return the content of a profile, of one that is too large just enough to tell.

    Raises:
        ProfileError: it cannot be read or must not be trusted.
    """
    with open_trusted(path, is_privileged=is_privileged) as file:
        return file.read(MAX_BYTES + 1)


def expanded(profile: Profile, *, directory: Path, home: Path) -> Profile:
    """Return a profile with absolute paths.

    Args:
        profile: as written.
        directory: where its file lies: relative script names begin there.
        home: what `~` is: the home directory of the user that the engines run as.

    Raises:
        ProfileError: `~name` with a name that is no user's.
    """

    def path(text: str, base: Path) -> str:
        if text == "~" or text.startswith("~/"):
            return str(home / text[2:])
        try:
            return str(base / Path(text).expanduser())
        except RuntimeError as error:
            user = text[1:].partition("/")[0]
            raise ProfileError(f"{text}: there is no user {user}", hint="write the whole path") from error

    def interpreter(text: str | None) -> str | None:
        # One without a slash is looked up in PATH, after the set's `setup` lines have changed it.
        return path(text, home) if text and "/" in text else text

    def engine_set(old: EngineSet) -> EngineSet:
        script = path(old.startup.script, home) if old.startup.script else None
        startup = replace(old.startup, script=script)
        return replace(old, startup=startup, python=interpreter(old.python), work_dir=path(old.work_dir, home))

    profile = with_absolute_scripts(profile, directory)
    controller = replace(profile.controller, python=interpreter(profile.controller.python))
    sets = {name: engine_set(old) for name, old in profile.engine_sets.items()}
    return replace(profile, controller=controller, engine_sets=sets)


def _check_rules(profile: Profile, walk: Walk, mistakes: Mistakes) -> None:
    for breach in breaches(profile):
        if mistakes.paths.isdisjoint((breach.path, *breach.others)):
            mistakes.add(
                walk.place(breach.path, *breach.others),
                breach.path,
                f"{dotted(breach.path)}: {breach.message}",
                breach.hint,
            )


def with_absolute_scripts(profile: Profile, directory: Path) -> Profile:
    """Return a profile whose start-up scripts are found from everywhere; they are written relative to its file."""

    def engine_set(old: EngineSet) -> EngineSet:
        script = old.startup.script
        if script is None or script.startswith("~"):
            return old
        return replace(old, startup=replace(old.startup, script=str(directory / script)))

    return replace(profile, engine_sets={name: engine_set(old) for name, old in profile.engine_sets.items()})


def home_directory() -> Path:
    """Return the caller's home directory; the root of the file system for a service user that has none."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def home_of(profile: Profile) -> Path:
    """Return the home directory of the user that the engines of a profile run as.

    Raises:
        ProfileError: there is no such user, and the caller is root, who would have to become that user.
    """
    if profile.run_as is None:
        return home_directory()
    import pwd  # noqa: PLC0415 - not on every platform that reads profiles

    try:
        return Path(pwd.getpwnam(profile.run_as).pw_dir)
    except KeyError:
        if os.geteuid() != 0:
            return home_directory()  # only root can become that user; another host may know it
        raise ProfileError(
            f"run_as: there is no user {profile.run_as} on this host",
            hint=f"make it: useradd --system {profile.run_as}",
        ) from None

"""PERFORMS the opening of a profile, after a look at who could have written it.

A profile names programs to run, so whoever writes it commands the daemon. A root daemon takes a file only if it and
every directory above it belong to root and nobody else may write them; a user refuses just what everybody may write.
Profiles that came with the program are trusted as much as the program. Looked at by descriptor: no race.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from clusterd.errors import ProfileError

__all__ = ["SHIPPED", "open_trusted"]


def _shipped(package: Path) -> Path:
    """Return where the profiles of the program lie: inside of an installed wheel, or beside it in a checkout."""
    installed = package / "shipped"
    return installed if installed.is_dir() else package.parent.parent / "etc" / "clusterd" / "profiles"


SHIPPED = _shipped(Path(__file__).resolve().parent)


def open_trusted(path: Path, *, is_privileged: bool) -> BinaryIO:
    """Open a profile for reading.

    Raises:
        ProfileError: it cannot be opened, is no file, or others may write it and the caller must not have that.
    """
    try:
        # Links are followed first: what is looked at must be what is opened. O_NONBLOCK: a FIFO would wait for ever.
        real = path.resolve(strict=True)
        descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        reason = getattr(error, "strerror", None) or str(error)
        raise ProfileError(f"{path}: cannot be read: {reason}") from error
    try:
        status = os.fstat(descriptor)
        _check(path, real, status, is_privileged=is_privileged)
        return os.fdopen(descriptor, "rb")
    except OSError as error:
        os.close(descriptor)
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error
    except BaseException:
        os.close(descriptor)
        raise


def _check(path: Path, real: Path, status: os.stat_result, *, is_privileged: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ProfileError(f"{path}: not a regular file", hint="a profile is a file NAME.yaml")
    if is_privileged and not real.is_relative_to(SHIPPED):
        _check_owned(real, status)
        # Whoever can replace a link, or a directory on the way to the file, chooses the file.
        for directory in dict.fromkeys([*real.parents, *path.absolute().parents]):
            _check_owned(directory, directory.stat())
    elif status.st_mode & stat.S_IWOTH:
        raise ProfileError(f"{path}: everybody may write this profile", hint=f"chmod o-w {real}")


def _check_owned(path: Path, status: os.stat_result) -> None:
    """Refuse what somebody other than root can change. A sticky directory (/tmp) protects what root has in it."""
    if status.st_uid != 0:
        message = f"{path} belongs to uid {status.st_uid}: a daemon that runs as root does not read profiles from there"
        raise ProfileError(message, hint=f"chown root {path}, or put the profile into /etc/clusterd/profiles")
    is_shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not is_shared:
        message = f"{path} may be written by others: a daemon that runs as root does not read profiles from there"
        raise ProfileError(message, hint=f"chmod go-w {path}")

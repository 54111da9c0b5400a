"""Asks the user directory (NSS: files, sssd, FreeIPA, winbind) who a uid is. Every call may block for as long as that likes.

For callers off an event loop. The groups are those that the directory names for the user now, not those of a process, which has
what was true when it began (and root's children whatever they want).
"""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = ["Person", "gid_of", "person", "uid_of"]


class Person(NamedTuple):
    """A user.

    Attributes:
        uid: who it is.
        name: the login name; empty when the directory knows none.
        gids: of all groups; empty likewise.
    """

    uid: int
    name: str = ""
    gids: frozenset[int] = frozenset()


def person(uid: int) -> Person:
    """Return who a uid is.

    Raises:
        OSError: the directory answered with an error.
    """
    import pwd  # noqa: PLC0415 - not on every platform that imports this package

    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Person(uid)
    return Person(uid, entry.pw_name, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))


def uid_of(name: str) -> int | None:
    """Return the uid of a user, None when the directory does not know the name."""
    import pwd  # noqa: PLC0415

    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def gid_of(name: str) -> int | None:
    """Return the gid of a group, None when the directory does not know the name."""
    import grp  # noqa: PLC0415

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None

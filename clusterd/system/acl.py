"""Gives a file, socket or directory of ours to named users and groups to use, and to nobody else: POSIX ACLs, without libacl.

An access ACL (acl(5)) is the extended attribute `system.posix_acl_access`: a version, then entries of tag, permissions and id, all
little-endian, sorted by tag and id; Linux has had this form since 2.5 (linux/posix_acl_xattr.h). It is written as one attribute, so
there is no moment at which half of it holds. In what `ls -l` shows the bits of the group are then the mask: all that any entry gives.

Where a file system has no ACLs (NFS, some FUSE) a single group can still be given the file; more cannot, and the caller is told.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["ATTRIBUTE", "ReachError", "copy", "encoded", "has_acl", "keep_private", "share"]

ATTRIBUTE: Final = "system.posix_acl_access"
_VERSION: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI")
_NO_ID: Final = 0xFFFFFFFF
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
# ENODATA: there is none; ENOTSUP: there can be none.
_NONE: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.ENOTSUP})


class ReachError(OSError):
    """This file system has no way to let exactly these in."""


def encoded(owner: int, given: int, uids: Iterable[int], gids: Iterable[int]) -> bytes:
    """Return an ACL as the kernel reads it.

    Args:
        owner: permission bits (rwx as 4, 2, 1) of the owner.
        given: those of each named user and group. The file's own group, and others, have none.
        uids: the named users.
        gids: the named groups.
    """
    entries = [(_USER_OBJ, owner, _NO_ID)]
    entries += [(_USER, given, uid) for uid in sorted(set(uids))]
    entries.append((_GROUP_OBJ, 0, _NO_ID))
    entries += [(_GROUP, given, gid) for gid in sorted(set(gids))]
    entries += [(_MASK, given, _NO_ID), (_OTHER, 0, _NO_ID)]
    return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in entries)


def share(path: Path, given: int, uids: frozenset[int], gids: frozenset[int]) -> None:
    """Let exactly these use a file of ours, beside its owner; nobody else.

    Args:
        path: file, socket or directory; a link is not followed.
        given: what they may: 4 read, 2 write (what connect(2) asks of a socket), 1 search (of a directory).
        uids: users.
        gids: groups; both empty: the owner's alone again.

    Raises:
        ReachError: the file system has no ACLs, and the group that would do cannot be given the file.
        OSError: it is not there, or not ours.
    """
    owner = stat.S_IMODE(path.lstat().st_mode) >> 6 & 7
    if not uids and not gids:
        keep_private(path)
        return
    try:
        os.setxattr(path, ATTRIBUTE, encoded(owner, given, uids, gids), follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NONE:
            raise
        _give_to_group(path, owner, given, uids, gids)


def keep_private(path: Path) -> None:
    """Take away what others were given.

    Raises:
        OSError: it is not there, or not ours.
    """
    # The mask first: with it every entry is without effect, whatever happens next.
    mode = stat.S_IMODE(path.lstat().st_mode)
    if mode & 0o077:
        path.chmod(mode & 0o700)
    if hasattr(os, "removexattr"):
        try:
            os.removexattr(path, ATTRIBUTE, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NONE:
                raise


def copy(path: Path, descriptor: int) -> None:
    """Give an open file of ours to whom the file at `path`, which it is going to replace, was given by ACL: all, or else nobody."""
    with contextlib.suppress(OSError, AttributeError):
        if path.lstat().st_uid == os.geteuid():
            os.setxattr(descriptor, ATTRIBUTE, os.getxattr(path, ATTRIBUTE, follow_symlinks=False))


def has_acl(file: int | Path) -> bool:
    """Say whether a file, open or by name, was given to somebody by an ACL: nobody does that by mistake."""
    with contextlib.suppress(OSError, AttributeError):
        return bool(os.getxattr(file, ATTRIBUTE))
    return False


def _give_to_group(path: Path, owner: int, given: int, uids: frozenset[int], gids: frozenset[int]) -> None:
    if uids or len(gids) != 1:
        raise ReachError(
            errno.EOPNOTSUPP, "its file system has no ACLs, and it is not one group alone that is named", str(path)
        )
    (gid,) = gids
    try:
        os.chown(path, -1, gid, follow_symlinks=False)
    except PermissionError:
        raise ReachError(
            errno.EOPNOTSUPP,
            f"its file system has no ACLs, and uid {os.geteuid()} is not in the group {gid} itself",
            str(path),
        ) from None
    path.chmod(owner << 6 | given << 3)

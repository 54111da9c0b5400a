"""Where things lie: runtime and state directories, the host's id, and what kind of file system a path is on.

Rules of ARCHITECTURE.md section 2. Computes paths and looks at the disk, but makes no directory: `files` does. Daemon,
command and client must come to the same answer from the same environment; `runtime_candidates` is for looking
where a daemon that was started in another environment (a login session, a batch job, systemd) may be.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import socket
from pathlib import Path

from clusterd.system.files import check_private_directory

__all__ = [
    "host_id",
    "is_network_file_system",
    "network_file_system",
    "runtime_candidates",
    "runtime_dir",
    "runtime_roots",
    "socket_path_excess",
    "state_dir",
]

SOCKET_PATH_MAX = 107  # sun_path has 108 bytes with its terminating zero (unix(7))
SOCKET_NAME_RESERVE = 24  # bytes kept for "/" and the longest name of a socket in the runtime directory

_MACHINE_ID_FILES = ("/etc/machine-id", "/var/lib/dbus/machine-id")


@functools.cache
def host_id() -> str:
    """Return `hostname-XXXXXXXX`: readable, and different for two hosts of one name that share a home directory.

    The machine id itself is confidential (machine-id(5)), so only a hash of it is shown. Without one (minimal
    containers) the hash is of the host name: stable, and no worse than the name alone.
    """
    name = socket.gethostname()
    secret = name
    for file in _MACHINE_ID_FILES:
        try:
            text = Path(file).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text:
            secret = text
            break
    # The name becomes part of paths: whatever is not a letter of host names is replaced.
    readable = re.sub(r"[^A-Za-z0-9.-]", "-", name) or "host"
    return f"{readable}-{hashlib.sha256(secret.encode()).hexdigest()[:8]}"


def runtime_dir(name: str) -> Path:
    """Return the directory for sockets and identity files of instance `name`; the part before NAME is as in the table.

    A path too long for Unix sockets is replaced by a short one that is a function of the long one.

    Raises:
        NotPrivate: the fallback in /tmp exists and is not ours.
    """
    return _short_enough(_runtime_root() / name)


def runtime_roots() -> list[Path]:
    """Return the directories whose children are instances, best first, for listing what runs; without duplicates.

    Directories of others are left out: somebody who owns a socket there could pose as our daemon.
    """
    roots = [_runtime_root_unchecked()]
    if "CLUSTERD_RUNTIME_DIR" not in os.environ and hasattr(os, "geteuid"):
        # A daemon of the login session is wanted from a batch job, too, where XDG_RUNTIME_DIR is missing.
        roots += [Path(f"/run/user/{os.geteuid()}/clusterd"), _temporary_root(), Path("/run/clusterd")]
    return [root for root in dict.fromkeys(roots) if _is_trusted(root)]


def runtime_candidates(name: str) -> list[Path]:
    """Return the existing runtime directories that instance `name` may have, best first."""
    candidates = [_short_enough(root / name) for root in runtime_roots()]
    return [path for path in dict.fromkeys(candidates) if path.is_dir()]


def state_dir(name: str) -> Path:
    """Return the directory that outlives a reboot: journal, connection files, logs; ipyparallel: profile directory."""
    return _state_root() / name / host_id()


def socket_path_excess(path: Path) -> int:
    """Return by how many bytes a path is too long for a Unix socket; 0 when it fits."""
    return max(0, len(os.fsencode(path)) - SOCKET_PATH_MAX)


def network_file_system(path: Path) -> str | None:
    """Return the name of the network file system that holds `path` (or would hold it), None for a local one.

    Asks statfs(2). FUSE counts as a network: on the machines meant here it is sshfs or a parallel file system,
    and the careful locking that follows costs little where it is not.

    Raises:
        OSError: the path cannot be looked at.
    """
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    return _NETWORK_MAGIC.get(_statfs_type(existing))


def is_network_file_system(path: Path) -> bool:
    """Say whether `path` is on a network file system."""
    return network_file_system(path) is not None


# From linux/magic.h and, for those outside of the kernel's tree, from their own sources.
_NETWORK_MAGIC = {
    0x6969: "nfs",
    0x517B: "smb",
    0xFE534D42: "smb2",
    0xFF534D42: "cifs",
    0x0BD00BD0: "lustre",
    0x47504653: "gpfs",
    0x19830326: "beegfs",
    0xAAD7AAEA: "panfs",
    0x00C36400: "ceph",
    0x5346414F: "afs",
    0x6B414653: "kafs",
    0x73757245: "coda",
    0x20030528: "orangefs",
    0x7461636F: "ocfs2",
    0x01161970: "gfs2",
    0x01021997: "9p",
    0x65735546: "fuse",
}


def _statfs_type(path: Path) -> int:
    """Return f_type. os.statvfs leaves it out; /proc/self/mountinfo needs the mount point guessed."""
    try:
        statfs = ctypes.CDLL(None, use_errno=True).statfs
    except (AttributeError, TypeError):  # Windows
        return 0
    if os.uname().sysname != "Linux":  # another layout of the struct
        return 0
    # f_type is the first field, a long, except on s390x (unsigned int); the struct has at most 120 bytes.
    buffer = ctypes.create_string_buffer(512)
    if statfs(os.fsencode(path), buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    field = ctypes.c_uint32 if os.uname().machine == "s390x" else ctypes.c_long
    return int(field.from_buffer(buffer).value) & 0xFFFFFFFF


def _runtime_root() -> Path:
    root = _runtime_root_unchecked()
    if root == _temporary_root() and os.path.lexists(root):
        check_private_directory(root)
    return root


def _runtime_root_unchecked() -> Path:
    if override := os.environ.get("CLUSTERD_RUNTIME_DIR"):
        return Path(override).expanduser().absolute()
    if _is_root():
        return Path("/run/clusterd")
    xdg = os.environ.get("XDG_RUNTIME_DIR")
    # `su` and `sudo -E` keep the variable of the other user; after logout the directory is gone.
    if xdg and _is_own_directory(Path(xdg)):
        return Path(xdg) / "clusterd"
    return _temporary_root()


def _temporary_root() -> Path:
    # Not tempfile.gettempdir(): TMPDIR differs between a login and a batch job, and both must find one daemon.
    return Path(f"/tmp/clusterd-{os.geteuid() if hasattr(os, 'geteuid') else 'user'}")  # noqa: S108 - owner is checked


def _state_root() -> Path:
    if override := os.environ.get("CLUSTERD_STATE_DIR"):
        return Path(override).expanduser().absolute()
    if _is_root():
        return Path("/var/lib/clusterd")
    xdg = os.environ.get("XDG_STATE_HOME")
    # The XDG base directory specification: a relative path is invalid and ignored.
    base = Path(xdg) if xdg and Path(xdg).is_absolute() else Path.home() / ".local" / "state"
    return base / "clusterd"


def _short_enough(path: Path) -> Path:
    if len(os.fsencode(path)) + SOCKET_NAME_RESERVE <= SOCKET_PATH_MAX:
        return path
    return _temporary_root() / hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _is_own_directory(path: Path) -> bool:
    try:
        return path.is_absolute() and path.is_dir() and path.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _is_trusted(root: Path) -> bool:
    try:
        return root.is_dir() and root.stat().st_uid in (os.geteuid(), 0)
    except OSError:
        return False

"""The client file in the IPython directory, for `ipyparallel.Client(profile=NAME)`: published, owned, withdrawn.

Used by the daemon (`publish: ipython`) and by `clusterctl connect --ipython`; what is put there is the whole client file, ours and
ipyparallel's fields. Invariants: the file and the directories made for it are the user's alone (0600, 0700); a reader sees the old
content or the new; the file of another controller is neither replaced nor removed while that one lives, or may live.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from clusterd.core.model.connection import CLIENT_FILE
from clusterd.errors import ConnectionFileError
from clusterd.system import files
from clusterd.system.paths import host_id

__all__ = ["Owner", "owner_of", "place", "publish", "publish_file", "withdraw"]

_PATIENCE = 0.5
"""Seconds that a connection to a port may take: the question is whether anybody listens, on a host that is near."""

_NOBODY = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR})


class Owner(NamedTuple):
    """Whose controller wrote a client file.

    Attributes:
        cluster: its name; empty for a controller that is not ours.
        host: id of its host (ours), or the location it gives (others).
        pid: of the controller, 0 where the file does not say.
        address: where it listens: `unix:///...` or `tcp://host:port`; empty when the file does not say.
    """

    cluster: str
    host: str
    pid: int
    address: str

    def __str__(self) -> str:
        who = f"the controller of {self.cluster}" if self.cluster else "a controller that is not clusterd's"
        process = f", process {self.pid}" if self.pid else ""
        return f"{who}{process} on {self.host or 'an unknown host'} ({self.address or 'no address'})"


def place(profile_name: str) -> Path:
    """Return where ipyparallel looks for the client file of an IPython profile.

    Raises:
        ConnectionFileError: no profile can have that name.
    """
    if not profile_name or os.sep in profile_name or "\0" in profile_name:
        raise ConnectionFileError(f"{profile_name!r} cannot be the name of an IPython profile")
    # As IPython finds it: the variable, else the home directory.
    directory = Path(os.environ.get("IPYTHONDIR") or "~/.ipython").expanduser().absolute()
    return directory / f"profile_{profile_name}" / "security" / CLIENT_FILE


def owner_of(content: bytes) -> Owner | None:
    """Return who wrote a client file; None when it is no such file, and so nobody's."""
    try:
        fields = json.loads(content)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    ours = fields.get("clusterd")
    if isinstance(ours, dict):
        pid = ours.get("pid")
        return Owner(
            str(ours.get("cluster", "")),
            str(ours.get("host", "")),
            pid if isinstance(pid, int) else 0,
            str(ours.get("data", "")),
        )
    if isinstance(fields.get("registration"), int):
        return Owner("", str(fields.get("location", "")), 0, _stock_address(fields))
    return None


def publish(content: bytes, source: str, target: Path, *, is_forced: bool = False) -> bool:
    """Put a client file where IPython looks for it; say whether anything changed.

    Args:
        content: the client file's.
        source: its name, for messages.
        target: what `place` said.
        is_forced: replace the file of whatever controller.

    Raises:
        ConnectionFileError: it has nothing for ipyparallel, or the place is another living controller's.
        NotPrivate: the directory belongs to somebody else.
        OSError: it cannot be written.
    """
    owner = owner_of(content)
    if owner is None or not isinstance(json.loads(content).get("registration"), int):
        raise ConnectionFileError(
            f"{source} has nothing for ipyparallel: its controller serves no stock clients",
            hint="`stock: on` (or curve) in the controller section of the profile, then: clusterctl restart controller",
        )
    there = _read(target)
    if there == content and target.stat().st_mode & 0o077 == 0:
        return False
    if there is not None and not is_forced:
        _refuse_another(target, there, owner)
    # The profile's directories are the user's own, and may be there with any mode; the one with the key is private.
    for directory in (target.parents[2], target.parents[1]):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.private_directory(target.parent)
    files.atomic_write(target, content, durable=False)
    return True


def publish_file(source: Path, target: Path, *, is_forced: bool = False, owner: int | None = None) -> bool:
    """Do the same with the client file at `source`, which only those may be able to read to whom its owner gave it.

    Args:
        source: the file.
        target: as above.
        is_forced: as above.
        owner: whose it may be, beside ours and root's: the user of a daemon that is trusted.

    Raises:
        ConnectionFileError: as above.
        NotPrivate: as above, or everybody can read the file.
        OSError: it cannot be read, or not be written.
    """
    content = files.read_private(source, is_shared=True, owner=owner)
    return publish(content, str(source), target, is_forced=is_forced)


def withdraw(target: Path, cluster: str, *, is_forced: bool = False) -> bool:
    """Remove what was published for a cluster of this host; say whether anything was there.

    Args:
        target: what `place` said.
        cluster: the name of the cluster.
        is_forced: remove the file of whatever controller.

    Raises:
        ConnectionFileError: it is another living controller's.
        OSError: it cannot be removed.
    """
    there = _read(target)
    if there is None:
        return False
    if not is_forced:
        _refuse_another(target, there, Owner(cluster, host_id(), 0, ""))
    target.unlink(missing_ok=True)
    # What was made for it and holds nothing else goes with it; rmdir(2) refuses the rest.
    with suppress(OSError):
        target.parent.rmdir()
        target.parents[1].rmdir()
    return True


def _refuse_another(target: Path, there: bytes, mine: Owner) -> None:
    other = owner_of(there)
    if other is None:
        return
    is_of_mine = (other.cluster, other.host) == (mine.cluster, mine.host)
    if is_of_mine and mine.address in {"", other.address}:
        return
    life = _life_of(other)
    if life != "gone":
        state = "is alive" if life == "alive" else "cannot be seen from here"
        raise ConnectionFileError(
            f"{target} is the file of {other}, which {state}",
            hint="choose another name with --profile-name, or replace it with --force",
        )


def _life_of(owner: Owner) -> Literal["alive", "gone", "unknown"]:
    """Ask whether anybody listens where the file says: a process id alone may be another's by now."""
    kind, _, rest = owner.address.partition("://")
    host, _, port = rest.rpartition(":")
    is_local = kind == "unix" or host == "localhost" or host.startswith("127.")
    if is_local and owner.host not in {host_id(), socket.gethostname(), socket.getfqdn()}:
        # Home directories are shared: our loopback says nothing about theirs.
        return "unknown"
    try:
        if kind == "unix":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
                knock.settimeout(_PATIENCE)
                knock.connect(rest)
        elif kind == "tcp" and host and port.isdigit():
            socket.create_connection((host, int(port)), _PATIENCE).close()
        else:
            return "unknown"
    except OSError as error:
        return "gone" if error.errno in _NOBODY else "unknown"
    return "alive"


def _stock_address(fields: dict[str, Any]) -> str:
    interface = str(fields.get("interface", ""))
    host = interface.removeprefix("tcp://")
    if host in {"*", "0.0.0.0", ""}:  # noqa: S104 - as written by a controller that listens everywhere
        host = str(fields.get("location", ""))
    return f"tcp://{host}:{fields['registration']}"


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None

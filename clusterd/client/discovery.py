"""Finds the connection file of a cluster, and refuses one that others could have written or read.

By the daemon's word where one runs, else by the paths of ARCHITECTURE.md section 2. Nothing here speaks with a controller, except
for the question whether anybody listens at its address: the answer at once is worth more than a time-out.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from clusterd.core.model.connection import CLIENT_FILE, decode
from clusterd.errors import ConnectionFileError, ControlError, PermissionDenied

if TYPE_CHECKING:
    from clusterd.core.model.connection import NativeEndpoints

_NOBODY = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR})


class Whereabouts:
    """Where one cluster's client connection file is; `read` it anew at each dial, a restarted controller may have written another.

    Args:
        name: as it was asked for.
        candidates: where the file may be, best first.
        owner: uid of a daemon that is trusted, and named the first of them; beside our own the only one whose file is read.
        is_shared: the daemon gives the file to others, too (`access` of its profile).
        refusal: why that daemon did not tell where it is, if so.
    """

    def __init__(
        self,
        name: str,
        candidates: list[Path],
        *,
        owner: int | None = None,
        is_shared: bool = False,
        refusal: PermissionDenied | None = None,
    ) -> None:
        self.name = name
        self.candidates = candidates
        self._owner = owner
        self._is_shared = is_shared
        self._refusal = refusal

    def read(self) -> NativeEndpoints:
        """The endpoints, from the first file that exists.

        Raises:
            ConnectionFileError: there is none, or it is not to be trusted.
        """
        for path in self.candidates:
            try:
                return read_file(path, owner=self._owner, is_shared=self._is_shared)
            except FileNotFoundError:
                continue
        if self._refusal is not None:
            raise ConnectionFileError(self._refusal.message, hint=self._refusal.hint) from self._refusal
        tried = ", ".join(map(str, self.candidates))
        raise ConnectionFileError(
            f"no connection file of {self.name}: looked at {tried}",
            hint=f"Is its controller running? `clusterctl -p {self.name} status` says; `clusterctl -p {self.name} start` "
            "starts it."
            if os.sep not in self.name
            else "A controller writes it when it starts.",
        )


def find(where: str | os.PathLike[str] | None) -> Whereabouts:
    """Find a cluster by the name of its profile, a connection file, a profile directory, or (None) as clusterctl does.

    Raises:
        ConnectionFileError: None was given, and there is not exactly one instance to mean.
    """
    if where is None:
        return _by_name(_default_name())
    text = os.fspath(where)
    path = Path(text).expanduser()
    if not isinstance(where, str) or os.sep in text or path.suffix == ".json":
        if path.is_dir():
            return Whereabouts(text, [path / "security" / CLIENT_FILE, path / CLIENT_FILE])
        return Whereabouts(text, [path])
    if not text:
        raise ConnectionFileError("the name of a profile is empty")
    return _by_name(text)


def _by_name(name: str) -> Whereabouts:
    # Imported late: with a file at hand neither is needed, and on Windows there is no daemon.
    from clusterd.control.client import ControlClient, socket_path  # noqa: PLC0415
    from clusterd.system.paths import state_dir  # noqa: PLC0415

    candidates = [state_dir(name) / "security" / CLIENT_FILE]
    # Speaks with no daemon but ours, root's, and one for which root has made that place; so whose files it names is believed.
    answer: dict[str, object] = {}
    refusal = None
    try:
        answer = ControlClient(socket_path(name), timeout=2.0).get(f"/v1/clusters/{name}/connection")
        told = answer.get("client_file")
        if isinstance(told, str):
            candidates.insert(0, Path(told))
    except PermissionDenied as error:
        refusal = error
    except ControlError:
        # No daemon, or one that cannot answer: the controller does not need it, nor do we.
        pass
    is_shared = answer.get("is_shared") is True
    uid = answer.get("uid")
    owner = uid if isinstance(uid, int) else None
    return Whereabouts(name, list(dict.fromkeys(candidates)), owner=owner, is_shared=is_shared, refusal=refusal)


def _default_name() -> str:
    from clusterd.control.client import running  # noqa: PLC0415

    names = [instance.name for instance in running()]
    if len(names) == 1:
        return names[0]
    chosen = os.environ.get("CLUSTERD_PROFILE")
    if chosen:
        return chosen
    if names:
        raise ConnectionFileError(
            f"several instances run: {', '.join(names)}",
            hint=f'Say which: clusterd.Client("{names[0]}"), or set CLUSTERD_PROFILE.',
        )
    raise ConnectionFileError(
        "no clusterd runs here that you can see",
        hint="Start one with `clusterctl start`, or name a profile or a connection file.",
    )


def read_file(path: Path, *, owner: int | None = None, is_shared: bool = False) -> NativeEndpoints:
    """The endpoints in a connection file.

    Args:
        path: the file.
        owner: whose it may be, beside ours.
        is_shared: a group may be able to read it, too.

    Raises:
        FileNotFoundError: it is not there.
        ConnectionFileError: it is unreadable, open to others, somebody else's, or not a connection file.
    """
    try:
        with path.open("rb") as file:
            if hasattr(os, "geteuid"):
                is_shared = is_shared or _has_acl(file.fileno())
                _check_private(path, os.fstat(file.fileno()), owner, is_shared=is_shared)
            data = file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConnectionFileError(f"{path} cannot be read: {error.strerror}") from error
    return decode(data, str(path)).clusterd


def _has_acl(descriptor: int) -> bool:
    """Say whether its owner has given the file to others by ACL, as daemons do: nobody does that by mistake."""
    try:
        return bool(os.getxattr(descriptor, "system.posix_acl_access"))
    except (OSError, AttributeError):
        return False


def _check_private(path: Path, status: os.stat_result, owner: int | None, *, is_shared: bool) -> None:
    if status.st_uid not in (os.geteuid(), owner):
        raise ConnectionFileError(
            f"{path} belongs to uid {status.st_uid}, you are uid {os.geteuid()}",
            hint="Whoever owns a cluster can run code in its clients. Use a cluster of your own, or name one that root has set up"
            ' for you, by its profile: clusterd.Client("NAME").',
        )
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~(stat.S_IRGRP if is_shared else 0):
        raise ConnectionFileError(
            f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"The key in it may be known: `chmod 600 {path}`, then restart the controller so that it makes a new one.",
        )


def nobody_listens(endpoints: NativeEndpoints) -> str | None:
    """Why a connection to the controller cannot succeed now, or None when somebody accepts (or it cannot be said)."""
    scheme, _, address = endpoints.data.partition("://")
    try:
        if scheme == "unix" and hasattr(socket, "AF_UNIX"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1.0)
                probe.connect(address)
        elif scheme == "tcp":
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), 1.0).close()
    except OSError as error:
        if error.errno in _NOBODY:
            return f"nobody listens at {endpoints.data}"
    return None

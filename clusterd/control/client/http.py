"""HTTP/1.1 over the control socket: one connection for each request, one deadline for all of it.

http.client would cost 25 ms of imports (email's parser, ssl) for what is a few lines of text here. Of HTTP it knows what
the daemon's server sends: a status line, headers, and a body by Content-Length, in chunks, or up to the end.
Invariants: no call blocks beyond its deadline, also when the daemon is frozen; an answer that was cut short is an
error, never a shorter answer; nothing is said to a process of another user.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterd import errors
from clusterd.errors import ClusterdError, ControlError, DaemonNotRunning, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["API_VERSION", "ControlClient"]

API_VERSION = 1
TIMEOUT = 10.0
# A daemon on a swapping machine needs seconds; one that needs longer than this is not going to answer at all.
CONNECT_TIMEOUT = 5.0
LINE_MAX = 64 * 1024
# A status of 65,536 engines has about 20 MB.
BODY_MAX = 256 * 1024**2

_PEER = struct.Struct("3i")
# Unreserved, and what gives a target its structure (RFC 3986); what is encoded already stays so.
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/?&=%+,:")
_CLASSES: dict[str, type[ClusterdError]] = {
    cls.code: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, ClusterdError)
}


class ControlClient:
    """Speaks with one daemon.

    Args:
        path: its control socket.
        timeout: seconds that a request may take in all, unless the call says otherwise.
    """

    def __init__(self, path: Path | str, *, timeout: float = TIMEOUT) -> None:
        self.path = Path(path)
        self.timeout = timeout
        # Process id of the daemon, known once a connection was made.
        self.pid: int | None = None

    def get(self, target: str, *, timeout: float | None = None, **query: object) -> dict[str, Any]:
        """Ask for `target` (`/v1/...`).

        Args:
            target: path of the resource.
            timeout: seconds for the whole exchange.
            query: parameters; those that are None are left out.

        Raises:
            DaemonNotRunning: nobody listens.
            PermissionDenied: the socket, or the daemon, refuses us.
            ControlError: the daemon said no, or did not answer in time (code `no_answer`).
        """
        return self._exchange("GET", target + _query(query), None, timeout)

    def post(self, target: str, body: dict[str, Any] | None = None, *, timeout: float | None = None) -> dict[str, Any]:
        """Command; raises as `get` does."""
        return self._exchange("POST", target, body or {}, timeout)

    def put(self, target: str, body: dict[str, Any], *, timeout: float | None = None) -> dict[str, Any]:
        """Set; raises as `get` does."""
        return self._exchange("PUT", target, body, timeout)

    def stream(self, target: str, **query: object) -> Iterator[dict[str, Any]]:
        """Yield the objects of a stream (one JSON object a line) as they come; waits for each without limit.

        Raises:
            ControlError: as `get`; with code `cut_short` when the daemon ended before the stream did.
        """
        with self._request("GET", target + _query(query), None, self.timeout) as answer:
            # What was asked for has begun; how long until the next line is the business of the cluster.
            answer.deadline = None
            rest = b""
            for piece in answer.body():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield json.loads(line)

    def is_listening(self) -> bool:
        """Say whether somebody accepts connections; without any wait for an answer."""
        try:
            self._connect(CONNECT_TIMEOUT).close()
        except ControlError:
            return False
        return True

    def _exchange(self, method: str, target: str, body: object, timeout: float | None) -> dict[str, Any]:
        with self._request(method, target, body, self.timeout if timeout is None else timeout) as answer:
            content = _parse(b"".join(answer.body()))
        if content is None:
            raise ControlError(f"{self.path}: the answer is no JSON object; is it clusterd that listens there?")
        return content

    @contextmanager
    def _request(self, method: str, target: str, body: object, timeout: float) -> Iterator[_Answer]:
        deadline = time.monotonic() + timeout
        connection = self._connect(min(timeout, CONNECT_TIMEOUT))
        try:
            with connection:
                connection.settimeout(timeout)
                connection.sendall(_head(method, target, body))
                answer = _Answer(connection, deadline)
                answer.read_head()
                if answer.status >= 400:
                    raise _error(answer.status, b"".join(answer.body()))
                yield answer
        except TimeoutError:
            raise ControlError(
                f"the daemon (process {self.pid}) did not answer within {timeout:g} s{_condition(self.pid)}",
                code="no_answer",
                hint=f"see what it does: cat /proc/{self.pid}/wchan /proc/{self.pid}/status; ask for more time: --timeout",
            ) from None
        except (ConnectionError, EOFError):
            raise ControlError(
                f"the daemon (process {self.pid}) ended before its answer did",
                code="cut_short",
                hint="ask for the status to see what was done: what it had acknowledged is kept",
            ) from None

    def _connect(self, timeout: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(os.fspath(self.path))
            self.pid, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            _check_peer(self.path, uid)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            connection.close()
            raise DaemonNotRunning(f"no daemon listens on {self.path}", hint=_left_behind(self.path)) from None
        except PermissionError:
            connection.close()
            raise _not_ours(self.path) from None
        except (TimeoutError, BlockingIOError):
            connection.close()
            # The queue of a Unix socket's listener is full: nobody has accepted for long.
            raise ControlError(f"{self.path}: the daemon accepts no connection", code="no_answer") from None
        except BaseException:
            connection.close()
            raise
        return connection


class _Answer:
    """The answer to one request, read with a deadline (None: wait for ever)."""

    def __init__(self, connection: socket.socket, deadline: float | None) -> None:
        self.deadline = deadline
        self.status = 0
        self._connection = connection
        # Bytes received and not yet used.
        self._buffer = b""
        # Length of the body: None where it has none of its own.
        self._length: int | None = None
        self._is_chunked = False

    def read_head(self) -> None:
        """Read status line and headers."""
        version, _, rest = self._line().partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise ControlError("what listens there does not speak HTTP", code="bad_answer")
        self.status = int(rest[:3])
        while line := self._line():
            name, _, value = line.partition(b":")
            match name.strip().lower():
                case b"content-length":
                    self._length = int(value)
                case b"transfer-encoding":
                    self._is_chunked = value.strip().lower() == b"chunked"

    def body(self) -> Iterator[bytes]:
        """Yield the body as it comes."""
        if self._is_chunked:
            while size := int(self._line().partition(b";")[0], 16):
                yield self._exactly(size)
                self._line()
            self._line()
        elif self._length is not None:
            yield self._exactly(self._length)
        else:
            while piece := self._receive():
                yield piece

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > LINE_MAX:
                raise ControlError("a header line of the answer is too long", code="bad_answer")
            self._buffer += self._receive(is_needed=True)
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _exactly(self, size: int) -> bytes:
        if size > BODY_MAX:
            raise ControlError(f"an answer of {size} bytes is refused", code="bad_answer")
        pieces = [self._buffer]
        have = len(self._buffer)
        while have < size:
            pieces.append(self._receive(is_needed=True))
            have += len(pieces[-1])
        data = b"".join(pieces)
        self._buffer = data[size:]
        return data[:size]

    def _receive(self, *, is_needed: bool = False) -> bytes:
        if self.deadline is None:
            self._connection.settimeout(None)
        else:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
        data = self._connection.recv(64 * 1024)
        if not data and is_needed:
            raise EOFError
        return data


def _head(method: str, target: str, body: object) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {_encoded(target)} HTTP/1.1", "Host: clusterd", "Connection: close", "Accept: application/json"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode() + data


def _encoded(target: str) -> str:
    """Return a target without blanks, line ends or anything else that a word from the command line may hold."""
    return "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in os.fsencode(target))


def _query(parameters: dict[str, object]) -> str:
    from urllib.parse import urlencode  # noqa: PLC0415 - 5 ms, for the few requests that have parameters

    given = {name: str(value).lower() if isinstance(value, bool) else value for name, value in parameters.items()}
    text = urlencode({name: value for name, value in given.items() if value is not None}, doseq=True)
    return f"?{text}" if text else ""


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(data)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _error(status: int, data: bytes) -> ClusterdError:
    content = (_parse(data) or {}).get("error")
    if not isinstance(content, dict):
        return ControlError(f"the daemon answered with HTTP status {status}", code="bad_answer")
    code, message, hint = (str(content.get(key, "")) for key in ("code", "message", "hint"))
    cls = _CLASSES.get(code, ControlError)
    if cls in (errors.CompositeError, errors.UnknownTask):  # have fields of their own
        cls = ControlError
    return ControlError(message, code=code, hint=hint) if cls is ControlError else cls(message, hint=hint)


def _check_peer(path: Path, uid: int) -> None:
    # In a directory that others may write, somebody could listen in the daemon's place and collect commands.
    if os.geteuid() not in (0, uid) and uid != 0 and not _is_vouched_for(path.parent, uid):
        raise PermissionDenied(
            f"{path} is served by a process of {_user(uid)}, neither ours ({_user(os.geteuid())}) nor root's,"
            " nor of somebody for whom root has made that place",
            hint="nothing was sent to it; ask your administrator who that is",
        )


def _is_vouched_for(directory: Path, uid: int) -> bool:
    """Say whether root made this runtime directory for a user: a service (`run_as`), which others may use (`access`)."""
    try:
        own, above = directory.lstat(), directory.parent.stat()
    except OSError:
        return False
    is_roots = above.st_uid == 0 and not above.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return is_roots and stat.S_ISDIR(own.st_mode) and own.st_uid == uid


def _left_behind(path: Path) -> str:
    """Say what a daemon that was killed may have left running."""
    try:
        is_left = any((path.parent / "units").glob("*-*.json"))
    except OSError:
        return ""
    name = path.parent.name
    return f"a daemon was killed here; `clusterctl -p {name} start` adopts what it had started" if is_left else ""


def _not_ours(path: Path) -> PermissionDenied:
    owner = ""
    for place in (path, *path.parents):
        try:
            owner = f": it belongs to {_user(place.stat().st_uid)}"
        except PermissionError:
            continue
        except OSError:
            break
        break
    return PermissionDenied(
        f"{_user(os.geteuid())} may not use {path}{owner}",
        hint="a daemon takes commands from its own user, from root, and from those whom `access:` of its profile names: ask one of"
        " them, or use `sudo -u USER`",
    )


def _user(uid: int) -> str:
    import pwd  # noqa: PLC0415 - only in messages; asks LDAP on some machines

    try:
        return f"uid {uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"uid {uid}"


def _condition(pid: int | None) -> str:
    """Say why a process may be silent, from its state in /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    match text[text.rindex(b")") + 2 :][:1]:
        case b"T" | b"t":
            return f": it is stopped; `kill -CONT {pid}` lets it go on"
        case b"D":
            return ": it waits for a disk or a network file system"
        case b"Z":
            return ": it has ended, but its parent has not noticed"
        case _:
            return ""

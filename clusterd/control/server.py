"""Serves the control socket: takes the path over, lets in who may, answers every request in one shape.

Invariants: the socket is 0600 in a directory of 0700; its path appears only once somebody listens behind it, and an old one
gives way only after proof that nobody does; every error leaves as {"error": {code, message, hint}}, none as a traceback.
Must be started by the holder of daemon.lock only: the lock is what makes `remove, then bind` free of races.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from aiohttp import web

from clusterd.control.authorize import authorize
from clusterd.control.requests import BODY_MAX, answer
from clusterd.control.routes import Routes, caller, nearest_path
from clusterd.errors import ClusterdError, ControlError, LockHeld
from clusterd.system.files import private_directory
from clusterd.system.paths import socket_path_excess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from clusterd.control.service import Service

__all__ = ["ControlServer", "listen"]

_log = logging.getLogger("clusterd.control")

_STATUS = {
    "bad_request": 400,
    "denied": 403,
    "not_found": 404,
    "wrong_method": 405,
    "refused": 409,
    "too_large": 413,
    "profile": 422,
    "storage": 500,
    "internal": 500,
    "controller_lost": 503,
}
"""Error code -> HTTP status; 409 for the rest: the request was understood, and this daemon says no."""

_GRACE = 1.0
"""Seconds that requests under way have at the end; followers of logs never end by themselves."""


class ControlServer:
    """Serves `service` on a listening socket until `close`."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        self._service = service
        self._listener = listener
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Begin to answer."""
        application = web.Application(middlewares=[self._guard], client_max_size=BODY_MAX)
        application.add_routes(Routes(self._service).table())
        # Who hangs up while following a log must not leave a reader behind.
        self._runner = web.AppRunner(
            application, handler_cancellation=True, access_log=None, handle_signals=False, shutdown_timeout=_GRACE
        )
        await self._runner.setup()
        await web.SockSite(self._runner, self._listener).start()

    async def close(self) -> None:
        """Stop to answer; the socket's path is the caller's to remove."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._listener.close()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            who = caller(request)
            authorize(who)
            _log.debug("%s %s by %s", request.method, request.path_qs, who)
            return await handler(request)
        except ClusterdError as error:
            return _refusal(error.code, error.message, error.hint)
        except web.HTTPNotFound:
            near = nearest_path(request.path, self._service.name)
            return _refusal("not_found", f"there is no {request.path}", f"did you mean {near}?")
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods - {"HEAD"}))
            return _refusal("wrong_method", f"{request.path} does not take {request.method}", f"it takes {allowed}")
        except web.HTTPRequestEntityTooLarge:
            return _refusal("too_large", f"the body is larger than {BODY_MAX} bytes", "")
        except (ConnectionError, web.HTTPException):
            raise
        except Exception as error:  # noqa: BLE001 - the last line of defence: a defect answers, too, and is logged
            _log.exception("%s %s failed", request.method, request.path_qs)
            return _refusal(
                "internal", f"this is a mistake in clusterd: {type(error).__name__}: {error}", "its log has the details"
            )


def listen(path: Path) -> socket.socket:
    """Return a socket that listens on `path`.

    Args:
        path: the socket; its directory is made, with mode 0700.

    Raises:
        LockHeld: somebody else listens there.
        NotPrivate: the directory belongs to somebody else.
        ControlError: the path is too long.
        OSError: it cannot be made.
    """
    private_directory(path.parent)
    if excess := socket_path_excess(path):
        raise ControlError(
            f"{path} is {excess} bytes too long for a Unix socket",
            hint="set CLUSTERD_RUNTIME_DIR to a shorter directory",
        )
    _check_unused(path)
    # Bound under another name and renamed when it listens: whoever finds the path can connect. In a 0700 directory of ours
    # nobody sees the moment between bind and chmod.
    temporary = path.with_name(f".{path.name[:8]}.new")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(temporary))
        temporary.chmod(0o600)
        listener.listen(128)
        listener.setblocking(False)
        temporary.replace(path)
    except BaseException:
        listener.close()
        temporary.unlink(missing_ok=True)
        raise
    return listener


def _check_unused(path: Path) -> None:
    # connect(2) to a file that is no socket is refused just as one that nobody serves; removing it would be theft.
    if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
        raise ControlError(f"{path} is in the way: it is no socket", hint=f"move it away: mv {path} {path}.old")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        result = probe.connect_ex(str(path))
    # Refused: the file of a socket that nobody has open. Anything else is no proof: EAGAIN is a listener with a full queue.
    if result in (errno.ENOENT, errno.ECONNREFUSED):
        return
    raise LockHeld(
        f"{path} cannot be taken over: {'somebody listens there' if result in (0, errno.EAGAIN) else _name(result)}",
        hint=f"find out who: ss -xlp | grep {path.name}",
    )


def _name(number: int) -> str:
    return errno.errorcode.get(number, str(number))


def _refusal(code: str, message: str, hint: str) -> web.Response:
    content: dict[str, Any] = answer(error={"code": code, "message": message, "hint": hint})
    return web.json_response(content, status=_STATUS.get(code, 409))

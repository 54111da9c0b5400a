"""Serves the control socket: lets in who may, answers every request in one shape.

Invariants: who is not authorized learns nothing and changes nothing; every error leaves as {"error": {code, message, hint}}, none as a
traceback.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web

from clusterd.control.admission import Admission
from clusterd.control.audit import Audit, NoAudit
from clusterd.control.authorize import Authorizer
from clusterd.control.curtail import curtailed, sees_output
from clusterd.control.requests import BODY_MAX, answer
from clusterd.control.routes import Routes, nearest_path
from clusterd.errors import ClusterdError

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from clusterd.control.service import Service

    _Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["ControlServer"]

_log = logging.getLogger("clusterd.control")

_STATUS = {
    "bad_request": 400,
    "denied": 403,
    "bad_query": 400,
    "not_found": 404,
    "unknown_task": 404,
    "wrong_method": 405,
    "refused": 409,
    "too_large": 413,
    "profile": 422,
    "storage": 500,
    "internal": 500,
    "controller_lost": 503,
}
"""Error code -> HTTP status; 409 for the rest: the request was understood, and this daemon says no."""

_GRACE = 0.3
"""Seconds that requests under way have at the end; followers of logs never end by themselves."""


class ControlServer:
    """Serves on a socket until `close`.

    Args:
        service: what is served.
        listener: the socket, which listens already.
        authorizer: who may; by default root and our own uid alone.
        audit: where commands are written down.
    """

    def __init__(
        self,
        service: Service,
        listener: socket.socket,
        authorizer: Authorizer | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._service = service
        self._listener = listener
        self._admission = Admission(authorizer or Authorizer(), audit or NoAudit())
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
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        outcome, reason = "hung_up", ""
        try:
            response, outcome, reason = await self._answer(request, handler)
        finally:
            await self._admission.note(request, outcome, reason)
        return response

    async def _answer(self, request: web.Request, handler: _Handler) -> tuple[web.StreamResponse, str, str]:
        """Return the answer; and what became of the request, with the reason."""
        try:
            await self._admission.admit(request)
            response = await handler(request)
            if isinstance(response, web.Response) and isinstance(response.body, bytes) and not sees_output():
                response.body = curtailed(response.body)
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
        return response, "done", ""


def _refusal(code: str, message: str, hint: str) -> tuple[web.Response, str, str]:
    content: dict[str, Any] = answer(error={"code": code, "message": message, "hint": hint})
    return web.json_response(content, status=_STATUS.get(code, 409)), code, message

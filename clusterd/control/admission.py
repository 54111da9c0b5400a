"""One request at the door: who it is, whether it may, and the line in the audit log.

The verb is the route's name in `routes.PATHS`, the right it needs stands in `routes.NEEDS`; a route without one is for admins alone.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from clusterd.control.authorize import ADMITTED, caller_of
from clusterd.control.routes import NEEDS
from clusterd.errors import ControlError
from clusterd.system import clock

if TYPE_CHECKING:
    from clusterd.control.audit import Audit, NoAudit
    from clusterd.control.authorize import Authorizer
    from clusterd.core.model.access import Need

__all__ = ["Admission"]

_ANYTHING: Final[Need] = ("view",)
"""To be told that there is no such path."""


class Admission:
    """Lets requests in.

    Args:
        authorizer: decides.
        audit: remembers.
    """

    def __init__(self, authorizer: Authorizer, audit: Audit | NoAudit) -> None:
        self._authorizer = authorizer
        self._audit = audit

    async def admit(self, request: web.Request) -> None:
        """Let a request pass. Its caller is `ADMITTED` from then on: known, though it may be refused yet.

        Raises:
            PermissionDenied: it may not.
            ControlError: nobody is there any more.
        """
        transport = request.transport
        if transport is None:
            raise ControlError("the caller hung up", code="cut_short")
        stranger = caller_of(transport.get_extra_info("socket"))
        # For the audit log, when it cannot be found out who that is.
        ADMITTED.set(stranger)
        caller = await self._authorizer.identify(stranger)
        ADMITTED.set(caller)
        name = request.match_info.route.name
        need = _ANYTHING if name is None else NEEDS.get(name, ("admin",))
        self._authorizer.check(caller, _verb(request), need)

    async def note(self, request: web.Request, outcome: str, reason: str) -> None:
        """Write down a command, and whatever was refused for want of a right."""
        caller = ADMITTED.get(None)
        is_denied = outcome == "denied"
        if caller is None or (request.method == "GET" and not is_denied):
            return
        arguments: dict[str, Any] = {key: value for key, value in request.match_info.items() if key != "cluster"}
        arguments |= request.query
        # Of who may not, nothing is read but the first line.
        if not is_denied and outcome not in {"too_large", "hung_up"}:
            with contextlib.suppress(web.HTTPException, ConnectionError):
                arguments |= _body(await request.read())
        given = {key: value for key, value in arguments.items() if value is not None}
        self._audit.note(clock.wall(), caller, _verb(request), given, outcome, reason)


def _verb(request: web.Request) -> str:
    name = request.match_info.route.name
    if name is None:
        return f"{request.method} {request.path}"[:200]
    if name == "command_engines":
        return f"engines {request.match_info['command']}"[:200]
    return name.replace("_", "-")


def _body(data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data or b"{}")
    except ValueError:
        return {"body": data[:200].decode(errors="replace")}
    return content if isinstance(content, dict) else {"body": content}

"""The table of what the API answers: method, path, what the request holds, and the daemon's method that does it.

Handlers translate and nothing else. A name in the path that does not exist is 404 with the nearest that does.
"""

from __future__ import annotations

import difflib
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from clusterd.control import requests
from clusterd.control.authorize import ADMITTED
from clusterd.control.curtail import curtailed, sees_output
from clusterd.control.requests import answer, decode_body, decode_query
from clusterd.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from clusterd.control.authorize import Caller
    from clusterd.control.service import Service
    from clusterd.core.model.access import Need

__all__ = ["ENGINE_COMMANDS", "NEEDS", "PATHS", "Routes", "nearest_path"]

ENGINE_COMMANDS = ("interrupt", "stop", "kill", "restart")

_CLUSTER = "/v1/clusters/{cluster}"

PATHS: dict[tuple[str, str], str] = {
    ("GET", "/v1/version"): "version",
    ("GET", "/v1/clusters"): "clusters",
    ("GET", _CLUSTER): "status",
    ("POST", f"{_CLUSTER}/start"): "start",
    ("POST", f"{_CLUSTER}/stop"): "stop",
    ("POST", f"{_CLUSTER}/restart"): "restart",
    ("POST", f"{_CLUSTER}/reload"): "reload",
    ("POST", f"{_CLUSTER}/rotate-key"): "rotate_key",
    ("POST", f"{_CLUSTER}/drain"): "drain",
    ("PUT", _CLUSTER + "/sets/{set}"): "scale",
    ("POST", _CLUSTER + "/sets/{set}/resume"): "resume",
    ("GET", f"{_CLUSTER}/engines"): "engines",
    ("POST", _CLUSTER + "/engines/{command}"): "command_engines",
    ("GET", f"{_CLUSTER}/tasks"): "tasks",
    ("GET", _CLUSTER + "/tasks/{task}"): "task",
    ("POST", f"{_CLUSTER}/tasks/purge"): "purge_tasks",
    ("GET", f"{_CLUSTER}/connection"): "connection",
    ("GET", f"{_CLUSTER}/logs"): "logs",
    ("GET", f"{_CLUSTER}/events"): "events",
    ("GET", f"{_CLUSTER}/explain"): "explain",
    ("GET", f"{_CLUSTER}/orphans"): "orphans",
    ("POST", f"{_CLUSTER}/gc"): "end_orphans",
}
"""Method and path -> name of the handler below."""

_VIEW: Need = ("view",)
_OPERATE: Need = ("operate",)
_ADMIN: Need = ("admin",)
# What users' code has printed, and what it is: for those who look after the cluster, and those who run such code there.
_SEE_WORK: Need = ("operate", "connect")

NEEDS: dict[str, Need] = {
    "version": _VIEW,
    "clusters": _VIEW,
    "status": _VIEW,
    "engines": _VIEW,
    "events": _VIEW,
    "orphans": _VIEW,
    "connection": ("connect",),
    "logs": _SEE_WORK,
    "explain": _SEE_WORK,
    "tasks": _SEE_WORK,
    "task": _SEE_WORK,
    "purge_tasks": _OPERATE,
    "start": _OPERATE,
    "stop": _OPERATE,
    "restart": _OPERATE,
    "scale": _OPERATE,
    "drain": _OPERATE,
    "resume": _OPERATE,
    "command_engines": _OPERATE,
    "end_orphans": _OPERATE,
    # They change who may do what.
    "reload": _ADMIN,
    "rotate_key": _ADMIN,
}
"""Name of the handler -> the rights of which its caller needs one. A test fails for a handler that has none."""


class Routes:
    """The handlers, over a service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def table(self) -> list[web.RouteDef]:
        """Return the routes for aiohttp."""
        return [web.route(method, path, getattr(self, name), name=name) for (method, path), name in PATHS.items()]

    async def version(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/version."""
        decode_query(requests.Empty, request.query)
        return _json(self._service.version())

    async def clusters(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/clusters."""
        decode_query(requests.Empty, request.query)
        return _json({"clusters": self._service.clusters()})

    async def status(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/clusters/NAME, with ?wait= as a long poll."""
        self._check(request)
        return _json(await self._service.status(decode_query(requests.StatusQuery, request.query)))

    async def engines(self, request: web.Request) -> web.StreamResponse:
        """GET engines."""
        self._check(request)
        decode_query(requests.Empty, request.query)
        return _json({"engines": await self._service.engines()})

    async def connection(self, request: web.Request) -> web.StreamResponse:
        """GET connection."""
        self._check(request)
        decode_query(requests.Empty, request.query)
        return _json(self._service.connection())

    async def start(self, request: web.Request) -> web.StreamResponse:
        """POST start."""
        self._check(request)
        body = decode_body(requests.Start, await request.read())
        return _json(await self._service.start(body, caller(request)))

    async def stop(self, request: web.Request) -> web.StreamResponse:
        """POST stop."""
        self._check(request)
        body = decode_body(requests.Stop, await request.read())
        return _json(await self._service.stop(body, caller(request)))

    async def restart(self, request: web.Request) -> web.StreamResponse:
        """POST restart."""
        self._check(request)
        body = decode_body(requests.Restart, await request.read())
        return _json(await self._service.restart(body, caller(request)))

    async def reload(self, request: web.Request) -> web.StreamResponse:
        """POST reload."""
        self._check(request)
        decode_body(requests.Empty, await request.read())
        return _json(await self._service.reload(caller(request)))

    async def rotate_key(self, request: web.Request) -> web.StreamResponse:
        """POST rotate-key."""
        self._check(request)
        body = decode_body(requests.RotateKey, await request.read())
        return _json(await self._service.rotate_key(body, caller(request)))

    async def scale(self, request: web.Request) -> web.StreamResponse:
        """PUT sets/SET."""
        self._check(request)
        body = decode_body(requests.Scale, await request.read())
        return _json(await self._service.scale(request.match_info["set"], body, caller(request)))

    async def drain(self, request: web.Request) -> web.StreamResponse:
        """POST drain."""
        self._check(request)
        body = decode_body(requests.Drain, await request.read())
        return _json(await self._service.drain(body, caller(request)))

    async def resume(self, request: web.Request) -> web.StreamResponse:
        """POST sets/SET/resume."""
        self._check(request)
        body = decode_body(requests.Resume, await request.read())
        return _json(await self._service.resume(request.match_info["set"], body, caller(request)))

    async def command_engines(self, request: web.Request) -> web.StreamResponse:
        """POST engines/COMMAND."""
        self._check(request)
        command = request.match_info["command"]
        if command not in ENGINE_COMMANDS:
            raise _unknown("command", command, list(ENGINE_COMMANDS))
        body = decode_body(requests.Targets, await request.read())
        return _json(await self._service.command_engines(command, body, caller(request)))

    async def tasks(self, request: web.Request) -> web.StreamResponse:
        """GET tasks: a page of them."""
        self._check(request)
        return _json(await self._service.tasks(decode_query(requests.TasksQuery, request.query)))

    async def task(self, request: web.Request) -> web.StreamResponse:
        """GET tasks/ID."""
        self._check(request)
        decode_query(requests.Empty, request.query)
        return _json(await self._service.task(request.match_info["task"]))

    async def purge_tasks(self, request: web.Request) -> web.StreamResponse:
        """POST tasks/purge."""
        self._check(request)
        body = decode_body(requests.TasksPurge, await request.read())
        return _json(await self._service.purge_tasks(body, caller(request)))

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """GET logs, as NDJSON."""
        self._check(request)
        query = decode_query(requests.Logs, request.query)
        return await _stream(request, self._service.logs(query))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET events, as NDJSON."""
        self._check(request)
        query = decode_query(requests.Events, request.query)
        return await _stream(request, self._service.events(query))

    async def explain(self, request: web.Request) -> web.StreamResponse:
        """GET explain."""
        self._check(request)
        return _json(await self._service.explain(decode_query(requests.Explain, request.query)))

    async def orphans(self, request: web.Request) -> web.StreamResponse:
        """GET orphans."""
        self._check(request)
        decode_query(requests.Empty, request.query)
        return _json({"orphans": await self._service.orphans()})

    async def end_orphans(self, request: web.Request) -> web.StreamResponse:
        """POST gc."""
        self._check(request)
        body = decode_body(requests.Strays, await request.read())
        return _json(await self._service.end_orphans(body, caller(request)))

    def _check(self, request: web.Request) -> None:
        name = request.match_info["cluster"]
        if name != self._service.name:
            raise _unknown("cluster", name, [self._service.name])


def caller(_request: web.Request) -> Caller:
    """Return who sent the request that this task answers, as it was admitted."""
    return ADMITTED.get()


def nearest_path(path: str, cluster: str) -> str:
    """Return the known path that looks most like `path`."""
    known = sorted({pattern.replace("{cluster}", cluster) for _, pattern in PATHS})
    return max(known, key=lambda pattern: difflib.SequenceMatcher(None, path, pattern).ratio())


def _unknown(noun: str, name: str, known: list[str]) -> ControlError:
    near = difflib.get_close_matches(name, known, n=1)
    listed = f"there is: {', '.join(known)}"
    return ControlError(
        f"no {noun} `{name}` here", code="not_found", hint=f"did you mean `{near[0]}`? {listed}" if near else listed
    )


def _json(content: dict[str, Any]) -> web.Response:
    return web.json_response(answer(**content), dumps=_dumps)


def _dumps(content: Any) -> str:
    return msgspec.json.encode(content).decode() + "\n"


async def _stream(request: web.Request, lines: AsyncGenerator[dict[str, Any]]) -> web.StreamResponse:
    # The status line goes out before the first line exists: who follows a quiet log must not wait for the answer to begin.
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    async with aclosing(lines):
        await response.prepare(request)
        async for line in lines:
            data = _dumps(line).encode()
            await response.write(data if sees_output() else curtailed(data))
        await response.write_eof()
    return response

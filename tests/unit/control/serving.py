"""A control server in a thread, over a service that remembers what it was asked; and the socket to speak to it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager, suppress

from clusterd.control.listening import listen
from clusterd.control.server import ControlServer
from clusterd.errors import ProfileError, UnknownTask


class FakeService:
    """Answers with what it was given; `calls` holds (method, argument, caller's uid)."""

    name = "local"

    def __init__(self):
        self.calls = []
        self.converges = asyncio.Event()
        self.followers = 0

    def version(self):
        return {"profile": self.name, "pid": 1}

    def clusters(self):
        return [{"name": self.name, "state": "running"}]

    async def status(self, request):
        if request.wait:
            self.calls.append(("wait", request, None))
            with suppress(TimeoutError):
                await asyncio.wait_for(self.converges.wait(), request.timeout)
        return {"cluster": self.name, "is_converged": self.converges.is_set()}

    async def engines(self):
        return [{"engine": "engines/0"}]

    async def tasks(self, request):
        self.calls.append(("tasks", request, None))
        return {"tasks": [], "next": None, "source": "controller"}

    async def task(self, name):
        if name == "nobody":
            raise UnknownTask(name)
        return {"task": {"id": name}}

    async def purge_tasks(self, request, caller):
        return await self._note("purge", request, caller)

    async def orphans(self):
        return []

    async def end_orphans(self, request, caller):
        return await self._note("gc", request, caller)

    async def explain(self, request):
        return {"subject": request.subject}

    def connection(self):
        raise ZeroDivisionError("a defect")

    async def _note(self, name, request, caller):
        self.calls.append((name, request, caller.uid))
        return {"accepted": True}

    async def start(self, request, caller):
        return await self._note("start", request, caller)

    async def stop(self, request, caller):
        return await self._note("stop", request, caller)

    async def restart(self, request, caller):
        return await self._note("restart", request, caller)

    async def scale(self, engine_set, request, caller):
        return await self._note(f"scale {engine_set}", request, caller)

    async def drain(self, request, caller):
        return await self._note("drain", request, caller)

    async def resume(self, engine_set, request, caller):
        return await self._note(f"resume {engine_set}", request, caller)

    async def command_engines(self, command, request, caller):
        return await self._note(f"engines {command}", request, caller)

    async def rotate_key(self, request, caller):
        return await self._note("rotate-key", request, caller)

    async def reload(self, caller):
        raise ProfileError("local.yaml:3:5: unknown key `nn`", hint="did you mean `n`?")

    def logs(self, request):
        self.calls.append(("logs", request, None))
        return self._lines(request.follow)

    async def _lines(self, follow):
        yield {"source": "daemon", "line": "one"}
        yield {"source": "daemon", "line": "two\u2028\n"}
        if follow:
            self.followers += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.followers -= 1

    def events(self, request):
        return self._lines(request.follow)


@contextmanager
def serving(path, service=None, *server_arguments):
    """Yield (service, call): `call(f, *args)` runs f in the server's loop and returns its result."""
    service = service or FakeService()
    listener = listen(path)
    loop = asyncio.new_event_loop()
    server = ControlServer(service, listener, *server_arguments)
    loop.run_until_complete(server.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(function, *arguments):
        async def run():
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(run(), loop).result(10)

    try:
        yield service, call
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

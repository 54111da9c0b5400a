"""Requests as ipyparallel's client builds them, an engine that runs them behind a link of ours, and what came of them."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import types

from ipyparallel.serialize import deserialize_object, pack_apply_message

from clusterd.core.wire import jupyter
from clusterd.core.wire import messages as m
from clusterd.core.wire.frames import find_body
from clusterd.engine.executor import Executor
from clusterd.engine.namespace import Namespace
from clusterd.engine.output import Output
from clusterd.engine.stock.runner import StockRunner
from clusterd.link import Down

UUID = bytes(range(16))


class WireLink:
    """A link of which a test says what it takes."""

    def __init__(self):
        self.sent = []
        self.is_attached = self.is_clear = True
        self.is_sending = False
        self.welcome = None
        self.events = []
        # Called at each look for news; may change anything here.
        self.when_asked = lambda: None

    def receive(self):
        self.when_asked()
        events, self.events = self.events, []
        return events

    def pollables(self):
        return []

    def send(self, messages, frames=()):
        assert self.is_clear
        self.sent += [(message, list(frames)) for message in messages]

    def lose(self):
        self.is_attached = self.is_clear = False
        self.events.append(Down("gone", []))


class Reply(types.SimpleNamespace):
    """One answer: status of the result, metadata, content, value of an apply, what was published in order."""

    def shown(self, what=None):
        return [content for kind, content in self.published if what in (None, kind)]

    def text(self, name="stdout"):
        return "".join(content["text"] for content in self.shown("stream") if content["name"] == name)


class StockEngine:
    """Runs requests."""

    def __init__(self, shell, output=None):
        self.shell = shell
        self.link = WireLink()
        self.executor = Executor(Namespace(shell), output or Output(), "local/engines/3")
        self.runner = StockRunner(self.executor, self.link, UUID)
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def installed(self):
        """Its streams are the process's, as in an engine."""
        kept = sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__
        self.executor.output.install()
        try:
            yield
        finally:
            sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__ = kept

    def request(self, kind, content=None, buffers=(), metadata=None):
        header = {"msg_id": f"m{next(self._numbers)}", "msg_type": kind, "session": "s", "version": "5.3"}
        parts = [json.dumps(part).encode() for part in (header, {}, metadata or {}, content or {})]
        return self.run(jupyter.pack_request(jupyter.Request(*parts)), [bytearray(buffer) for buffer in buffers])

    def run(self, body, frames=()):
        dispatch = m.Dispatch(b"task", 2, 1, m.STOCK, b"", b"", len(frames))
        self.link.sent.clear()
        with self.installed():
            outcome, unsent = self.runner.run(dispatch, 7, body, frames)
        reply = jupyter.unpack_reply(outcome.body)
        published = self.link.sent + [(message, list(own)) for message, own in unsent]
        assert {(message.task, message.attempt) for message, _ in published} <= {(b"task", 2)}
        assert all(message.frames == len(own) for message, own in published)
        return Reply(
            status=outcome.status,
            metadata=json.loads(reply.metadata),
            content=json.loads(reply.content),
            frames=list(find_body(outcome.body, outcome.frames)[1]),
            outcome=outcome,
            unsent=[message for message, _ in unsent],
            published=[(message.what, json.loads(message.content)) for message, _ in published],
            published_frames=[own for _, own in published],
        )

    def apply(self, function, *args, **kwargs):
        return self.request("apply_request", buffers=pack_apply_message(function, args, kwargs))

    def value(self, function, *args, **kwargs):
        reply = self.apply(function, *args, **kwargs)
        assert reply.content == {"status": "ok"}, "\n".join(reply.content["traceback"])
        return deserialize_object(reply.frames)[0]

    def execute(self, code, **content):
        return self.request("execute_request", {"code": code, "silent": False, "user_expressions": {}, **content})

"""Does before the fork what every engine will do after it, so that its pages stay shared.

Python writes to what it runs: bytecode is specialised in place, modules import others at their first use, caches fill. An
engine that does this itself copies the pages; a zygote that has done it gives them to all. Nothing of it is left visible.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import cloudpickle

from clusterd.core.model import connection
from clusterd.core.wire import handshake, payload
from clusterd.core.wire import messages as m
from clusterd.engine.executor import Executor
from clusterd.engine.functions import Functions
from clusterd.engine.namespace import Namespace
from clusterd.engine.output import Output
from clusterd.engine.page import StatusPage
from clusterd.link import Link, poll_once

if TYPE_CHECKING:
    from clusterd.engine.shell import EngineShell

ROUNDS = 20
"""A code object is specialised at its 8th call or jump (Python 3.11), each of its instructions a few passes later."""

_CELLS = (
    "import json, math, os, sys, time\nx = [i * 2 for i in range(10)]\nsum(x)",
    "def f(a, b=1):\n    return a + b\nf(1)",
    "class C:\n    pass\n{'a': C.__name__}",
    "display('x')\nNone",
    "%who_ls",
)
_WRONG_CELLS = ("1 / 0", "x = = 1", "no_such_name")


def rehearse(shell: EngineShell) -> None:
    """Run each kind of task, each way to fail, a handshake and a connection's worth of messages; then forget them."""
    # Not installed: the zygote's own streams stay what they are.
    executor = Executor(Namespace(shell), Output(), "rehearsal")
    functions = Functions()
    body, _ = payload.pack_function(_called, cloudpickle.dumps)
    functions.add(b"rehearsal", "called", body)
    held = functions.get(b"rehearsal")
    status = StatusPage(None, 0, bytes(16))
    for round_number in range(ROUNDS):
        for kind, value in _tasks(round_number):
            packed, frames = payload.pack(value, cloudpickle.dumps)
            status.writer.begin(round_number, b"task", 0, 0.0)
            outcome = executor.run(kind, held if kind in (m.APPLY, m.MAP) else None, packed, frames)
            status.writer.end(outcome.finished)
            _connection(packed, outcome.body)
            _dial()
    status.close()
    shell.reset(new_session=True)
    shell.displayhook.forget()
    gc.collect()


def _called(value: int = 0) -> int:
    return value + 1


def _tasks(round_number: int) -> list[tuple[int, Any]]:
    tasks: list[tuple[int, Any]] = [
        (m.APPLY, ((round_number,), {})),
        (m.APPLY, (("wrong",), {})),
        (m.MAP, (range(10),)),
        (m.PUSH, {"a": round_number}),
        (m.PULL, ["a"]),
    ]
    # A cell takes a hundred times as long as a call: a quarter of the rounds reaches the same code.
    if round_number % 4 == 0:
        tasks += [(m.EXECUTE, cell) for cell in (*_CELLS, *_WRONG_CELLS)]
    return tasks


def _dial() -> None:
    """A connection file is read, and a link finds nobody."""
    ours = connection.NativeEndpoints(
        1, "unix:///rehearsal/none", "unix:///rehearsal/none", "00" * 32, "rehearsal", "00"
    )
    endpoints = connection.decode(connection.encode(connection.ConnectionFile(ours)), "rehearsal").clusterd
    link = Link(lambda: None, lambda: endpoints, "engine", "data", lambda token: token, keeps_unacked=True)
    link.open()
    link.tick()
    poll_once(link.pollables(), 0.0)
    link.close()


def _connection(body: bytes, result: bytes) -> None:
    """Both sides of a handshake and one task, in memory: keys and nonces are zeroes, nobody is spoken to."""
    key, uuid = bytes(32), bytes(16)
    peer = handshake.PeerHandshake(key, "engine", "data", bytes(16), "rehearsal", has_digests=False)
    hello = handshake.read_hello(key, "engine-data", *peer.hello())
    answer, controller = handshake.welcome(
        key, hello, challenge=bytes(16), controller=uuid, cluster="rehearsal", limits=m.Limits(), has_digests=False
    )
    engine = peer.receive(answer)
    attach = m.AttachEngine(uuid, b"", "engines", 0, "", 1, "host", "3.11", "rehearsal")
    controller.open(*engine.seal([attach]))
    engine.open(*controller.seal([m.Attached(uuid, 0), m.Function(uuid, "f", "", body)]))
    engine.open(*controller.seal([m.Dispatch(b"task", 0, 1, m.APPLY, uuid, body)]))
    controller.open(*engine.seal([m.Result(b"task", 0, m.STATUS_OK, 0.0, 0.0, "", "", result)]))

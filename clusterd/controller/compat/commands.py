"""Commands to stock engines, by their control channel: to the nanny, who sends signals, and through it to the engine itself.

A stock engine that holds the interpreter in C code does not hear that it is to shut down; as with ours, it is killed when it has not
ended in time.
"""

from __future__ import annotations

import logging
import signal
import time
from typing import TYPE_CHECKING, Any, Final

from clusterd.core.wire import jupyter

if TYPE_CHECKING:
    from clusterd.controller.compat.edge import Edge
    from clusterd.controller.peers import Engine

log = logging.getLogger(__name__)
WORD: Final = b"\3"
"""In front of each command, and of its answer."""
STOP_SECONDS: Final = 5.0
_SIGNALS: Final = {"interrupt": int(signal.SIGINT), "kill": int(signal.SIGKILL)}


class Commands:
    """The commands.

    Args:
        edge: what the parts of the edge share.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        # Engines that were told to stop, and when they are to be killed, soonest first.
        self._stopping: dict[bytes, float] = {}

    def give(self, engine: Engine, command: str, number: int, now: float) -> str:
        """Give one; why it cannot be carried out, or an empty string."""
        if command == "restart":
            return f"{engine.name} was not started by clusterd, which cannot start it again; stop it, and start another"
        if command != "stop":
            return self._send(engine, "signal_request", {"sig": _SIGNALS.get(command, number)})
        problem = self._send(engine, "shutdown_request", {"restart": False})
        if not problem:
            self._stopping.setdefault(engine.uuid, now + STOP_SECONDS)
        return problem

    def _send(self, engine: Engine, msg_type: str, content: dict[str, Any]) -> str:
        edge = self._edge
        header = edge.header(msg_type, time.time())
        signer = edge.keys.of_engine(engine.uuid)
        frames = edge.sealed(header, jupyter.EMPTY, jupyter.EMPTY, jupyter.json_of(content), signer)
        try:
            is_sent = edge.sockets.send("control_engine", [engine.uuid, WORD, *frames])
        except ConnectionError:
            return f"{engine.name} has no control connection; its nanny may be dead"
        return "" if is_sent else f"{engine.name} does not read what it is told"

    def answered(self, name: bytes, message: jupyter.Message) -> None:
        """An engine or its nanny answers one."""
        content = jupyter.dict_of(message.content, "content")
        if content.get("status") != "ok":
            text = str(content.get("evalue"))
            log.warning("stock engine %s: a command failed: %s", name.decode("ascii", "replace"), text)

    def forget(self, engine: Engine) -> None:
        """It has ended."""
        self._stopping.pop(engine.uuid, None)

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        return next(iter(self._stopping.values()), None)

    def tick(self, now: float) -> None:
        """Kill who has not stopped."""
        while self._stopping:
            name, at = next(iter(self._stopping.items()))
            if now < at:
                return
            del self._stopping[name]
            engine = self._edge.hub.engines.get(name)
            if engine is not None:
                problem = self._send(engine, "signal_request", {"sig": _SIGNALS["kill"]})
                log.warning("%s has not stopped within %g s: killed %s", engine.name, STOP_SECONDS, problem)

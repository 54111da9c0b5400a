"""How engines come into being: orders to the zygote, its restarts, and what was ordered from one that is gone.

A zygote that was killed may have forked an engine without telling: the engine's identity file decides, a moment later.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from clusterd.agent.zygote import messages as z
from clusterd.agent.zygote_process import ZygoteProcess
from clusterd.core.supervisor.restart import RestartAt, Restarts

if TYPE_CHECKING:
    from clusterd.agent.nursery import Nursery
    from clusterd.core.model.launch import AgentSpec

log = logging.getLogger(__name__)
# From its fork to its identity file an engine needs milliseconds; a machine that swaps, more.
_UNBORN_SECONDS = 1.0


class Births:
    """The zygote and all orders to it.

    Args:
        spec: of the set.
        zygote: already started; None: there is none, and never will be.
        nursery: where identity files are read.

    Attributes:
        warnings: what the zygote said of the preloads.
        failure: why no engine can be started any more; empty while they can.
    """

    def __init__(self, spec: AgentSpec, zygote: ZygoteProcess | None, nursery: Nursery) -> None:
        self._spec = spec
        self._nursery = nursery
        # None while there is none: `_start_at` says when there will be.
        self._zygote = zygote
        self._since = time.monotonic()
        self._start_at: float | None = None
        self._restarts = Restarts(spec.restart, f"{spec.launch}/zygote")
        # Orders that wait for a zygote.
        self._waiting: list[z.Fork] = []
        # When engines are given up that were ordered from a zygote that is gone.
        self._unborn: dict[bytes, float] = {}
        self.warnings: list[str] = []
        self.failure = ""

    def order(self, *orders: z.Fork) -> None:
        """Have engines forked, as soon as that is possible."""
        if self._zygote is not None:
            self._zygote.fork(*orders)
        else:
            self._waiting += orders

    def hear(self, now: float) -> list[z.FromZygote]:
        """What has happened; restarts the zygote when that is due. Never blocks."""
        messages: list[z.FromZygote] = []
        if self._zygote is not None:
            self._zygote.fork()  # what did not fit into its socket before
            messages, is_there = self._zygote.receive()
            for message in messages:
                if isinstance(message, z.Warmed):
                    self.warnings = message.warnings
                    for warning in message.warnings:
                        log.warning("%s", warning)
                    log.info("the zygote is warm after %.2f s", message.seconds)
            if not is_there:
                self._lose(self._zygote, now)
        elif self._start_at is not None and now >= self._start_at:
            self._start(now)
        for uuid in [uuid for uuid, until in self._unborn.items() if now >= until]:
            del self._unborn[uuid]
            identity = self._nursery.identity_of(uuid)
            if identity is None:
                messages.append(z.ForkFailed(uuid, "its zygote was killed"))
            else:
                messages.append(z.Forked(uuid, identity.pid, identity.start_time))
        return messages

    def descriptors(self) -> set[int]:
        """Readable when `hear` has something."""
        return set() if self._zygote is None else {self._zygote.fileno()}

    def next_deadline(self) -> float | None:
        """When `hear` has something to do."""
        times = [self._start_at, *self._unborn.values()]
        if self._zygote is not None and self._zygote.is_waiting:
            times.append(time.monotonic() + 0.01)
        return min((time for time in times if time is not None), default=None)

    def close(self) -> None:
        """End the zygote; its engines, if any, go on."""
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    def _lose(self, zygote: ZygoteProcess, now: float) -> None:
        status = zygote.close()
        self._zygote = None
        for uuid in self._nursery.orphan_all():
            self._unborn[uuid] = now + _UNBORN_SECONDS
        reason = f"the zygote ended with status {status}"
        healthy_for = now - self._since if zygote.is_warm else 0.0
        match self._restarts.ended(reason, now, healthy_for=healthy_for):
            case RestartAt(at):
                log.error("%s; its engines go on, a new one follows", reason)
                self._start_at = at
            case down:
                log.error("%s", down.reason)
                self.failure = f"engines cannot be started: {down.reason}"

    def _start(self, now: float) -> None:
        self._start_at = None
        try:
            self._zygote = ZygoteProcess(self._spec)
        except OSError as error:
            log.error("cannot start a zygote: %s", error)  # noqa: TRY400 - a message for people
            self._start_at = now + 1.0
            return
        self._since = now
        waiting, self._waiting = self._waiting, []
        self._zygote.fork(*waiting)

"""The agent's connection to the controller: attach, pings, reports, and what must not be forgotten while it is down."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterd.core.model import connection
from clusterd.core.wire import messages as m
from clusterd.errors import ConnectionFileError
from clusterd.link import Down, Link, Received, Refusal, Up
from clusterd.system import files

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterd.core.model.connection import NativeEndpoints

log = logging.getLogger(__name__)
# At most ten reports a second, and one at least this often: an operator that came late, or missed one, catches up.
_REPORT_PAUSE = 0.1
_REPORT_INTERVAL = 5.0
_SILENT_INTERVALS = 3
# What tells of an end is said again on the next connection; the rest of what was under way is in the attach message.
_LASTING = (m.EngineExited, m.CommandDone)


class Control:
    """One control connection.

    Args:
        context: called when a ZeroMQ context is needed.
        connection_file: ipcontroller-engine.json; it may appear later, and change.
        attach: makes the AttachAgent from (token, controller's incarnation).
        report: makes the AgentReport.
    """

    def __init__(
        self,
        context: Callable[[], Any],
        connection_file: str,
        attach: Callable[[bytes, bytes], m.AttachAgent],
        report: Callable[[], m.AgentReport],
    ) -> None:
        self._file = Path(connection_file)
        self._attach = attach
        self._report = report
        self.link = Link(context, self._endpoints, "agent", "control", self._make_attach, keeps_unacked=True)
        # Wall of reports: when the next may go, when it must.
        self._may_report_at = 0.0
        self._must_report_at: float | None = None
        self._ping_at = 0.0
        # Since when there is no controller; None while there is one.
        self.alone_since: float | None = time.monotonic()
        self.refusal = ""

    def send(self, *messages: Any) -> None:
        """Say something, now or when there is a connection again (if it still matters then)."""
        kept = messages if self.link.is_attached else [item for item in messages if isinstance(item, _LASTING)]
        if kept:
            self.link.send(list(kept))

    def changed(self) -> None:
        """A slot's state has changed: a report is due."""
        now = time.monotonic()
        due = max(now, self._may_report_at)
        if self._must_report_at is None or due < self._must_report_at:
            self._must_report_at = due

    def receive(self) -> list[Any]:
        """Messages that have arrived."""
        return self._messages(self.link.receive())

    def tick(self, now: float) -> list[Any]:
        """Dial, ping, report; messages that have arrived."""
        messages = self._messages(self.link.tick())
        if not self.link.is_attached or self.link.welcome is None:
            return messages
        interval = self.link.welcome.limits.ping_interval
        if now - self.link.last_heard > _SILENT_INTERVALS * interval:
            return messages + self._messages(
                self.link.redial(f"the controller has said nothing for {now - self.link.last_heard:.1f} s")
            )
        if self._must_report_at is not None and now >= self._must_report_at:
            self._may_report_at = now + _REPORT_PAUSE
            self._must_report_at = now + _REPORT_INTERVAL
            self.link.send([self._report()])
        if now >= self._ping_at:
            self._ping_at = now + interval
            self.link.send([m.Ping()])
        return messages

    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        times = [self.link.next_deadline()]
        if self.link.is_attached:
            times += [self._must_report_at, self._ping_at]
        return min((time for time in times if time is not None), default=None)

    def is_silent(self, now: float) -> bool:
        """True when what was said is acknowledged, or nobody is there to hear it."""
        session = self.link.session
        if not self.link.is_attached or session is None:
            return self.alone_since is not None and now - self.alone_since > _REPORT_INTERVAL
        return self.link.is_clear and session.unacked_bytes == 0

    def close(self, reason: str) -> None:
        """Say goodbye."""
        self.link.close(goodbye=reason)

    def _make_attach(self, token: bytes) -> m.AttachAgent:
        welcome = self.link.welcome
        return self._attach(token, b"" if welcome is None else welcome.controller)

    def _endpoints(self) -> NativeEndpoints:
        try:
            data = files.read_private(self._file)
        except OSError as error:
            raise ConnectionFileError(
                f"{self._file} cannot be read: {os.strerror(error.errno or 0)}",
                hint="It is there while a controller runs.",
            ) from error
        return connection.decode(data, str(self._file)).clusterd

    def _messages(self, events: list[Any]) -> list[Any]:
        messages: list[Any] = []
        for event in events:
            match event:
                case Received():
                    messages += event.messages
                case Up():
                    log.info("attached to the controller of %s", event.welcome.cluster)
                    self.alone_since = None
                    self.changed()
                case Down():
                    log.warning("lost the controller: %s; the engines go on", event.reason)
                    self.alone_since = time.monotonic()
                    for sent, _ in event.unacked:
                        self.send(*sent)
                case Refusal():
                    self.refusal = str(event.error)
        return messages

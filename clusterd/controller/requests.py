"""Answers what clients and operators ask on their control connection, from what hub and scheduler know; nothing here waits."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from clusterd.controller.holdings import engine_tasks
from clusterd.controller.pages import Pages
from clusterd.controller.records import Records
from clusterd.core.scheduler import events
from clusterd.core.wire.messages import (
    Abort,
    ControllerStatus,
    DescribeTask,
    Drain,
    Drained,
    EngineCommand,
    EngineTasks,
    ErrorReply,
    Goodbye,
    ListEngines,
    PageTasks,
    Ping,
    Pong,
    PurgePage,
    PurgeTasks,
    QueryTasks,
    QueueStatus,
    Reply,
    Resubmit,
    ResumeSlots,
    RotateKeys,
    SetDesired,
    Shutdown,
)
from clusterd.errors import ClusterdError, WireError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from clusterd.controller.dispatch import Performer
    from clusterd.controller.hub import Hub
    from clusterd.controller.operations import Operations
    from clusterd.controller.peers import Client
    from clusterd.controller.rotation import Rotation
    from clusterd.controller.tasks import Tasks
    from clusterd.storage.taskstore.base import TaskStore

_OPERATORS_ONLY = (SetDesired, ResumeSlots, Drain, Shutdown, RotateKeys)


class Requests:
    """The control side of clients.

    Args:
        hub, tasks, operations, performer: the controller's parts.
        counters: what was dropped, by socket and reason.
        shut_down: called with a reason by Shutdown.
        store: the records of tasks.
        rotation: of the keys.
        about: fixed facts for ControllerStatus: cluster, launch, controller, addresses, database.
    """

    def __init__(
        self,
        hub: Hub,
        tasks: Tasks,
        operations: Operations,
        performer: Performer,
        *,
        counters: dict[str, Counter[str]],
        shut_down: Callable[[str], None],
        about: dict[str, Any],
        store: TaskStore,
        rotation: Rotation,
    ) -> None:
        self._hub = hub
        self._tasks = tasks
        self._operations = operations
        self._performer = performer
        self._counters = counters
        self._shut_down = shut_down
        self._about = about
        self._store = store
        self._rotation = rotation
        self._records = Records(store, tasks)
        self._pages = Pages(store, tasks)
        self._started = time.time()

    def receive(self, client: Client, messages: list[Any], now: float) -> str | None:
        """Handle messages of a client's control connection; the reason when it said goodbye."""
        client.last_heard = now
        client.has_spoken = True
        for message in messages:
            if isinstance(message, Ping):
                if client.control is not None:
                    client.control.say(Pong(), 8)
            elif isinstance(message, Goodbye):
                return message.reason
            elif isinstance(message, _OPERATORS_ONLY) and not client.is_operator:
                self._say(
                    client,
                    ErrorReply(
                        message.request, "denied", f"{type(message).__name__} is for operators", "Use clusterctl."
                    ),
                )
            else:
                self._answer(client, message, now)
        return None

    def _answer(self, client: Client, message: Any, now: float) -> None:  # noqa: C901, PLR0912 - one case per message
        match message:
            case Abort():
                self._abort(client, message, now)
            case QueueStatus():
                self._say(client, Reply(message.request, self._queue_status(message.targets)))
            case ControllerStatus():
                self._say(client, Reply(message.request, self.status(now)))
            case ListEngines():
                client.is_subscribed = True
                notices = self._hub.notices
                engines = [notices.info(engine) for engine in self._hub.engines_by_id.values()]
                self._say(client, Reply(message.request, engines), 200 * len(engines))
                if client.is_operator and client.control is not None:
                    for agent in self._hub.agents.values():
                        notices.agent(agent, "attached" if agent.connection else "lost", [client.control])
            case EngineTasks():
                value = engine_tasks(self._hub, self._tasks, message.engines, now)
                self._say(client, Reply(message.request, value), 512 * (1 + len(value["engines"])))
            case EngineCommand():
                self._operations.engine_command(client, message)
            case SetDesired():
                self._operations.set_desired(client, message)
            case ResumeSlots():
                self._operations.resume_slots(client, message)
            case Drain():
                self._drain(client, message, now)
            case QueryTasks() | Resubmit() | PurgeTasks():
                self._say(client, *self._records.answer(client, message, now))
            case PageTasks() | DescribeTask() | PurgePage():
                self._say(client, *self._pages.answer(message, now))
            case RotateKeys():
                self._rotate(client, message, now)
            case Shutdown():
                self._say(client, Reply(message.request, {}))
                self._shut_down(f"asked to by {client.name}")
            case _:
                raise WireError(f"{type(message).__name__} from a client that is attached")

    def _abort(self, client: Client, message: Abort, now: float) -> None:
        aborted = self._tasks.abort(client, message.tasks, message.targets, now)
        self._say(client, Reply(message.request, {"aborted": aborted}))

    def _rotate(self, client: Client, message: RotateKeys, now: float) -> None:
        try:
            self._say(client, Reply(message.request, self._rotation.change(message.grace, now)))
        except ClusterdError as error:
            self._say(client, ErrorReply(message.request, error.code, error.message, error.hint))

    def _drain(self, client: Client, message: Drain, now: float) -> None:
        idle: list[int] = []
        for wire_id in message.engines:
            engine = self._hub.engines_by_id.get(wire_id)
            if engine is None:
                idle.append(wire_id)  # gone: nothing left to wait for
                continue
            engine.is_draining = message.is_draining
            self._hub.notices.changed(engine)
            event = events.EngineDraining(wire_id) if message.is_draining else events.EngineUndrained(wire_id)
            self._tasks.handle(event, now)
            if message.is_draining and not self._tasks.is_busy(engine):
                idle.append(wire_id)
        self._say(client, Reply(message.request, {"idle": idle}))
        gone = [wire_id for wire_id in message.engines if wire_id not in self._hub.engines_by_id]
        if gone and message.is_draining:
            self._say(client, Drained(gone))

    def _queue_status(self, targets: list[int] | None) -> dict[str, Any]:
        status = self._tasks.scheduler.queue_status()
        wanted = (
            status.engines
            if targets is None
            else {key: status.engines[key] for key in targets if key in status.engines}
        )
        return {
            "engines": {
                key: {
                    "queued": load.queued,
                    "running": load.running,
                    "prefetched": load.prefetched,
                    "completed": load.completed,
                }
                for key, load in wanted.items()
            },
            "unassigned": status.unassigned,
            "waiting": status.waiting,
            "clients": len(status.clients),
        }

    def status(self, now: float) -> dict[str, Any]:
        """Everything that `clusterctl status` shows of a controller."""
        queue = self._tasks.scheduler.queue_status()
        ledger = self._tasks.ledger
        return {
            **self._about,
            "pid": os.getpid(),
            "commits": None if ledger is None else ledger.gate.about(),
            "started_at": self._started,
            "asked_at": time.time(),
            "engines": len(self._hub.engines_by_id),
            "suspect": sum(engine.is_suspect for engine in self._hub.engines_by_id.values()),
            "suspects": [
                {
                    "id": engine.id,
                    "name": engine.name,
                    "since": round(now - (engine.suspect_since or now), 3),
                    "why": self._hub.watch.why(engine, now),
                }
                for engine in self._hub.engines_by_id.values()
                if engine.is_suspect
            ],
            "clients": [
                {
                    "label": client.label,
                    "user": client.user,
                    "host": client.host,
                    "pid": client.pid,
                    "is_operator": client.is_operator,
                    "is_blocked": client.is_blocked,
                    "silent_for": round(now - client.last_heard, 3),
                }
                for client in self._hub.clients.values()
            ],
            "agents": [
                {
                    "launch": agent.launch,
                    "set": agent.engine_set,
                    "host": agent.host,
                    "is_connected": agent.connection is not None,
                }
                for agent in self._hub.agents.values()
            ],
            "tasks": {
                "queued": queue.unassigned + sum(load.queued for load in queue.engines.values()),
                "waiting": queue.waiting,
                "parked": self._tasks.parked,
                "running": queue.running,
                "prefetched": queue.prefetched,
                "completed": queue.completed,
            },
            "records": self._stored(),
            "functions": len(self._tasks.functions),
            "discarded": self._performer.discarded,
            "keys": self._rotation.about(now),
            "dropped": {name: dict(counter) for name, counter in self._counters.items()},
        }

    def _stored(self) -> dict[str, Any]:
        store = self._store
        records, pending, size = store.size()
        return {
            "database": store.kind,
            "records": records,
            "pending": pending,
            "bytes": size,
            "backlog": store.backlog,
            "lost": store.lost,
            "trouble": store.trouble,
        }

    @staticmethod
    def _say(client: Client, message: Any, size: int = 256) -> None:
        if client.control is not None:
            client.control.say(message, size)

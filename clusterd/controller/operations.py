"""Commands that agents carry out: signals, wanted slots, recalls; their answers, and what agents report by themselves.

A command is forwarded under a number of our own and answered to its requester when the agent has answered, or after a time limit that says
which agent was silent. Invariant: each request of a client is answered exactly once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from clusterd.controller.peers import Loss
from clusterd.core.model.page import ALL_ORDERS
from clusterd.core.scheduler import events
from clusterd.core.wire.messages import (
    AgentReport,
    CommandDone,
    EngineCommand,
    EngineExited,
    EngineSignal,
    EngineStarted,
    ErrorReply,
    Goodbye,
    Inventory,
    Ping,
    Pong,
    Recall,
    Recalled,
    Reply,
    ResumeSlots,
    SetDesired,
)
from clusterd.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterd.controller.hub import Hub
    from clusterd.controller.peers import Agent, Client, Engine
    from clusterd.controller.tasks import Tasks

log = logging.getLogger(__name__)
# An agent answers within a turn of its loop; one on a swapping node may take seconds. After that the requester is told.
COMMAND_SECONDS = 10.0
COMMANDS = frozenset({"interrupt", "stop", "kill", "restart", "signal"})
# Commands that may wait for agents at a time: some for each engine of the largest cluster.
MAX_PENDING = 100_000
# What an agent tells of a dead engine goes to the clients of all tasks that it held.
MAX_CAUSE = 1024
MAX_OUTPUT = 16 * 1024
MAX_LISTED = 200


class Pending:
    """A client's request that waits for agents."""

    __slots__ = ("client", "deadline", "done", "failed", "request", "tell", "waiting")

    def __init__(self, client: Client | None, request: int, deadline: float) -> None:
        # None for commands of the controller itself.
        self.client = client
        self.request = request
        self.deadline = deadline
        # Our number -> engine id (or -1) of all and only commands without an answer.
        self.waiting: dict[int, int] = {}
        self.done: list[int] = []
        self.failed: dict[int, str] = {}
        # Called once with the problem, or an empty string, for commands that came through a door.
        self.tell: Callable[[str], None] | None = None


class Operations:
    """What goes to and comes from agents.

    Args:
        hub, tasks: the controller's parts.
        epoch: names this controller on status pages.
    """

    def __init__(self, hub: Hub, tasks: Tasks, epoch: int = 0) -> None:
        self._hub = hub
        self._tasks = tasks
        self._epoch = epoch
        self._next_number = 0
        # By our number: requests that wait.
        self._pending: dict[int, Pending] = {}
        # Monotonic time of this turn of the loop.
        self.now = 0.0

    # --- for clients and operators ---

    def engine_command(self, client: Client, message: EngineCommand) -> None:
        """Forward `interrupt`, `stop`, `kill` or `restart` to the agents of the engines named."""
        if message.command not in COMMANDS:
            self._error(client, message.request, "malformed", f"no engine command {message.command!r}")
            return
        if len(self._pending) >= MAX_PENDING:
            self._error(client, message.request, "overloaded", f"{len(self._pending)} commands wait for agents already")
            return
        pending = Pending(client, message.request, self.now + COMMAND_SECONDS)
        registered = ""
        for wire_id in dict.fromkeys(message.engines):
            engine = self._hub.engines_by_id.get(wire_id)
            if engine is None:
                # Worked out once: a list of ids that are all wrong must not cost more than itself.
                registered = registered or _ranges(sorted(self._hub.engines_by_id))
                pending.failed[wire_id] = f"there is no engine {wire_id}; registered: {registered}"
                continue
            problem = self._send_signal(engine, message.command, message.number, pending)
            if problem:
                pending.failed[wire_id] = problem
        self._settle(pending)

    def signal(self, wire_id: int, command: str) -> None:
        """A command of the controller's own (task timeouts)."""
        engine = self._hub.engines_by_id.get(wire_id)
        if engine is None:
            return
        problem = self._send_signal(engine, command, 0, Pending(None, 0, self.now + COMMAND_SECONDS))
        if problem:
            log.warning("cannot %s engine %d: %s", command, wire_id, problem)

    def command(self, engine: Engine, command: str, number: int, tell: Callable[[str], None]) -> None:
        """A command that came through a door; `tell` is called once, with what went wrong or an empty string."""
        pending = Pending(None, 0, self.now + COMMAND_SECONDS)
        pending.tell = tell
        problem = self._send_signal(engine, command, number, pending)
        if problem:
            pending.failed[engine.id] = problem
        self._settle(pending)

    def recall(self, wire_id: int, first: int, last: int) -> None:
        """Ask the agent to revoke dispatches of an engine."""
        engine = self._hub.engines_by_id.get(wire_id)
        agent = self._hub.agents.get(engine.agent) if engine is not None else None
        if engine is not None and agent is not None and agent.connection is not None:
            agent.connection.say(Recall(engine.uuid, first, last), 32)

    def set_desired(self, client: Client, message: SetDesired) -> None:
        """Forward the wanted slots of a launch."""
        self._forward(client, message.request, message.launch, message)

    def resume_slots(self, client: Client, message: ResumeSlots) -> None:
        """Forward the end of a crash loop."""
        self._forward(client, message.request, message.launch, message)

    def _forward(self, client: Client, request: int, launch: str, message: SetDesired | ResumeSlots) -> None:
        agent = self._hub.agents.get(launch)
        if agent is None or agent.connection is None:
            state = "is not attached" if agent is None else "has lost its connection"
            self._error(client, request, "unknown_agent", f"the agent of launch {launch} {state}")
            return
        pending = Pending(client, request, self.now + COMMAND_SECONDS)
        number = self._number(pending, -1)
        message.request = number
        agent.connection.say(message, 64)

    def _send_signal(self, engine: Engine, command: str, signal: int, pending: Pending) -> str:
        if engine.door is not None:
            problem = engine.door.command(engine, command, signal)
            if not problem:
                pending.done.append(engine.id)
            return problem
        agent = self._hub.agents.get(engine.agent)
        if agent is None or agent.connection is None:
            return f"the agent of {engine.name} on {engine.host} is not connected"
        number = self._number(pending, engine.id)
        agent.connection.say(EngineSignal(number, engine.uuid, command, signal), 48)
        return ""

    def _number(self, pending: Pending, engine: int) -> int:
        self._next_number += 1
        pending.waiting[self._next_number] = engine
        self._pending[self._next_number] = pending
        return self._next_number

    # --- from agents ---

    def receive_agent(self, agent: Agent, messages: list[Any], now: float) -> str | None:  # noqa: C901 - one case per message
        """Handle messages of an agent; the reason when it said goodbye."""
        agent.has_spoken = True
        self._hub.watch.agent_heard(agent, now)
        for message in messages:
            match message:
                case Ping():
                    if agent.connection is not None:
                        agent.connection.say(Pong(), 8)
                case EngineStarted():
                    log.debug("agent of %s started slot %d (pid %d)", agent.engine_set, message.slot, message.pid)
                case EngineExited():
                    self._engine_exited(agent, message, now)
                case AgentReport():
                    agent.generation, agent.slots, agent.warnings = message.generation, message.slots, message.warnings
                    self._hub.agent_reported(agent, now)
                case Recalled():
                    engine = self._hub.engines.get(message.uuid)
                    if engine is not None:
                        recalled = events.EngineRecalled(engine.id, message.first, message.last, message.running)
                        self._tasks.handle(recalled, now)
                case CommandDone():
                    self._done(message)
                case Inventory():
                    self._hub.watch.agent_lists(agent, [state.uuid for state in message.engines], now)
                case Goodbye():
                    return message.reason
                case _:
                    raise WireError(f"{type(message).__name__} from an agent that is attached")
        return None

    def _engine_exited(self, agent: Agent, message: EngineExited, now: float) -> None:
        engine = self._hub.engines.get(message.uuid)
        if engine is not None:
            # What it said before it died is read first: a result that was sent is a result.
            self._hub.hear_out(engine, now)
            if message.order >= 0:
                begun = message.order if message.epoch == self._epoch else 0
                self._tasks.handle(events.EngineRecalled(engine.id, begun + 1, ALL_ORDERS, begun), now)
            cause, output = message.cause[:MAX_CAUSE], message.output_tail[-MAX_OUTPUT:]
            end = Loss(cause, output, message.running or None, is_wanted=message.is_wanted)
            self._hub.watch.engine_exited(engine, end, now)
        elif message.running and message.epoch not in (0, self._epoch) and message.id not in self._hub.engines_by_id:
            self._engine_of_predecessor_exited(agent, message, now)
        elif not message.is_wanted:
            log.warning("%s/%d ended, and was not registered: %s", agent.engine_set, message.slot, message.cause)

    def _engine_of_predecessor_exited(self, agent: Agent, message: EngineExited, now: float) -> None:
        # It died before it could attach to us, with a task that its client will offer again: whether that runs once more is a
        # question of its retries, and of nothing else. No client ever sees the engine.
        log.warning("%s/%d ended before it could come back: %s", agent.engine_set, message.slot, message.cause)
        cause, output = message.cause[:MAX_CAUSE], message.output_tail[-MAX_OUTPUT:]
        for event in (
            events.EngineAttached(message.id, message.uuid, agent.engine_set, message.slot),
            events.EngineSuspected(message.id),
            events.EngineInventory(message.id, ((message.running, message.attempt),)),
            events.EngineLost(message.id, cause, output, message.running, is_wanted=message.is_wanted),
        ):
            self._tasks.handle(event, now)

    def _done(self, message: CommandDone) -> None:
        pending = self._pending.pop(message.request, None)
        if pending is None:
            return
        engine = pending.waiting.pop(message.request)
        if message.error:
            pending.failed[engine] = message.error
        else:
            pending.done.append(engine)
        self._settle(pending)

    # --- time ---

    def next_deadline(self) -> float | None:
        """When the first pending request gives up."""
        # All have the same time, so the oldest is first.
        oldest = next(iter(self._pending.values()), None)
        return None if oldest is None else oldest.deadline

    def tick(self, now: float) -> None:
        """Answer requests whose agents were silent."""
        while self._pending:
            pending = next(iter(self._pending.values()))
            if now < pending.deadline:
                return
            for late, engine in pending.waiting.items():
                del self._pending[late]
                pending.failed[engine] = f"its agent did not answer within {COMMAND_SECONDS:.0f} s"
            pending.waiting.clear()
            self._settle(pending)

    def _settle(self, pending: Pending) -> None:
        if pending.waiting:
            return
        if pending.tell is not None:
            pending.tell(next(iter(pending.failed.values()), ""))
            return
        if pending.client is None or pending.client.control is None:
            return
        if -1 in pending.failed:
            self._error(pending.client, pending.request, "refused", pending.failed[-1])
            return
        value = {"done": [engine for engine in pending.done if engine >= 0], "failed": pending.failed}
        pending.client.control.say(Reply(pending.request, value), 64 + 64 * len(pending.failed))

    def _error(self, client: Client, request: int, code: str, text: str, hint: str = "") -> None:
        if client.control is not None:
            client.control.say(ErrorReply(request, code, text, hint), 64 + len(text))


def _ranges(ids: list[int]) -> str:
    """`0-3, 7` of sorted numbers, cut where that is long."""
    parts: list[list[int]] = []
    for number in ids:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts) or "none"
    return text if len(text) <= MAX_LISTED else f"{text[:MAX_LISTED]} ..."

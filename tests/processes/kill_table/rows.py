"""What is promised when a process is killed, as a table: one row for each process and moment. `python -m` this folder prints it.

A moment is a fault point of the product (it kills itself there) or, in words, a signal from outside. Every row stands for a run of
a real cluster with 50 tasks; what `Row` says beside the promise is what the run holds it to. What no row says is never allowed:
a task without an end, a result that comes twice, a task that runs twice, a process that is replaced without need.
"""

from __future__ import annotations

from dataclasses import dataclass

from clusterd.system import fault


@dataclass(frozen=True)
class Row:
    """One promise.

    Attributes:
        process: who is hit.
        moment: a name of `fault.POINTS`, or the situation in words.
        promise: what holds, for people.
        how: the provocation, by its name in `provocations.HOW`.
        also: what else is so at that moment, in words.
        passes: at which pass of the point.
        retries: of the tasks.
        lost: least and most tasks that end in EngineLost; all others have a result.
        unrun: most of them that had not begun.
        again: most tasks that are run twice. Only those that died with an engine may, and their `attempt` says so.
        durable: of the controller; `database`: where it is durable.
        transport: of the controller: `auto`, Unix streams as on one host; or `tcp`, as between hosts.
        replaced: kinds of processes that have another pid afterwards, one of each; everybody else is the same.
        engines: how many engines there may be afterwards.
    """

    process: str
    moment: str
    promise: str
    how: str
    also: str = ""
    passes: int = 1
    retries: int = 0
    lost: tuple[int, int] = (0, 0)
    unrun: int = 0
    again: int = 0
    durable: str = "off"
    database: str = "sqlite"
    transport: str = "auto"
    replaced: frozenset[str] = frozenset()
    engines: tuple[int, ...] = (2,)

    @property
    def is_point(self) -> bool:
        return self.moment in fault.POINTS

    @property
    def cell(self) -> tuple[str, str]:
        more = [self.also] if self.also else []
        more += [f"retries={self.retries}"] if self.retries else []
        more += [f"durable: {self.durable}"] if self.durable != "off" else []
        more += [self.database] if self.database != "sqlite" else []
        more += [self.transport] if self.transport != "auto" else []
        return self.process, f"{self.moment} ({', '.join(more)})" if more else self.moment


def only(*kinds: str) -> frozenset[str]:
    return frozenset(kinds)


# A table is read by rows: with one argument a line it would be four times as long.
# fmt: off

# The zygote is the agent's child: its socket ends with the agent, and so does it.
AGENT = only("agent", "zygote")

_LOST = "ends in EngineLost with engine, cause and last output"
_CONTROLLER = (
    "The client offers again what has no result, engines send again what was not acknowledged. Each task runs once."
)
CONTROLLER_ROWS = [
    Row("controller", "controller.submit.received", f"Nobody knows of these tasks but the client. {_CONTROLLER}", "load",
        replaced=only("controller")),
    Row("controller", "controller.result.received", f"The engine keeps the results. {_CONTROLLER}", "load", passes=3,
        replaced=only("controller")),
    Row("controller", "controller.turn.before_flush",
        f"Nothing of what was decided has left: neither results nor their acknowledgement. {_CONTROLLER}", "load", passes=4,
        replaced=only("controller")),
    Row("controller", "controller.flush.half_done",
        f"Results are with the client's kernel before an engine hears that it may forget them. {_CONTROLLER}", "load", passes=4,
        replaced=only("controller")),
    Row("controller", "controller.turn.after_flush", f"Dispatches are with the engines, which run them. {_CONTROLLER}", "load",
        passes=4, replaced=only("controller")),
    Row("controller", "controller.bound",
        "A successor dies before anybody can connect: its own successor does the work. What runs meanwhile goes on, and runs once.",
        "controller's successor", replaced=only("controller")),
    Row("controller", "controller.announced",
        "A successor dies before it has read a word: peers dial again. What runs meanwhile goes on, and runs once.",
        "controller's successor", replaced=only("controller")),
    Row("controller", "controller.recovery.before_release",
        "A successor dies when it is about to place what was offered: its own successor asks again. Each task runs once.",
        "controller's successor, with offers", replaced=only("controller")),
    Row("controller", "controller.commit.before_write",
        f"Nothing of it was said: neither acknowledged, nor dispatched, nor delivered. {_CONTROLLER}", "load", passes=5,
        durable="process", replaced=only("controller")),
    Row("controller", "controller.commit.after_write",
        "What is in the store is taken up, and placed when engines have said what they hold. Each task runs once.", "load",
        passes=5, durable="process", replaced=only("controller")),
    Row("controller", "controller.commit.after_write", "As with durable: process.", "load", passes=5, durable="disk",
        replaced=only("controller")),
    Row("controller", "controller.commit.after_write", "As with `database: sqlite`.", "load", passes=5, durable="process",
        database="mongodb", replaced=only("controller")),
    Row("controller", "controller.release.before_send",
        "What is in the store and was not said is said by the successor: results are delivered out of the store, once.", "load",
        passes=5, durable="process", replaced=only("controller")),
    Row("controller", "controller.release.half_done",
        "What was said is said again, and recognised: by its client, by its engine, by the store.", "load", passes=5,
        durable="process", replaced=only("controller")),
    Row("controller", "controller.restore.before_load",
        "A successor dies before it has read what it is to take up: its own successor does.", "controller's successor",
        durable="process", replaced=only("controller")),
    Row("controller", "controller.restore.after_load",
        "A successor dies when it has taken up what was left: its own successor does it again.", "controller's successor",
        durable="process", replaced=only("controller")),
    Row("controller", "while both engines run a task and 48 wait",
        "They are in the store: whoever is there first, engine or client, each task runs once and is told once.",
        "kill the controller under load", durable="process", replaced=only("controller")),
    Row("controller", "while both engines run a task and 48 wait", "As with `database: sqlite`.", "kill the controller under load",
        durable="process", database="mongodb", replaced=only("controller")),
    Row("controller", "while engines hold tasks in advance",
        "What was dispatched is waited for until its engine has said what it holds. Each task runs once.",
        "kill the controller with tasks ahead", durable="process", replaced=only("controller")),
    Row("controller", "while tasks wait for others, of which some have ended",
        "What has ended is in the store: they wait for the rest only, and run once.",
        "kill the controller with dependencies", durable="process", replaced=only("controller")),
    *(
        Row("controller", point, f"{what} {_CONTROLLER}", "change the keys", replaced=only("controller"))
        for point, what in (
            ("controller.rotate.secrets_kept", "Its successor has the new keys, accepts the old ones, and writes the files."),
            ("controller.rotate.half_written", "Engines come with the new key, clients with the old one: both are accepted."),
            ("controller.rotate.written", "Peers read the new keys, which its successor has."),
        )
    ),
    Row("controller", "controller.release.before_send",
        "What was about to be said is in the store, for whoever asks; all else is sent when it sends work. Each task runs once.",
        "stock load",
        also="of a stock client's results", passes=6, durable="process", replaced=only("controller")),
    Row("controller", "controller.release.half_done",
        "What it was sent it is never sent again; all else is sent when it sends work. Each task runs once.", "stock load",
        also="of a stock client's results", passes=6, durable="process", replaced=only("controller")),
    Row("controller", "while our engines and an ipengine run a stock client's tasks, and others wait",
        "They go on and are found running, or their results come late; each task runs once. Whoever asks for a result gets it "
        "from the store; the client is told when it sends work.",
        "kill the controller with a stock client's work", durable="process", replaced=only("controller")),
    Row("controller", "idle", "It is back in the time that a process takes to start; clients and engines notice nothing.",
        "kill the controller", replaced=only("controller")),
    Row("controller", "while both engines run a task and 48 wait",
        "The two go on and are found running; their results are delivered. Each task runs once.",
        "kill the controller under load", replaced=only("controller")),
    Row("controller", "while engines hold tasks in advance",
        "What has not begun is revoked and placed anew, what has is waited for. Each task runs once.",
        "kill the controller with tasks ahead", replaced=only("controller")),
    Row("controller", "controller.result.received", f"As on one host. {_CONTROLLER}", "load", passes=3, transport="tcp",
        replaced=only("controller")),
    Row("controller", "controller.turn.after_flush", f"As on one host. {_CONTROLLER}", "load", passes=4, transport="tcp",
        replaced=only("controller")),
    Row("controller", "while engines hold tasks in advance", "As on one host. Each task runs once.",
        "kill the controller with tasks ahead", transport="tcp", replaced=only("controller")),
    Row("controller", "and an engine that runs a task, before there is a successor",
        f"The agent tells the successor what died with the engine: the task {_LOST}.", "kill controller and engine", lost=(1, 1),
        replaced=only("controller", "engine")),
    Row("controller", "and an engine that runs a task, before there is a successor",
        "The agent tells the successor what died with the engine: the task is run again, and its attempt says so.",
        "kill controller and engine", retries=1, again=1, replaced=only("controller", "engine")),
    Row("controller", "while tasks wait for others, of which some have ended",
        "The client tells the successor only what is still to be waited for: they run when that has ended, once.",
        "kill the controller with dependencies", replaced=only("controller")),
    Row("controller", "stopped (SIGSTOP) for longer than its silence is taken for normal, then continued",
        "Peers dial again and wait; `status` says that it cannot be reached; nobody is declared dead or replaced.",
        "stop the controller"),
]

_ENGINE = "The set is refilled at once; what the engine held and had not begun runs elsewhere."
ENGINE_ROWS = [
    Row("engine", "engine.start.before_attach", "Its agent sees it end and starts another one.", "scale up", engines=(3,)),
    Row("engine", "engine.task.before_run", f"The task {_LOST}: whether it had begun cannot be known. {_ENGINE}", "load",
        passes=3, lost=(1, 1), unrun=1, replaced=only("engine")),
    Row("engine", "engine.task.before_run", f"The task is run by another engine. {_ENGINE}", "load", passes=3, retries=1,
        again=1, replaced=only("engine")),
    Row("engine", "engine.task.after_run", f"The task {_LOST}: its result died with the engine. {_ENGINE}", "load", passes=3,
        lost=(1, 1), replaced=only("engine")),
    Row("engine", "engine.task.after_run", f"The task is run again, and its attempt says so. {_ENGINE}", "load", passes=3,
        retries=1, again=1, replaced=only("engine")),
    Row("engine", "engine.result.before_send", f"Each task of the batch {_LOST} (short results travel together). {_ENGINE}",
        "load", passes=2, lost=(1, 16), replaced=only("engine")),
    Row("engine", "engine.result.before_send", f"The tasks of the batch are run again. {_ENGINE}", "load", passes=2, retries=1,
        again=16, replaced=only("engine")),
    Row("engine", "engine.result.after_send",
        f"What was sent is read before the death is believed: it is delivered and not run again. {_ENGINE}", "load", passes=2,
        replaced=only("engine")),
    Row("engine", "engine.result.after_send",
        "Also when the controller hears of the death first: what the engine had sent counts.", "die while the controller is busy",
        also="while the controller is busy", replaced=only("engine")),
    Row("engine", "engine.result.after_send",
        f"What ZeroMQ had not written when the engine died is lost with it: the task {_LOST}, or has its result. {_ENGINE}",
        "load", passes=2, transport="tcp", lost=(0, 16), replaced=only("engine")),
    Row("engine", "idle", "It is replaced at once, with a new id.", "kill an engine", replaced=only("engine")),
    Row("engine", "while it runs a task", f"The task {_LOST}. {_ENGINE}", "kill a running engine", lost=(1, 1),
        replaced=only("engine")),
    Row("engine", "while it runs a task", f"The task is run again by another engine, and its attempt says so. {_ENGINE}",
        "kill a running engine", retries=1, again=1, replaced=only("engine")),
    Row("engine", "while it runs a task and holds others in advance", f"Only the task that ran {_LOST}. {_ENGINE}",
        "kill an engine with tasks ahead", lost=(1, 1), replaced=only("engine")),
    Row("engine", "both at once, each with a task", f"Both tasks are run again by their successors. {_ENGINE}",
        "kill both engines", retries=1, again=2, replaced=only("both engines")),
    Row("engine", "stopped (SIGSTOP) with a task and others in advance, then continued",
        "It is never taken for dead. What it has not begun is recalled and runs elsewhere; its task ends when it goes on.",
        "stop an engine"),
]

_AGENT = "Its engines go on. The daemon starts a successor, which adopts them."
AGENT_ROWS = [
    Row("agent", "agent.start.after_claim", f"A successor dies at once, another one follows. {_AGENT}", "agent's successor",
        replaced=AGENT),
    Row("agent", "agent.start.before_attach", f"A successor dies when it has found the engines, another one follows. {_AGENT}",
        "agent's successor", replaced=AGENT),
    Row("agent", "agent.fork.after_order",
        f"Engines that nobody has reported yet are found by their identity files: none is lost, none is there twice. {_AGENT}",
        "scale up", replaced=AGENT, engines=(3,)),
    Row("agent", "agent.engine_exited.before_report",
        f"Its successor finds what is left of the dead engine and reports it: the task {_LOST}. {_AGENT}",
        "kill a running engine", lost=(1, 1), replaced=AGENT | only("engine")),
    Row("agent", "agent.recall.before_answer",
        f"What was revoked stays revoked; the recall is repeated, and the tasks run elsewhere, once. {_AGENT}", "recall",
        replaced=AGENT),
    Row("agent", "idle", f"Nobody else notices. {_AGENT}", "kill the agent", replaced=AGENT),
    Row("agent", "while both engines run a task and 48 wait", f"Work goes on meanwhile. {_AGENT}", "kill the agent under load",
        replaced=AGENT),
    Row("agent", "and an engine that runs a task, before there is a successor",
        f"The successor reports the death: the task {_LOST} (how is not known). {_AGENT}", "kill agent and engine", lost=(1, 1),
        replaced=AGENT | only("engine")),
    Row("agent", "stopped (SIGSTOP) while an engine dies, then continued",
        "Nobody is declared dead without proof: the engine's task waits, other work goes on; the death is told when the agent is.",
        "stop the agent", lost=(1, 1), replaced=only("engine")),
]

_ZYGOTE = "Engines do not notice; the agent starts another zygote."
ZYGOTE_ROWS = [
    Row("zygote", "zygote.warm.before_report", f"A successor dies when it is warm, another one follows. {_ZYGOTE}",
        "zygote's successor", replaced=only("zygote")),
    Row("zygote", "zygote.fork.before_report",
        f"The engine that was forked and not reported is found by its identity file. {_ZYGOTE}", "scale up",
        replaced=only("zygote"), engines=(3,)),
    Row("zygote", "zygote.reap.before_report",
        f"The agent sees the death itself: the task {_LOST} (how is not known). {_ZYGOTE}", "kill a running engine",
        lost=(1, 1), replaced=only("zygote", "engine")),
    Row("zygote", "idle", _ZYGOTE, "kill the zygote", replaced=only("zygote")),
    Row("zygote", "while both engines run a task and 48 wait", _ZYGOTE, "kill the zygote under load", replaced=only("zygote")),
    Row("zygote", "stopped (SIGSTOP) while the set grows, then continued",
        "Work goes on; the new engine comes when it goes on, and `status` says until then that one is missing.",
        "stop the zygote", engines=(3,)),
]

_DAEMON = "Tasks go on without it; the next daemon adopts controller, agent and engines."
_WISH = "What was asked for holds if it was acknowledged, and else wholly or not at all."
_BIRTH = "Nothing runs yet: the next daemon begins anew, or goes on with what is whole."
DAEMON_ROWS = [
    *(
        Row("daemon", point, f"{_WISH} {_DAEMON}", "scale up", replaced=only("daemon"), engines=(2, 3))
        for point in ("journal.append.before_write", "journal.append.before_fsync")
    ),
    Row("daemon", "journal.append.after_fsync", f"The wish is durable, though nobody was told: it is carried out. {_DAEMON}",
        "scale up", replaced=only("daemon"), engines=(3,)),
    Row("daemon", "daemon.handle.after_actions", f"The agent may have been told; nothing is done twice. {_DAEMON}", "scale up",
        replaced=only("daemon"), engines=(3,)),
    Row("daemon", "daemon.start.before_spawn", f"The launch is called off, and another one begun. {_DAEMON}",
        "replace the agent", replaced=AGENT | only("daemon")),
    Row("daemon", "daemon.start.after_spawn", f"The process that it started is found and adopted: there are not two. {_DAEMON}",
        "replace the agent", replaced=AGENT | only("daemon")),
    Row("daemon", "files.atomic_write.before_rename", f"The old file is in place, or none; the start is begun again. {_DAEMON}",
        "replace the controller", replaced=only("daemon", "controller")),
    Row("daemon", "daemon.rotate.before_publish", f"The keys are changed; the next daemon renews what it publishes. {_DAEMON}",
        "change the keys", replaced=only("daemon")),
    *(
        Row("daemon", point, _BIRTH, "first start")
        for point in (
            "journal.segment.before_write",
            "journal.segment.before_fsync",
            "journal.segment.before_rename",
            "journal.segment.before_directory_fsync",
            "journal.segment.before_switch",
        )
    ),
    Row("daemon", "journal.segment.before_removal", f"The newest segment counts, the old one goes later. {_DAEMON}",
        "old segment", replaced=only("daemon")),
    Row("daemon", "journal.repair.before_truncate", f"The torn end is cut off by the next one. {_DAEMON}", "torn journal",
        replaced=only("daemon")),
    Row("daemon", "idle", _DAEMON, "kill the daemon", replaced=only("daemon")),
    Row("daemon", "while it scales, under load", f"{_WISH} {_DAEMON}", "kill the daemon while it scales",
        replaced=only("daemon"), engines=(3,)),
    Row("daemon", "with controller and agent, while both engines run a task and 48 wait",
        "The engines go on alone; the next daemon starts controller and agent, which find them. Each task runs once.",
        "kill all but the engines", replaced=AGENT | only("daemon", "controller")),
    Row("daemon", "stopped (SIGSTOP), then continued", "Tasks go on; nobody is replaced.", "stop the daemon"),
]

_CLIENT = "Its tasks run at most once; what it had queued is dropped within two seconds. Nobody else notices."
CLIENT_ROWS = [
    *(
        Row("client", point, _CLIENT, "another client")
        for point in ("client.submit.before_send", "client.submit.after_send", "client.result.received")
    ),
    Row("client", "while two of its tasks run and 38 wait", _CLIENT, "kill another client"),
]

# fmt: on

ROWS = [*CONTROLLER_ROWS, *ENGINE_ROWS, *AGENT_ROWS, *ZYGOTE_ROWS, *DAEMON_ROWS, *CLIENT_ROWS]

WITHOUT_ROW: dict[str, str] = {}
"""Fault points that no row is about, each with the reason."""


def as_markdown() -> str:
    """The table for people."""
    lines = ["| who | killed when | what holds |", "|---|---|---|"]
    for row in ROWS:
        words = f"`{row.moment}`: {fault.POINTS[row.moment].description}" if row.is_point else row.moment
        words += row.cell[1].removeprefix(row.moment)
        lines.append(f"| {row.process} | {words} | {row.promise} |")
    return "\n".join(lines) + "\n"

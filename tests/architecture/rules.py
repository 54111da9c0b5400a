"""Who may import whom, as a table: the design's section "directories and their imports", in a form that a test can hold.

A rule is found by the longest name that fits. `own` are the packages of ours that may be imported (besides the package
itself and clusterd.errors), `third` the distributions, `never` the modules of the standard library that must not appear.
Names of modules, not of distributions: yaml, not PyYAML.
"""

from __future__ import annotations

from dataclasses import dataclass

IO = "asyncio os pathlib random secrets select signal socket subprocess threading time uuid"
"""What a pure core never touches: the operating system, the clock, chance."""

MORE_IO = "concurrent ctypes fcntl getpass glob http mmap multiprocessing platform pwd queue resource sched selectors shutil sqlite3 ssl"
"""The same by other names."""


@dataclass(frozen=True)
class Rule:
    """What one package may import."""

    own: frozenset[str] = frozenset()
    third: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()


def rule(own: str = "", third: str = "", never: str = "") -> Rule:
    return Rule(frozenset(own.split()), frozenset(third.split()), frozenset(never.split()))


CORE = "clusterd.core"
SYSTEM = "clusterd.system"

RULES: dict[str, Rule] = {
    # The front doors: they resolve names lazily, so that neither costs anything.
    "clusterd": rule(own="clusterd.client"),
    "clusterd.errors": rule(),
    "clusterd.__main__": rule(),
    CORE: rule(third="msgspec", never=f"{IO} {MORE_IO}"),
    SYSTEM: rule(third="psutil sdnotify setproctitle"),
    "clusterd.profile": rule(own="clusterd.core.model", third="yaml msgspec"),
    "clusterd.storage": rule(own=f"{CORE} {SYSTEM}", third="msgspec"),
    "clusterd.storage.taskstore.mongodb": rule(
        own=f"{CORE} {SYSTEM} clusterd.storage", third="msgspec pymongo gridfs bson"
    ),
    "clusterd.launchers": rule(own=f"{CORE} {SYSTEM}", third="msgspec"),
    "clusterd.control": rule(own=f"{CORE} {SYSTEM}", third="msgspec aiohttp"),
    # The thin client is what clusterctl and the library load: no aiohttp, and nothing that starts slowly.
    "clusterd.control.client": rule(own=f"{CORE} {SYSTEM}", third="msgspec", never="asyncio"),
    # Where other programs look for a connection file: the daemon puts it there, or the command.
    "clusterd.publish": rule(own=f"{CORE} {SYSTEM}", never="asyncio subprocess"),
    "clusterd.daemon": rule(
        own=f"{CORE} {SYSTEM} clusterd.profile clusterd.storage clusterd.launchers clusterd.control clusterd.link"
        " clusterd.publish",
        third="msgspec zmq setproctitle",
    ),
    "clusterd.controller": rule(
        own=f"{CORE} {SYSTEM} clusterd.storage.taskstore", third="msgspec zmq setproctitle", never="asyncio"
    ),
    # Its text runs on stock engines, where nothing of ours is installed; nobody imports it here.
    "clusterd.controller.compat.guest": rule(third="IPython cloudpickle"),
    "clusterd.agent": rule(own=f"{CORE} {SYSTEM} clusterd.link", third="msgspec zmq psutil setproctitle"),
    # Between fork and exec nothing may hold a lock: no thread, no loop, no context. It warms clusterd.engine by name, which
    # imports the module zmq but makes no context: see WARMED.
    "clusterd.agent.zygote": rule(
        own=f"{CORE} {SYSTEM}",
        third="msgspec psutil setproctitle",
        never="asyncio threading concurrent multiprocessing",
    ),
    "clusterd.engine": rule(
        own=f"{CORE} {SYSTEM} clusterd.link",
        third="msgspec zmq IPython traitlets cloudpickle psutil setproctitle",
        never="asyncio",
    ),
    # What stock clients' pickles name; asked for by name, and a clear error where it is missing: see OPTIONAL.
    "clusterd.engine.stock.library": rule(
        own=f"clusterd.engine {CORE} {SYSTEM} clusterd.link",
        third="IPython ipyparallel ipykernel comm",
        never="asyncio",
    ),
    # The one engine that has an event loop is a Dask worker.
    "clusterd.engine.stock.kernel": rule(own=f"clusterd.engine {CORE}", third="comm"),
    # A peer's end of the wire (client, agent, engine, and the daemon as operator): transports and nothing that decides.
    "clusterd.link": rule(
        own=f"{CORE} clusterd.system.stream clusterd.system.unix_sockets", third="msgspec zmq", never="asyncio"
    ),
    # Daemon, command and client must find the same directories from the same environment.
    "clusterd.client": rule(
        own=f"{CORE} clusterd.link clusterd.control.client clusterd.system.paths clusterd.system.fault",
        third="msgspec zmq cloudpickle",
    ),
    # A plugin of ipyparallel's programs, which starts ours by argv; nothing of ours imports it.
    "clusterd.ipyparallel": rule(own=f"{CORE} {SYSTEM}", third="ipyparallel traitlets msgspec"),
    "clusterctl": rule(own="clusterd.control.client clusterd.core.model", third="click rich", never="asyncio"),
    # What ran, when there is no daemon any more that could be asked.
    "clusterctl.archived": rule(own="clusterd.storage.taskstore clusterd.system.paths", never="asyncio"),
    "clusterctl.commands.connect": rule(
        own="clusterd.control.client clusterd.core.model clusterd.publish clusterctl", third="click", never="asyncio"
    ),
    "clusterctl.commands.profile": rule(
        own="clusterd.control.client clusterd.core.model clusterd.profile clusterctl",
        third="click rich",
        never="asyncio",
    ),
}

WARMED = {("clusterd.agent.zygote", "clusterd.engine")}
"""Imports by name that are meant: the zygote imports, before it forks, what its children run."""

USERS_ENVIRONMENT = frozenset({"zmq", "msgspec", "IPython", "traitlets", "cloudpickle", "psutil", "setproctitle"})
"""All that is installed beside the users' interpreter, where agent and engine run (traitlets comes with IPython)."""

OPTIONAL = {
    "clusterd.engine.stock.kernel": frozenset({"comm"}),
    "clusterd.engine.stock.library": frozenset({"ipyparallel", "ipykernel", "comm"}),
}
"""What a module asks for by name, and says so where it is missing."""

UNIX_ONLY = frozenset({"fcntl", "pwd", "grp", "resource", "termios"})
"""Missing on Windows, where engines of a mixed pool run and a client may sit."""


def rule_for(name: str) -> tuple[str, Rule]:
    """Return the rule of a module: the one with the longest name that fits.

    Raises:
        KeyError: no rule fits; a new top-level module of clusterd needs one.
    """
    candidate = name
    while True:
        if candidate in RULES and (candidate != "clusterd" or name == "clusterd"):
            return candidate, RULES[candidate]
        candidate, dot, _ = candidate.rpartition(".")
        if not dot:
            raise KeyError(f"{name}: no rule in tests/architecture/rules.py says what it may import")

"""What an administrator wrote: the profile, its sections and every setting there is.

Each setting stands here once, with type, explanation, default, bounds and what a change of it costs. The reader
(clusterd.profile), the JSON schema, `profile create`, error messages and `reload` all read this one table through
`msgspec.inspect`; none of them repeats a word of it. Values are as written: `~` and relative paths are expanded by
the reader, placeholders in `env` by the agent. Seconds are floats, sizes are bytes. The reader refuses unknown keys;
the structs themselves do not, since parts of them travel to processes of older and newer releases (AgentSpec).
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct, field

from clusterd.core.model.access import Access
from clusterd.core.model.database import Database, Durable, MongodbRecords, Records, SqliteRecords
from clusterd.core.model.setting import BYTES, GIB, MIB, PATH, POSITIVE, SECONDS, SIZE_PATTERN, Applies, form, setting

__all__ = [
    "DEFAULT_ENGINE_SET",
    "LAUNCHERS",
    "OTHER_SET_NAMES",
    "PROFILE_NAME_PATTERN",
    "PROFILE_VERSION",
    "RESERVED_SET_NAMES",
    "SIZE_PATTERN",
    "Access",
    "Applies",
    "ClientCredit",
    "ControllerSection",
    "CrashLoop",
    "EngineSet",
    "Launcher",
    "Limits",
    "Profile",
    "Records",
    "RestartPolicy",
    "Startup",
    "port_range",
]

PROFILE_VERSION = 1
DEFAULT_ENGINE_SET = "engines"
# Part of file names, sockets, process titles and unit names (clusterd@NAME): no "/", no leading "-" or ".".
PROFILE_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
# `logs controller` and `logs daemon` mean the processes.
RESERVED_SET_NAMES = frozenset({"controller", "daemon"})
# Engines that no profile speaks of are listed under these: started by hand, and stock ipyparallel's.
OTHER_SET_NAMES = frozenset({"hand", "stock"})

Launcher = Literal["local"]
LAUNCHERS: frozenset[str] = frozenset(get_args(Launcher))

# Far above what one controller serves, far below what a typing error (two zeros too many) asks for.
_ENGINES_MAX = 65_536


_Line = Annotated[str, Meta(min_length=1, max_length=65_536)]
_Module = Annotated[str, form(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$", "the name of a Python module", max_length=256)]
_Variable = Annotated[str, form(r"^[A-Za-z_][A-Za-z0-9_]*$", "the name of an environment variable", max_length=256)]
_Environment = dict[_Variable, Annotated[str, Meta(max_length=65_536)]]
_SET_NAME = form(
    r"^[A-Za-z][A-Za-z0-9_-]{0,31}$", "the name of an engine set (a letter, then up to 31 letters, digits, - or _)"
)


class CrashLoop(Struct, frozen=True, kw_only=True):
    """When to stop restarting what keeps dying."""

    failures: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        setting("So many failures of one engine (or of the controller) ...", "live"),
    ] = 5
    within: Annotated[
        POSITIVE, setting("... within so many seconds, and it stays down until somebody restarts it.", "live")
    ] = 60.0


class RestartPolicy(Struct, frozen=True, kw_only=True):
    """What happens when a process ends that was not asked to. The first restart is immediate."""

    policy: Annotated[
        Literal["always", "on-failure", "never"],
        setting("Which ends are followed by a restart; on-failure: not an exit with status 0.", "live"),
    ] = "always"
    initial_backoff: Annotated[
        SECONDS, setting("Seconds before the second restart; doubled for each one after it.", "live")
    ] = 0.5
    max_backoff: Annotated[SECONDS, setting("The pause between restarts grows no longer than this.", "live")] = 30.0
    crash_loop: Annotated[CrashLoop, setting("When to give up.", "live")] = CrashLoop()


class ClientCredit(Struct, frozen=True, kw_only=True):
    """What one client may have under way, so that none can fill the controller's memory; ours waits at the limit."""

    tasks: Annotated[
        Annotated[int, Meta(ge=1, le=10_000_000)], setting("Unfinished tasks of one client.", "controller")
    ] = 16_384
    memory: Annotated[
        BYTES,
        setting(
            "Their size. A single task that is larger is taken when it is the only one.", "controller", unit="bytes"
        ),
    ] = 64 * MIB
    results: Annotated[
        BYTES,
        setting(
            "Results that wait for one client to read them; its next ones stay on the engines.",
            "controller",
            unit="bytes",
        ),
    ] = 64 * MIB


class Limits(Struct, frozen=True, kw_only=True):
    """What a process and all that it starts may use together; by default what the machine has.

    Under systemd the kernel holds them all. Without it `memory` is held for each process by itself (RLIMIT_DATA), and the
    other two are not: `status` says so.
    """

    memory: Annotated[
        Annotated[int, Meta(ge=16 * MIB, le=1024 * 1024 * GIB)] | None,
        setting(
            "Memory. Of an engine set: of all its engines on one host, and their agent; beyond it the kernel ends the largest one.",
            "set",
            unit="bytes",
            example="4 GiB",
        ),
    ] = None
    cpus: Annotated[
        Annotated[float, Meta(ge=0.01, le=65_536)] | None,
        setting("Seconds of CPU time a second.", "set", example=2),
    ] = None
    tasks: Annotated[
        Annotated[int, Meta(ge=16, le=4_194_304)] | None,
        setting("Processes and threads.", "set", example=512),
    ] = None


class ControllerSection(Struct, frozen=True, kw_only=True):
    """The controller: takes work from clients and hands it to engines."""

    launcher: Annotated[Launcher, setting("How the controller is started.", "controller")] = "local"
    ip: Annotated[
        Annotated[str, form(r"^[A-Za-z0-9.:*_-]{1,253}$", "an IP address or host name")],
        setting("Address or host name its TCP sockets listen on.", "controller", example="127.0.0.1"),
    ] = "127.0.0.1"
    location: Annotated[
        Annotated[str, form(r"^[A-Za-z0-9.:_-]{1,253}$", "an IP address or host name")] | None,
        setting("Address under which others reach it; null: the host's own name.", "controller", example="10.0.0.1"),
    ] = None
    transport: Annotated[
        Literal["auto", "ipc", "tcp"],
        setting("ipc: Unix sockets, this host only. tcp: ports. auto: ipc for what is on this host.", "controller"),
    ] = "auto"
    reuse: Annotated[
        bool,
        setting("Keep key and ports over a restart, so that copied connection files stay valid.", "controller"),
    ] = True
    ports: Annotated[
        Annotated[str, form(r"^[0-9]{1,5}-[0-9]{1,5}$", "a range of ports such as 50000-50100")] | None,
        setting(
            "Range of TCP ports to choose from (firewalls); null: any free ones.", "controller", example="50000-50100"
        ),
    ] = None
    stock: Annotated[
        Literal["off", "on", "curve"] | None,
        setting(
            "Sockets for stock ipyparallel clients and engines. on: TCP ports, signed with the key. curve: encrypted as well."
            " null: curve where root started the daemon or `ip` leaves loopback, else on. Whoever is logged in on the node can"
            " subscribe to the port on loopback that publishes output; curve keeps them out.",
            "controller",
            example="curve",
        ),
    ] = None
    task_scheme: Annotated[
        Literal["leastload", "lru", "twobin", "weighted", "plainrandom", "pure"],
        setting(
            "Which engine gets a balanced task. leastload: the least loaded one. lru: the one that was given work the longest ago."
            " twobin: of two by lot, the one that was given work the longest ago. weighted: of two by lot, the one that holds less."
            " plainrandom: by lot. pure: in turns; stock clients then refuse dependencies, retries and targets.",
            "controller",
        ),
    ] = "leastload"
    ping: Annotated[
        POSITIVE,
        setting("Seconds between two heartbeats of a stock engine; one that misses ten is lost.", "controller"),
    ] = 3.0
    database: Annotated[
        Database,
        setting(
            "Where tasks are remembered. memory: as long as the controller lives. sqlite: in a file. mongodb: on a server."
            " none: nowhere.",
            "controller",
        ),
    ] = "memory"
    durable: Annotated[
        Durable,
        setting(
            "What tasks that were acknowledged, and results, survive without their client. off: nothing is promised."
            " process: kill -9 of every process. disk: power loss, too. process and disk need database: sqlite or mongodb.",
            "controller",
        ),
    ] = "off"
    records: Annotated[Records, setting("How much is remembered in memory.", "controller")] = Records()
    sqlite: Annotated[SqliteRecords, setting("How much is remembered in the file.", "controller")] = SqliteRecords()
    mongodb: Annotated[MongodbRecords, setting("Which server it is, and how much is remembered.", "controller")] = (
        MongodbRecords()
    )
    client_credit: Annotated[ClientCredit, setting("What one client may have under way.", "controller")] = (
        ClientCredit()
    )
    max_message: Annotated[BYTES, setting("Largest payload frame that is accepted.", "controller", unit="bytes")] = (
        2 * GIB
    )
    python: Annotated[
        PATH | None,
        setting("Interpreter it runs under; null: the daemon's.", "controller", example="/opt/clusterd/bin/python"),
    ] = None
    env: Annotated[
        _Environment,
        setting("Environment variables for it, beside the daemon's own.", "controller", example={"TMPDIR": "/scratch"}),
    ] = field(default_factory=dict)
    limits: Annotated[Limits, setting("What it may use.", "controller")] = Limits()
    restart: Annotated[RestartPolicy, setting("What happens when it dies.", "live")] = RestartPolicy()
    start_timeout: Annotated[POSITIVE, setting("Seconds it has to become ready.", "live")] = 30.0
    stop_timeout: Annotated[SECONDS, setting("Seconds it has to end by itself before it is killed.", "live")] = 10.0


class Startup(Struct, frozen=True, kw_only=True):
    """What each engine runs first; again after a restart and after `clear`."""

    script: Annotated[
        PATH | None,
        setting("Python file that is run; relative to the directory of this profile.", "set", example="startup.py"),
    ] = None
    command: Annotated[
        _Line | None, setting("Python code that is run, after the script.", "set", example="import math")
    ] = None


class EngineSet(Struct, frozen=True, kw_only=True):
    """A named group of engines with one launcher and a wanted number."""

    launcher: Annotated[Launcher, setting("How its engines are started.", "set")] = "local"
    n: Annotated[
        Annotated[int, Meta(ge=0, le=_ENGINES_MAX)],
        setting("How many engines are wanted at start; `clusterctl scale` changes it.", "live", example=4),
    ]
    max: Annotated[Annotated[int, Meta(ge=0, le=_ENGINES_MAX)], setting("It is never scaled beyond this.", "live")] = (
        512
    )
    python: Annotated[
        PATH | None,
        setting("The users' interpreter; null: the daemon's.", "set", example="/opt/conda/envs/lab/bin/python"),
    ] = None
    setup: Annotated[
        list[_Line],
        setting(
            "Shell lines that run before the interpreter: modules, conda.", "set", example=["module load python/3.11"]
        ),
    ] = field(default_factory=list)
    preload: Annotated[
        list[_Module],
        setting(
            "Modules imported once, before the engines are forked; a missing one is a warning.",
            "set",
            example=["numpy"],
        ),
    ] = field(default_factory=list)
    work_dir: Annotated[
        PATH,
        setting("Directory the engines work in; ~ is the home of the user they run as.", "set", example="~/scratch"),
    ] = "~"
    startup: Annotated[Startup, setting("What each engine runs first.", "set")] = Startup()
    env: Annotated[
        _Environment,
        setting(
            "Environment of the engines, beside the daemon's own. {slot} {local_rank} {set} {n} are replaced: the engine's"
            " number in its set and on its host, the set's name and size; {{ is a brace. Values are text: quote numbers.",
            "set",
            example={"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "{local_rank}"},
        ),
    ] = field(default_factory=dict)
    cpus_per_engine: Annotated[
        Annotated[int, Meta(ge=1, le=4096)], setting("CPUs that each engine may use; pinned with bind.", "set")
    ] = 1
    gpus_per_engine: Annotated[Annotated[int, Meta(ge=0, le=64)], setting("GPUs that each engine is given.", "set")] = 0
    bind: Annotated[bool, setting("Pin each engine to CPUs (and GPUs) of its own.", "set")] = False
    limits: Annotated[Limits, setting("What its engines may use on one host, all together.", "set")] = Limits()
    restart: Annotated[RestartPolicy, setting("What happens when an engine dies.", "live")] = RestartPolicy()
    start_timeout: Annotated[
        POSITIVE, setting("Seconds an engine has to register, start-up script included.", "live")
    ] = 60.0
    stop_timeout: Annotated[SECONDS, setting("Seconds between asking an engine to end and killing it.", "live")] = 10.0
    drain_timeout: Annotated[
        SECONDS | None,
        setting("Seconds a running task may go on when its engine is scaled away; null: until it is done.", "live"),
    ] = 30.0
    orphan_timeout: Annotated[
        SECONDS | None,
        setting("Seconds idle engines live on without a controller; null: for ever.", "set"),
    ] = 3600.0


class Profile(Struct, frozen=True, kw_only=True):
    """A clusterd profile: one controller and its engine sets."""

    version: Annotated[Literal[1], setting("Version of this format.", "daemon", example=1)]
    description: Annotated[
        Annotated[str, Meta(max_length=1024)],
        setting("One line for `clusterctl profile list`.", "live", example="Engines on this machine"),
    ] = ""
    run_as: Annotated[
        Annotated[str, form(r"^[a-z_][a-z0-9_-]{0,30}\$?$", "a user name")] | None,
        setting(
            "User that a daemon started by root becomes, with all that it starts. It does not run engines as root, unless root is what"
            " stands here.",
            "daemon",
            example="lab",
        ),
    ] = None
    access: Annotated[Access, setting("Who may use the cluster beside root and the user it runs as.", "live")] = (
        Access()
    )
    on_stop: Annotated[
        Literal["stop", "keep"],
        setting(
            "What `systemctl stop` means. stop: the whole cluster ends. keep: the daemon alone, as with a restart of the service.",
            "live",
        ),
    ] = "stop"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], setting("How much is logged.", "live")] = "info"
    publish: Annotated[
        Literal["ipython"] | None,
        setting(
            "ipython: while the controller runs, its client file also lies in the IPython directory of the user it runs as, so"
            " that ipyparallel.Client(profile=NAME) finds it. Needs controller.stock.",
            "live",
            example="ipython",
        ),
    ] = None
    controller: Annotated[ControllerSection, setting("The controller.", "controller")] = ControllerSection()
    engine_sets: Annotated[
        Annotated[dict[Annotated[str, _SET_NAME], EngineSet], Meta(min_length=1)],
        setting(
            "Engine sets by name; the one that commands mean by default is called `engines`.",
            "live",
            example={DEFAULT_ENGINE_SET: {"n": 4}},
        ),
    ]


def port_range(text: str | None) -> tuple[int, int] | None:
    """Return the first and last port of `controller.ports` (`50000-50100`), None when any port will do."""
    if text is None:
        return None
    first, _, last = text.partition("-")
    return int(first), int(last)

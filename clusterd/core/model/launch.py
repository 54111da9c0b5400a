"""What a launch is told and who it turned out to be: specs and process identities.

A spec is the one argument of `clusterd agent --spec FILE` and `clusterd controller --spec FILE`: the receiving side may be an
older or newer release in another environment, so unknown fields are ignored and new ones have defaults. No secret
stands in a spec: keys are in the connection files.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
from msgspec import Struct, field

from clusterd.core.model.database import MongodbRecords, Records, SqliteRecords
from clusterd.core.model.profile import ClientCredit, RestartPolicy, Startup
from clusterd.errors import LaunchError

__all__ = ["SPEC_FORMAT", "AgentSpec", "ControllerSpec", "ProcessIdentity", "decode", "encode"]

SPEC_FORMAT: Final = 1
"""Raised when an older receiver would misread a spec; added fields alone do not raise it."""


class ProcessIdentity(Struct, frozen=True):
    """One process of one boot of one host; equal only when every field is. `system.process` makes and checks them.

    Attributes:
        host: host id, `name-XXXXXXXX`.
        boot_id: the kernel's random id of the boot.
        pid: process id in `pid_namespace`.
        start_time: clock ticks since boot, field 22 of /proc/PID/stat.
        pid_namespace: inode of the namespace, 0 where there are none.
    """

    host: str
    boot_id: str
    pid: int
    start_time: int
    pid_namespace: int = 0


class AgentSpec(Struct, frozen=True, kw_only=True):
    """What an agent is told. Paths are absolute.

    Attributes:
        launch: id of this launch; names the identity file that the agent claims before it does anything else.
        cluster: name of the cluster.
        engine_set: name of its set.
        profile_dir: the state directory (`security/ log/ pid/ db/`).
        runtime_dir: where identity files and status pages lie.
        log_dir: where the output of engines goes.
        connection_file: ipcontroller-engine.json; may not exist yet when the agent starts.
        slots: wanted at start; later ones come by SetDesired.
        generation: of these slots.
        env: environment of the engines, with placeholders not yet expanded.
        preload: modules to import before the fork.
        work_dir: the engines' working directory.
        startup: script (absolute) and command that every engine runs first.
        cpus_per_engine: cores that each is pinned to when `bind` is set.
        gpus_per_engine: likewise for GPUs.
        bind: pin engines to cores.
        restart: when a dead engine is replaced.
        start_timeout: seconds an engine may take until it has registered.
        stop_timeout: seconds between SIGTERM and SIGKILL.
        orphan_timeout: seconds that idle engines go on without a controller; None: for ever.
        stock: tasks of stock ipyparallel clients may come, also where the connection file does not say so yet.
        is_alone: no daemon commands it, so it ends when no engine is left nor to come, and its runtime directory goes with it.
        journal: what engines print goes to systemd's journal, too.
        format: SPEC_FORMAT of the writer.
        software: version of the writer, for messages.
    """

    launch: str
    cluster: str
    engine_set: str
    profile_dir: str
    runtime_dir: str
    log_dir: str
    connection_file: str
    slots: tuple[int, ...] = ()
    generation: int = 0
    env: dict[str, str] = field(default_factory=dict)
    preload: list[str] = field(default_factory=list)
    work_dir: str = ""
    startup: Startup = Startup()
    cpus_per_engine: int = 1
    gpus_per_engine: int = 0
    bind: bool = False
    restart: RestartPolicy = RestartPolicy()
    start_timeout: float = 60.0
    stop_timeout: float = 10.0
    orphan_timeout: float | None = 3600.0
    stock: bool = False
    is_alone: bool = False
    journal: bool = False
    format: int = SPEC_FORMAT
    software: str = ""


class ControllerSpec(Struct, frozen=True, kw_only=True):
    """What a controller is told. Fields without a line here are those of the profile's controller section.

    Attributes:
        launch: id of this launch; names the identity file that it claims.
        cluster: name of the cluster.
        profile_dir: the state directory; connection files go to `security/` below it.
        runtime_dir: where identity file and Unix sockets go.
        log_dir: where it logs.
        stock: sockets for stock ipyparallel: off, on, or curve (on, and encrypted).
        ping: seconds between two heartbeats of a stock engine.
        cluster_id: part of the names of the connection files, as ipyparallel has it; empty for none.
        format: SPEC_FORMAT of the writer.
        software: version of the writer, for messages.
    """

    launch: str
    cluster: str
    profile_dir: str
    runtime_dir: str
    log_dir: str
    ip: str = "127.0.0.1"
    location: str | None = None
    transport: str = "auto"
    reuse: bool = True
    ports: str | None = None
    database: str = "memory"
    durable: str = "off"
    records: Records = Records()
    sqlite: SqliteRecords = SqliteRecords()
    mongodb: MongodbRecords = MongodbRecords()
    client_credit: ClientCredit = ClientCredit()
    max_message: int = 2 * 1024**3
    stock: str = "off"
    ping: float = 3.0
    task_scheme: str = "leastload"
    cluster_id: str = ""
    format: int = SPEC_FORMAT
    software: str = ""


Spec = TypeVar("Spec", AgentSpec, ControllerSpec)


def encode(spec: AgentSpec | ControllerSpec) -> bytes:
    """Return the content of a spec file, indented: people read these when something does not start."""
    return msgspec.json.format(msgspec.json.encode(spec), indent=2) + b"\n"


def decode(data: bytes, kind: type[Spec], source: str) -> Spec:
    """Understand the content of a spec file.

    Args:
        data: its bytes.
        kind: AgentSpec or ControllerSpec.
        source: the file's name, for the error.

    Raises:
        LaunchError: it is not a spec of that kind, or of a format that this release does not know.
    """
    try:
        spec = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LaunchError(f"{source} is no {kind.__name__}: {error}") from error
    if spec.format > SPEC_FORMAT:
        raise LaunchError(
            f"{source} has format {spec.format} (clusterd {spec.software or 'of unknown version'}), this side reads up to"
            f" {SPEC_FORMAT}",
            hint="install the daemon's version of clusterd in the engines' environment",
        )
    return spec

"""The command line of `clusterd controller`: everything that the daemon writes into a spec file, for people and test harnesses."""

from __future__ import annotations

import argparse
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from clusterd.controller import sockets
from clusterd.controller.claim import by_hand_runtime_dir
from clusterd.core.model import launch
from clusterd.core.model.database import DURABLE_DATABASES, MongodbRecords
from clusterd.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMES = ("leastload", "lru", "twobin", "weighted", "plainrandom", "pure")


def parse(argv: Sequence[str]) -> tuple[launch.ControllerSpec, str]:
    """(what the controller is told, format of its log).

    Raises:
        LaunchError: the spec file cannot be used, or an option has a bad value. SystemExit(2): usage.
    """
    parser = argparse.ArgumentParser(
        prog="clusterd controller", description="The controller of one cluster, in the foreground."
    )
    parser.add_argument("--spec", metavar="FILE", help="everything below in one file, as the daemon writes it")
    parser.add_argument("--profile-dir", metavar="DIR", help="state directory: connection files go to DIR/security")
    parser.add_argument("--runtime-dir", metavar="DIR", help="where its Unix sockets go (default: one of its own)")
    parser.add_argument("--cluster", default="default", metavar="NAME", help="name of the cluster")
    parser.add_argument("--launch", default="", metavar="ID", help="id of this launch (default: a random one)")
    parser.add_argument("--ip", default="127.0.0.1", help="address to listen on; off loopback everything is encrypted")
    parser.add_argument("--location", help="address or name that others reach this host by (default: its name)")
    parser.add_argument(
        "--transport",
        default="auto",
        choices=("auto", "ipc", "tcp"),
        help="auto: Unix sockets (ipc) on loopback, else tcp",
    )
    parser.add_argument("--ports", help="TCP ports that may be used, such as 50000-50100")
    parser.add_argument("--reuse", action="store_true", help="keep keys and ports in connection files that stay valid")
    parser.add_argument(
        "--database",
        default="memory",
        choices=("memory", "sqlite", "mongodb", "none"),
        help="where tasks are recorded: memory, the file db/tasks.db, a MongoDB server, or nowhere",
    )
    parser.add_argument(
        "--nodb", dest="database", action="store_const", const="none", help="the same as --database none"
    )
    parser.add_argument(
        "--durable",
        default="off",
        choices=("off", "process", "disk"),
        help="what tasks and results survive: kill -9 of every process, or power loss; with --reuse and sqlite or mongodb",
    )
    parser.add_argument("--mongodb-uri", default="mongodb://127.0.0.1:27017", metavar="URI", help="without a password")
    parser.add_argument("--mongodb-credentials", metavar="FILE", help="file with user:password, mode 0600")
    parser.add_argument(
        "--stock",
        choices=("off", "on", "curve"),
        help="sockets for stock ipyparallel clients and engines (default: on; off loopback curve, which is encrypted)",
    )
    parser.add_argument(
        "--ping", type=int, default=3000, metavar="MS", help="milliseconds between heartbeats of stock engines"
    )
    parser.add_argument(
        "--task-scheme", default="leastload", choices=SCHEMES, help="how balanced tasks are given to engines"
    )
    parser.add_argument(
        "--cluster-id", default=os.environ.get("IPP_CLUSTER_ID", ""), metavar="ID", help="goes into the files' names"
    )
    parser.add_argument("--log-format", default="text", choices=("text", "json"))
    options = parser.parse_args(list(argv))
    if options.spec:
        path = Path(options.spec)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise LaunchError(f"cannot read {path}: {error.strerror}") from error
        return launch.decode(data, launch.ControllerSpec, str(path)), options.log_format
    if not options.profile_dir:
        parser.error("--profile-dir (or --spec) is needed")
    if options.durable != "off" and not (options.reuse and options.database in DURABLE_DATABASES):
        parser.error(f"--durable {options.durable} needs --reuse and --database sqlite or mongodb")
    profile_dir = Path(options.profile_dir).absolute()
    return (
        launch.ControllerSpec(
            launch=options.launch or f"{secrets.token_hex(4)}-0",
            cluster=options.cluster,
            profile_dir=str(profile_dir),
            runtime_dir=options.runtime_dir or str(by_hand_runtime_dir(profile_dir, options.cluster_id)),
            log_dir=str(profile_dir / "log"),
            ip=options.ip,
            location=options.location,
            transport=options.transport,
            reuse=options.reuse,
            ports=options.ports,
            database=options.database,
            durable=options.durable,
            mongodb=MongodbRecords(uri=options.mongodb_uri, credentials=options.mongodb_credentials),
            stock=options.stock or ("on" if sockets.is_loopback(options.ip) else "curve"),
            ping=max(options.ping, 10) / 1000,
            task_scheme=options.task_scheme,
            cluster_id=options.cluster_id,
        ),
        options.log_format,
    )

"""What `clusterd engine` is told: by its own options, and as ipyparallel tells its engines, whose launchers may start this one.

Those say in the environment where the controller is (IPP_CONNECTION_INFO, the content of a connection file; or IPP_PROFILE_DIR and
IPP_CLUSTER_ID), and add options of ipengine that mean nothing here.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clusterd.core.model.connection import ENGINE_FILE, file_name

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

JOIN_TIMEOUT: Final = 30.0
CONNECTION_INFO: Final = "IPP_CONNECTION_INFO"
_PROFILE_DIR: Final = "IPP_PROFILE_DIR"
_CLUSTER_ID: Final = "IPP_CLUSTER_ID"
# `--IPEngine.x=y`, `--debug`, `--log-level=10`: what ipengine's own launchers add.
_FOREIGN: Final = re.compile(r"--(\w+\.[\w.]+(=.*)?|debug|quiet|log-(level|to-file|url)(=.*)?)")
# Where process managers of MPI say which rank this is.
_RANKS: Final = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")


class Options(argparse.Namespace):
    """The options.

    Attributes:
        file: the connection file; None where `content` is all there is.
        content: the connection file itself, from the environment.
        id: wanted number; -1: any.
        timeout: seconds to join.
        orphan_timeout: seconds without a controller before an idle engine ends, or None.
        startup_script, startup_command: what runs first, or None.
        is_launched: ipyparallel has started this engine, nobody sits before it.
    """

    file: Path | None
    content: bytes
    id: int
    timeout: float
    orphan_timeout: float | None
    startup_script: str | None
    startup_command: str | None
    is_launched: bool


def parse(argv: Sequence[str], environ: MutableMapping[str, str] | None = None) -> Options:
    """Read arguments and environment; what holds a key is taken out of the environment, which user code and its children see.

    Raises:
        SystemExit: status 2, and the reason was written; or 0 after `--help`.
    """
    environ = os.environ if environ is None else environ
    parser = _parser()
    options, unknown = parser.parse_known_args(argv, Options())
    foreign = [word for word in unknown if _FOREIGN.fullmatch(word)]
    if len(foreign) < len(unknown):
        parser.error(f"unrecognized arguments: {' '.join(word for word in unknown if word not in foreign)}")
    if foreign:
        sys.stderr.write(f"clusterd engine: options of ipengine that mean nothing here: {' '.join(foreign)}\n")
    options.is_launched = any(name in environ for name in (CONNECTION_INFO, _PROFILE_DIR))
    options.content = environ.pop(CONNECTION_INFO, "").encode()
    if options.file is not None:
        options.content = b""
    else:
        directory = options.profile_dir or environ.get(_PROFILE_DIR)
        cluster_id = environ.get(_CLUSTER_ID, "") if options.cluster_id is None else options.cluster_id
        if directory:
            options.file = Path(directory).expanduser() / "security" / file_name("engine", cluster_id)
        elif not options.content:
            parser.error(
                "one of the arguments --file --profile-dir is required"
                f" (or {CONNECTION_INFO} or {_PROFILE_DIR} in the environment)"
            )
    if options.mpi and options.id < 0:
        options.id = next((int(environ[name]) for name in _RANKS if environ.get(name, "").isdecimal()), -1)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clusterd engine",
        description="One engine by hand, in the foreground; Ctrl-C interrupts its task, or ends it.",
        epilog=f"ipyparallel.Cluster can start it: {CONNECTION_INFO} in the environment holds what --file names.",
        allow_abbrev=False,
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--file", type=Path, metavar="PATH", help=f"the controller's {ENGINE_FILE}")
    where.add_argument(
        "--profile-dir", type=Path, metavar="DIR", help=f"the directory that holds security/{ENGINE_FILE}"
    )
    parser.add_argument("--cluster-id", metavar="ID", help="which of several clusters of the profile directory")
    parser.add_argument("--id", type=int, default=-1, metavar="N", help="number that clients use for it, if it is free")
    parser.add_argument("--mpi", action="store_true", help="take the rank as that number")
    parser.add_argument(
        "--timeout", type=float, default=JOIN_TIMEOUT, metavar="S", help=f"seconds to join (default: {JOIN_TIMEOUT:g})"
    )
    parser.add_argument("--orphan-timeout", type=float, metavar="S", help="seconds without a controller before it ends")
    parser.add_argument("--startup-script", metavar="FILE", help="Python file that is run first")
    parser.add_argument("--startup-command", metavar="TEXT", help="Python text that is run first, after the script")
    return parser

"""`clusterd serve`: parses, begins, then imports what an event loop needs, and serves until told to end.

Exit status: 0 told to end; 1 cannot begin or go on (the reason is on stderr); 2 usage; 3 another daemon serves the profile;
78 the profile cannot be used. SIGTERM and SIGINT end the daemon alone: controller and engines run on and are adopted by the
next one (`clusterctl stop` ends them). SIGHUP reads the profile again.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import TYPE_CHECKING, Final

from clusterd.daemon import startup
from clusterd.errors import ClusterdError, LockHeld, ProfileError
from clusterd.system import log_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

LOCKED: Final = 3
CONFIG: Final = 78  # EX_CONFIG, sysexits(3): systemd does not restart for it (RestartPreventExitStatus=)

_log = logging.getLogger("clusterd.daemon")


def main(argv: Sequence[str]) -> int:
    """Run a daemon; return its exit status."""
    options = _parse(argv)
    log_lines.configure(options.log_format, options.log_level)
    try:
        begun = startup.begin(
            options.profile, is_start=options.start, engines=options.engines, ends_on_stop=options.ends_on_stop
        )
    except LockHeld as error:
        return _fail(error, LOCKED)
    except ProfileError as error:
        # The list of mistakes has a line for each, with file, line and column: as editors and people read it.
        if options.log_format == "json":
            return _fail(error, CONFIG)
        sys.stderr.write(f"{error}\n")
        return CONFIG
    except (ClusterdError, OSError) as error:
        return _fail(error, 1)
    if options.log_level is None:
        logging.getLogger().setLevel(begun.profile.profile.log_level.upper())
    os.chdir("/")
    # 250 ms: controller and agents begin meanwhile.
    from clusterd.daemon.serving import serve  # noqa: PLC0415 - the point of this file

    return serve(begun, lambda: _tell_ready(options.ready_fd))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="clusterd serve",
        description="The daemon of one profile, in the foreground. To command it: clusterctl.",
    )
    parser.add_argument("--profile", default="default", metavar="NAME", help="what to serve (default: %(default)s)")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), help="default: as the profile says"
    )
    parser.add_argument("--start", action="store_true", help="begin with what `clusterctl start` does")
    parser.add_argument("--engines", type=int, metavar="N", help="with --start: engines of the default set")
    parser.add_argument("--ends-on-stop", action="store_true", help="end after `clusterctl stop`")
    parser.add_argument("--ready-fd", type=int, metavar="FD", help="write READY to this descriptor, once it is so")
    return parser.parse_args(list(argv))


def _tell_ready(descriptor: int | None) -> None:
    if descriptor is not None:
        try:
            os.write(descriptor, b"READY\n")
        except BrokenPipeError:
            _log.debug("nobody waits for READY any more")
        os.close(descriptor)


def _fail(error: Exception, status: int) -> int:
    _log.error("%s", error)
    return status

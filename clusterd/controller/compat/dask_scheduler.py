"""A scheduler of dask that ends with the controller.

python -m clusterd.controller.compat.dask_scheduler PID_OF_THE_CONTROLLER ARGUMENTS...
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
from typing import Final

MISSING: Final = 69
"""Exit status where this Python has no `distributed` (EX_UNAVAILABLE of sysexits.h)."""
_PR_SET_PDEATHSIG: Final = 1
_PROGRAM: Final = "distributed.cli.dask_scheduler"


def main(argv: list[str]) -> int:
    """Run the scheduler until it is told to end."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # The controller may have died before we asked to be told.
    if os.getppid() != int(argv[0]):
        return 0
    sys.argv = ["dask scheduler", *argv[1:]]
    try:
        runpy.run_module(_PROGRAM, run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:
        if error.name != "distributed":
            raise
        return MISSING
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
